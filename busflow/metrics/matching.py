"""Which predicted box finds which lesion: overlaps, COCO's one-to-one assignment, and ranked hits."""

from typing import NamedTuple

import numpy as np
import pandas as pd

from busflow.metrics.detection_inputs import BOX

RECALLS = np.linspace(0, 1, 101)


class Ranking(NamedTuple):
    """What a ranked list of predictions yields at each hit, group by group.

    ``hits`` and ``shown`` [G, H]: hits and predictions of each group down to the rank of each of the H hits;
    ``lesions`` [G]: what there was to find. Sums over groups are those of the whole list.
    """

    hits: np.ndarray
    shown: np.ndarray
    lesions: np.ndarray


def overlaps(truth: pd.DataFrame, detections: pd.DataFrame, least: float) -> pd.DataFrame:
    """Pairs of a prediction and a lesion of the same image with an IoU of at least ``least``.

    Columns ``detection``, ``lesion`` (rows of the two tables) and ``iou``, the predictions in their order,
    the greatest IoU of each first.
    """
    pairs = (
        detections[["image", *BOX]]
        .reset_index(names="detection")
        .merge(truth[["image", *BOX]].reset_index(names="lesion"), on="image", suffixes=("", "_lesion"))
    )
    x, y, w, h = pairs[BOX].to_numpy(float).T
    left, top, width, height = pairs[[f"{name}_lesion" for name in BOX]].to_numpy(float).T
    across = np.minimum(x + w, left + width) - np.maximum(x, left)
    down = np.minimum(y + h, top + height) - np.maximum(y, top)
    shared = np.maximum(across, 0) * np.maximum(down, 0)
    pairs["iou"] = shared / (w * h + width * height - shared)
    pairs = pairs.loc[pairs["iou"] >= least, ["detection", "lesion", "iou"]]
    return pairs.sort_values(["detection", "iou"], ascending=[True, False], ignore_index=True)


def assign(pairs: pd.DataFrame, iou: float) -> np.ndarray:
    """Predictions that hit: each, best score first, takes the free lesion that it overlaps most, as in COCO.

    ``pairs`` are those of `overlaps`, of one class, numbered by falling score.
    """
    hits, taken = [], set()
    for detection, lesion in pairs.loc[pairs["iou"] >= iou, ["detection", "lesion"]].to_numpy().tolist():
        if lesion not in taken and (not hits or hits[-1] != detection):
            hits.append(detection)
            taken.add(lesion)
    return np.array(hits, dtype=int)


def rank(hits: np.ndarray, groups: np.ndarray, lesions: np.ndarray) -> Ranking:
    """Count down a ranked list.

    Args:
        hits: ranks [H] of the predictions that hit, ascending.
        groups: group [N] (0 ... G - 1) of each prediction, best score first.
        lesions: lesions [G] of each group.
    """

    def down_to_each_hit(ranks: np.ndarray) -> np.ndarray:
        of_group = (ranks[groups[ranks] == g] for g in range(len(lesions)))
        return np.array([np.searchsorted(part, hits, side="right") for part in of_group], dtype=float)

    return Ranking(down_to_each_hit(hits), down_to_each_hit(np.arange(len(groups))), lesions.astype(float))


def average_precision(ranking: Ranking, weights: np.ndarray) -> np.ndarray:
    """COCO's average precision [R] when group g is there ``weights[r, g]`` times; NaN without lesions.

    The mean over the recalls 0, 0.01 ... 1 of the greatest precision at that recall or a greater one.
    """
    hits, shown, lesions = (weights @ counts for counts in ranking)
    with np.errstate(invalid="ignore"):
        recall, precision = hits / lesions[:, None], np.nan_to_num(hits / shown)
    precision = np.pad(np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1], ((0, 0), (0, 1)))
    found = [
        values[np.searchsorted(reached, RECALLS)].mean()
        for values, reached in zip(precision, recall, strict=True)
    ]
    return np.where(lesions > 0, found, np.nan)
