"""Areas, overlaps and surfaces of masks that are COCO's run-length codes (RLE); few are ever decoded."""

import cv2
import numpy as np
from faster_coco_eval.core import mask as rle
from scipy.spatial import KDTree

CROSS = cv2.getStructuringElement(cv2.MORPH_CROSS, (3, 3))


def areas(codes: list[dict]) -> np.ndarray:
    """Pixels of each mask; int [N]."""
    return rle.area(codes).astype(int)


def intersections(a: list[dict], b: list[dict]) -> np.ndarray:
    """Pixels that the masks of each pair share; int [N]."""
    shared = np.zeros(len(a), int)
    for i in np.flatnonzero((areas(a) > 0) & (areas(b) > 0)):
        shared[i] = rle.area(rle.merge([a[i], b[i]], intersect=True))
    return shared


def union(a: dict, b: dict) -> dict:
    """The RLE of the pixels of either mask."""
    return rle.merge([a, b])


def surface(code: dict) -> np.ndarray:
    """Rows and columns, int [S, 2], of a mask's pixels beside a pixel (of four) that is not the mask's.

    What lies outside of the image is not the mask's.
    """
    x, y, w, h = rle.toBbox(code).astype(int)
    region = np.ascontiguousarray(rle.decode(code)[y : y + h, x : x + w])
    inner = cv2.erode(region, CROSS, borderType=cv2.BORDER_CONSTANT, borderValue=0)
    return np.argwhere(region > inner) + np.array([y, x])


def hd95(a: np.ndarray, b: np.ndarray) -> float:
    """Robust Hausdorff distance of two surfaces, points [S, 2] and [T, 2].

    Of each surface's points, the 95th percentile (linear interpolation) of the distance to the nearest point
    of the other; the larger of the two (Maier-Hein et al. 2024, Nat. Methods 21, HD95).
    """
    return max(np.percentile(KDTree(there).query(here)[0], 95) for here, there in ((a, b), (b, a)))
