"""Which predicted box finds which lesion: overlaps, COCO's one-to-one assignment, and ranked hits."""

from typing import NamedTuple

import numpy as np
import pandas as pd

from busflow.metrics.detection_inputs import BOX

RECALLS = np.linspace(0, 1, 101)
ROUNDED_UP = np.arange(101) / 100 < RECALLS  # in COCO 7 of 20 lesions do not reach 0.35
ROWS = 256  # of resamples at a time, which stay in a processor's cache


class Ranking(NamedTuple):
    """What a ranked list of predictions yields at each score that a hit has, group by group.

    ``hits`` and ``shown`` [G, H]: hits and predictions of each group of at least each of the H scores;
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


def assign(pairs: pd.DataFrame, iou: float) -> tuple[np.ndarray, np.ndarray]:
    """Predictions that hit, and the lesions that they hit: each, best score first, takes its first free pair.

    ``pairs`` are those of `overlaps`, of one class, numbered by falling score; in the order of `overlaps` a
    prediction takes the free lesion that it overlaps most, as in COCO.
    """
    taken = {}
    hits = []
    for detection, lesion in pairs.loc[pairs["iou"] >= iou, ["detection", "lesion"]].to_numpy().tolist():
        if lesion not in taken and (not hits or hits[-1] != detection):
            hits.append(detection)
            taken[lesion] = detection
    return np.array(hits, dtype=int), np.array(list(taken), dtype=int)


def rank(hits: np.ndarray, scores: np.ndarray, groups: np.ndarray, lesions: np.ndarray) -> Ranking:
    """Count down a ranked list; predictions of one score, which no threshold parts, count together.

    Args:
        hits: ranks [H] of the predictions that hit, ascending.
        scores: [N] of the predictions, falling.
        groups: group [N] (0 ... G - 1) of each prediction.
        lesions: lesions [G] of each group.
    """
    last = np.unique(np.searchsorted(-scores, -scores[hits], side="right")) - 1

    def down_to_each_score(ranks: np.ndarray) -> np.ndarray:
        of_group = (ranks[groups[ranks] == g] for g in range(len(lesions)))
        return np.array([np.searchsorted(part, last, side="right") for part in of_group], dtype=np.float32)

    return Ranking(
        down_to_each_score(hits), down_to_each_score(np.arange(len(groups))), lesions.astype(float)
    )


def of_groups(ranking: Ranking, chosen: np.ndarray) -> Ranking:
    """The ranking of the chosen groups (bool [G]) alone, at the scores that their own hits have."""
    hits, shown, lesions = (counts[chosen] for counts in ranking)
    own = np.diff(hits.sum(axis=0), prepend=0) > 0
    return Ranking(hits[:, own], shown[:, own], lesions)


def average_precision(ranking: Ranking, weights: np.ndarray) -> np.ndarray:
    """COCO's average precision [R] when group g is there ``weights[r, g]`` times; NaN without lesions.

    The mean over the recalls 0, 0.01 ... 1 of the greatest precision at that recall or a greater one. It is
    that of the images copied so often, in whatever order: without ties the value of COCO's code, which takes
    predictions of one score one by one in the order of their images, and with ties the least that it can be.
    """
    parts = [_average_precision(ranking, weights[i : i + ROWS]) for i in range(0, len(weights), ROWS)]
    return np.concatenate(parts)


def recall(ranking: Ranking, weights: np.ndarray) -> np.ndarray:
    """Share [R] of the lesions that any of the predictions hits; weights and NaN as above."""
    hits = ranking.hits[:, -1] if ranking.hits.size else np.zeros(len(ranking.lesions))
    with np.errstate(invalid="ignore"):
        return (weights @ hits) / (weights @ ranking.lesions)


def _average_precision(ranking: Ranking, weights: np.ndarray) -> np.ndarray:
    # Counts are whole and far below 2**24, so that single precision is exact, in half the time.
    hits, shown = (weights.astype(np.float32) @ counts for counts in ranking[:2])
    lesions = weights @ ranking.lesions
    precision = np.divide(hits, shown, out=np.zeros_like(hits), where=shown > 0)[:, ::-1]
    precision = np.maximum.accumulate(precision, axis=1)[:, ::-1]
    per_cent = 100 * hits / np.maximum(lesions, 1).astype(np.float32)[:, None]
    reached = per_cent.astype(np.int16)  # the last of the recalls
    reached -= (reached == per_cent) & ROUNDED_UP[reached]
    gains = np.diff(reached, axis=1, prepend=np.int16(-1))
    sums = np.einsum("rh,rh->r", precision, gains, dtype=float)
    return np.where(lesions > 0, sums / len(RECALLS), np.nan)
