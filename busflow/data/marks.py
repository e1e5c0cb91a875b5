"""Marks that are drawn on a picture: calipers, measuring lines, letters and digits, pictograms, boxes.

A pulse of ultrasound is short along the beam and wide across it, so that echoes are wider than high and fade
at their sides (Szabo, *Diagnostic Ultrasound Imaging: Inside Out*, 2nd ed., 2014, chapters 8-10). What a
scanner draws has thin upright strokes of one grey level instead. A picture is marked if it has

* a bar: an upright run of pixels that stands out from both sides by more than its own levels differ; or
* a cross, as calipers are, fainter than that, but with a ridge on each of its four arms.

The numbers were chosen on 1,237 real images (BUSI 680, BUS-BRA 347, Rodrigues 210), 300 of them seen, and
none of a group with the 100 of ``tests/data/marks_by_eye.csv``, which tell how good the rule is
(`docs/statistics.md`). They are pixels of the original picture: it must not have been resized.
"""

import logging
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import pandas as pd

from busflow.data.images import UnusableImage, decode
from busflow.errors import BusflowError

logger = logging.getLogger(__name__)

# Along the upper edge most of BUSI has the name of the scanner's maker, which marks no lesion.
HEAD = 0.06
# A pixel this far to either side of a stroke is beside it: the strokes of BUSI are 1 to 4 px wide.
BESIDE = 3
BAR = 5
# Grey levels. The best bar has at most 27 in unmarked images, in marked ones of BUSI (but one) at least 43.
BAR_CONTRAST = 35
# The best cross has at most 15 in unmarked images, BUS-BRA's faintest calipers 17 to 20.
CROSS_CONTRAST = 17
# Two arms of a cross, 2 to 4 px from its centre.
ARMS = np.array([1, 1, 1, 0, 0, 0, 1, 1, 1], np.uint8)


def has_marks(grey: np.ndarray) -> bool:
    """Whether anything is drawn on a picture, uint8 [H, W] in its original size.

    The upper 6 %, where the maker's name is, are not looked at. Missed are dark marks, faint calipers whose
    centre is left open, and what an edge cuts off to less than 5 px.
    """
    head = int(HEAD * len(grey))
    upright, turned = _ridge(grey), _ridge(grey.T)
    spread = cv2.morphologyEx(grey, cv2.MORPH_GRADIENT, np.ones((BAR, 1), np.uint8))
    bars = cv2.subtract(_lowest(upright, np.ones(BAR, np.uint8)), spread)
    crosses = np.minimum(_lowest(upright, ARMS), _lowest(turned, ARMS).T)
    return bool(bars[head:].max() >= BAR_CONTRAST or crosses[head:].max() >= CROSS_CONTRAST)


def find_marks(images: pd.DataFrame, threads: int) -> pd.DataFrame:
    """Which images of an index are marked.

    Args:
        images: ``image_id, path`` of ``data/index/images.csv``.
        threads: decoders at work at once; the result does not depend on it.

    Returns:
        ``image_id, marked`` (``true`` or ``false``) in the order of ``images``.

    Raises:
        BusflowError: a file is missing or damaged.
    """
    cv2.setNumThreads(1)
    start = time.perf_counter()
    with ThreadPoolExecutor(threads) as pool:
        marked = np.array(list(pool.map(_file_has_marks, images["path"])), bool)
    speed = len(images) / (time.perf_counter() - start)
    logger.info("%d of %d images are marked (%.0f images/s)", marked.sum(), len(images), speed)
    return pd.DataFrame({"image_id": images["image_id"], "marked": np.where(marked, "true", "false")})


def _ridge(grey: np.ndarray) -> np.ndarray:
    """By how much each pixel of uint8 [H, W] exceeds both pixels beside it; 0 at the left and right edge."""
    left = np.pad(grey, ((0, 0), (BESIDE, 0)), constant_values=255)[:, : grey.shape[1]]
    right = np.pad(grey, ((0, 0), (0, BESIDE)), constant_values=255)[:, BESIDE:]
    return cv2.subtract(grey, np.maximum(left, right))


def _lowest(values: np.ndarray, along: np.ndarray) -> np.ndarray:
    """The least value of each pixel's upright neighbours where ``along`` is 1; 0 beyond the picture."""
    return cv2.erode(values, along[:, None], borderType=cv2.BORDER_CONSTANT, borderValue=0)


def _file_has_marks(path: str) -> bool:
    try:
        return has_marks(decode(Path(path).read_bytes(), Path(path).suffix))
    except (FileNotFoundError, UnusableImage) as error:
        raise BusflowError(f"{path} cannot be read any more ({error}); unpack its archive again") from error
