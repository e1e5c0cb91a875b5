"""How far two files with the predictions of one model are apart."""

import itertools
import math
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from faster_coco_eval.core import mask
from scipy.optimize import linear_sum_assignment

from busflow.files import read_json

# Another processor adds in another order. Of a probability or score, a share of an image.
TOLERANCE = 1e-3
# Overlap from which boxes may be one: an eighth of a pixel off for one of 50; other sums move a hundredth.
SAME_BOX = 0.995
# Where suppression or a limit stands on the edge, a box is in one prediction alone: with and without oneDNN
# 2 of 25,200 boxes of an untrained Cascade, none of 2,876 of a trained one. None may be sure.
SURE = 0.5
MOST_ALONE = 1 / 2000

NO_BOXES = np.zeros((0, 5))


class Comparison(NamedTuple):
    """Whether predictions are alike but for another order of sums, and in words how far apart they are."""

    alike: bool
    distance: str


def compare(one: Path, other: Path) -> Comparison:
    """Tables and masks by their largest difference, boxes by their partners (``compare_boxes``)."""
    if one.read_bytes() == other.read_bytes():
        return Comparison(True, "equal bytes")
    try:
        if one.suffix == ".csv":
            return _within(_of_tables(pd.read_csv(one), pd.read_csv(other)))
        results = read_json(one), read_json(other)
        if any("bbox" in each for each in itertools.chain(*results)):
            return compare_boxes(*results)
        return _within(_of_masks(*results))
    except (KeyError, TypeError, ValueError) as error:  # of a file that no prediction wrote
        return Comparison(False, f"not the predictions of one task ({type(error).__name__})")


def compare_boxes(one: list[dict], other: list[dict]) -> Comparison:
    """Match the boxes of each image one to one, as many as can with one of their label by ``SAME_BOX``.

    Alike are predictions whose partners' scores differ by ``TOLERANCE`` at most, and whose boxes without a
    partner are few (``MOST_ALONE``) and none of them ``SURE``: their order, and ties in it, say nothing.

    Args:
        one, other: COCO results, each with ``image_id``, ``label``, ``bbox`` [x, y, w, h] in pixels and
            ``score``.
    """
    overlaps, apart, alone = [np.ones(1)], [np.zeros(1)], [np.zeros(0)]
    of_one, of_other = _by_image(one), _by_image(other)
    for key in of_one.keys() | of_other.keys():
        ours, theirs = of_one.get(key, NO_BOXES), of_other.get(key, NO_BOXES)
        iou = overlap(ours[:, :4], theirs[:, :4])
        difference = np.abs(ours[:, None, 4] - theirs[None, :, 4])
        rows, columns = linear_sum_assignment(
            np.where(iou >= SAME_BOX, 1 + iou - difference, 0), maximize=True
        )
        found = iou[rows, columns] >= SAME_BOX
        rows, columns = rows[found], columns[found]
        overlaps.append(iou[rows, columns])
        apart.append(difference[rows, columns])
        alone += [np.delete(ours[:, 4], rows), np.delete(theirs[:, 4], columns)]
    furthest, left = np.concatenate(apart).max(), np.concatenate(alone)
    sure, boxes = (~(left < SURE)).sum(), len(one) + len(other)
    return Comparison(
        bool(furthest <= TOLERANCE and not sure and len(left) <= MOST_ALONE * boxes),
        f"IoU of partners {np.concatenate(overlaps).min():.4f} or more, scores within {furthest:.2g}; "
        f"without a partner {len(left)} of {boxes} boxes, {sure} of them of a score from {SURE}",
    )


def overlap(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """IoU [N, M] of boxes [N, 4] and [M, 4], given as x, y, w, h in pixels.

    Taken a pixel wider and higher than they are, so that what the border cut to nothing overlaps itself.
    """
    (start, size), (other_start, other_size) = (np.split(boxes, 2, axis=1) for boxes in (one, other))
    size, other_size = size + 1, other_size + 1
    ends = np.minimum((start + size)[:, None], (other_start + other_size)[None])
    shared = (ends - np.maximum(start[:, None], other_start[None])).clip(0).prod(-1)
    return shared / (size.prod(1)[:, None] + other_size.prod(1)[None] - shared)


def _by_image(results: list[dict]) -> dict[tuple[str, str], np.ndarray]:
    """Of each image and label the boxes [N, 5]: x, y, w, h, score."""
    boxes: dict[tuple[str, str], list] = {}
    for each in results:
        boxes.setdefault((each["image_id"], each["label"]), []).append([*each["bbox"], each["score"]])
    return {key: np.array(rows, float) for key, rows in boxes.items()}


def _within(difference: float) -> Comparison:
    return Comparison(difference <= TOLERANCE, f"largest difference {difference:.2g}")


def _of_tables(one: pd.DataFrame, other: pd.DataFrame) -> float:
    """Largest difference of a number; infinite when the words of the tables are not the same."""
    numbers = one.select_dtypes("number").columns
    words = one.columns.difference(numbers)
    if not one.columns.equals(other.columns) or not one[words].equals(other[words]):
        return math.inf
    return float(np.abs(one[numbers].to_numpy() - other[numbers].to_numpy()).max(initial=0))


def _of_masks(one: list[dict], other: list[dict]) -> float:
    """Largest share of an image's pixels under another label; infinite for other images, labels or sizes."""
    names, other_names = (
        [(each["image_id"], each["label"], each["segmentation"]["size"]) for each in results]
        for results in (one, other)
    )
    if names != other_names:
        return math.inf
    pairs = zip(one, other, strict=True)
    masks = ([mask.decode(each["segmentation"]) for each in pair] for pair in pairs)
    return float(max(((a != b).mean() for a, b in masks), default=0))
