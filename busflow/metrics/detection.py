"""Metrics of a detector from its predicted boxes: no torch.

A value that is not defined, such as the average precision of a size that no box has, is null, and the
number of boxes stands beside it: never 0.000 and never -1.
"""

from pathlib import Path

import numpy as np
import pandas as pd

from busflow.files import sha256
from busflow.labels import LESIONS
from busflow.metrics import coco
from busflow.metrics.detection_inputs import Truth, read_detections, read_truth
from busflow.metrics.froc import froc
from busflow.metrics.matching import Ranking, assign, average_precision, overlaps, rank, recall
from busflow.metrics.resamples import intervals
from busflow.metrics.uncertainty import Estimate, weights

# Areas in pixels of the original image.
BINS = {
    "coco": {"small": (0, 32**2), "medium": (32**2, 96**2), "large": (96**2, coco.UNBOUNDED)},
    # The paper's section 4.1 differs in the lower bound of small alone.
    "paper": {"small": (10**2, 32**2)},
    # Wang et al. 2021, ICPR (AI-TOD): the code of RFLA reports these.
    "aitod": {
        "very_tiny": (0, 8**2),
        "tiny": (8**2, 16**2),
        "small": (16**2, 32**2),
        "medium": (32**2, coco.UNBOUNDED),
    },
}
LIMITS = {"coco": 100, "paper": 100, "aitod": 1500}  # boxes per image and class
# Numbers of all boxes and of each class, as the parts of the evaluation's IoUs that they are means of.
AVERAGES = {"ap": slice(None), "ap50": slice(0, 1), "ap75": slice(5, 6)}


def evaluate(
    predictions_path: Path | str,
    split_path: Path | str,
    annotations_path: Path | str,
    images_path: Path | str,
) -> dict:
    """All metrics of one unit of study: ready for JSON, but for the estimates under ``resamples``.

    Raises BusflowError when the files do not fit together or hold what cannot be scored.
    """
    truth = read_truth(split_path, annotations_path, images_path)
    detections = read_detections(predictions_path, truth)
    rankings = rank_classes(truth, detections)
    pixels = {f"{family}.{size}": bounds for family, bins in BINS.items() for size, bounds in bins.items()}
    thirds = relative_thirds(truth.boxes)
    ranges = {"area": {coco.ALL: (0, coco.UNBOUNDED)} | pixels, "relative_area": thirds}
    by_pixels, by_share = coco.evaluate(truth.boxes, detections, ranges).values()
    bins = {
        family: {
            size: _bin(by_pixels, truth.boxes, f"{family}.{size}", bounds, LIMITS[family])
            for size, bounds in sizes.items()
        }
        for family, sizes in BINS.items()
    }
    bins["relative"] = {
        size: _bin(by_share, truth.boxes, size, bounds, LIMITS["coco"], "relative_area")
        for size, bounds in thirds.items()
    }
    found = {
        "n": len(truth.images),
        "n_boxes": len(truth.boxes),
        "n_groups": int(truth.images["group"].nunique()),
        "n_detections": len(detections),
        "split_sha256": sha256(split_path),
        "labels": list(LESIONS),
        "coco": {
            "ap": by_pixels.ap(),
            "ap50": by_pixels.ap(0.5),
            "ap75": by_pixels.ap(0.75),
            **{f"ar{limit}": by_pixels.ar(limit=limit) for limit in (1, 10, 100)},
        },
        "aitod": {
            "ap": by_pixels.ap(limit=LIMITS["aitod"]),
            "ap25": by_pixels.ap(coco.LOOSE_IOU, limit=LIMITS["aitod"]),
            "ap50": by_pixels.ap(0.5, limit=LIMITS["aitod"]),
            "ap75": by_pixels.ap(0.75, limit=LIMITS["aitod"]),
        },
        "bins": bins,
        "per_class": {
            label: _of_class(label, truth, detections, by_pixels, rankings[label][0]) for label in LESIONS
        },
        "froc": froc(truth, detections),
    }
    estimates = _estimates(found, truth, detections, rankings, thirds)
    return found | {"intervals": intervals(estimates), "resamples": estimates}


def relative_thirds(boxes: pd.DataFrame) -> dict[str, coco.Range]:
    """Ranges of the share of the image that divide the boxes into thirds; equal shares stay together."""
    first, second = np.quantile(boxes["relative_area"], [1 / 3, 2 / 3]) if len(boxes) else (0.0, 0.0)
    return {
        "smallest": (0.0, first),
        "middle": (np.nextafter(first, 1), second),
        "largest": (np.nextafter(second, 1), coco.UNBOUNDED),
    }


def rank_classes(
    truth: Truth, detections: pd.DataFrame, shares: coco.Range = (0, coco.UNBOUNDED)
) -> dict[str, list[Ranking]]:
    """The ranked predictions of each class, matched at each of COCO's IoUs; groups in sorted order.

    Of lesions whose share of the image is in the range ``shares``; as in COCO, predictions that find others,
    or that are themselves out of it and find none, do not count.
    """
    group = np.unique(truth.images["group"], return_inverse=True)[1]
    result = {}
    for label in LESIONS:
        shown = detections[detections["label"] == label].groupby("image").head(LIMITS["coco"])
        shown = shown.sort_values("score", ascending=False, kind="stable", ignore_index=True)
        lesions = truth.boxes[truth.boxes["label"] == label].reset_index(drop=True)
        wanted, in_range = (each["relative_area"].between(*shares).to_numpy() for each in (lesions, shown))
        pairs = overlaps(lesions, shown, coco.IOUS[0])
        order = np.lexsort((~wanted[pairs["lesion"]], pairs["detection"]))  # stable: the greatest IoU first
        pairs = pairs.iloc[order]
        counts = np.bincount(group[lesions["image"][wanted]], minlength=group.max() + 1)
        scores, groups = shown["score"].to_numpy(), group[shown["image"]]
        result[label] = []
        for iou in coco.IOUS:
            matched, lesion = assign(pairs, iou)
            counted = in_range.copy()
            counted[matched] = wanted[lesion]
            hits = np.searchsorted(np.flatnonzero(counted), matched[wanted[lesion]])
            result[label].append(rank(hits, scores[counted], groups[counted], counts))
    return result


def _estimates(
    found: dict, truth: Truth, detections: pd.DataFrame, rankings: dict[str, list[Ranking]], thirds: dict
) -> dict[str, Estimate]:
    """AP and AR of all boxes, of each class and, AP alone, of each third by size, with their resamples.

    Boxes are matched within their image, so a resample only counts the same hits anew. COCO's values stand
    in the middle: they differ from ours where boxes of one score are ordered by their images.
    """
    drawn = weights(len(rankings[LESIONS[0]][0].lesions))
    estimates = {}

    def add(name: str, values: np.ndarray, lesions: np.ndarray, value: float | None) -> None:
        """Of values [R, classes], the mean over those that have a lesion."""
        present = lesions.sum(axis=0) > 0
        with np.errstate(invalid="ignore"):  # without any lesion: 0/0
            mean = np.nansum(values, axis=1) / np.sum(~np.isnan(values), axis=1)
        shift = 0 if value is None else value - mean[0]
        estimates[name] = Estimate(mean + shift, lesions[:, present] if present.any() else lesions)

    def precisions(ranked: dict[str, list[Ranking]]) -> tuple[np.ndarray, np.ndarray]:
        """AP [R, IoU, class] and lesions [G, class]."""
        values = [[average_precision(each, drawn) for each in of_class] for of_class in ranked.values()]
        return np.array(values).T, np.column_stack([of_class[0].lesions for of_class in ranked.values()])

    values, lesions = precisions(rankings)
    scores = {name: values[:, part].mean(axis=1) for name, part in AVERAGES.items()}
    recalls = [[recall(each, drawn) for each in of_class] for of_class in rankings.values()]
    scores["ar100"] = np.mean(recalls, axis=1).T
    for name, of_classes in scores.items():
        add(name, of_classes, lesions, found["coco"][name])
        for k, label in enumerate(LESIONS):
            add(
                f"per_class.{label}.{name}",
                of_classes[:, [k]],
                lesions[:, [k]],
                found["per_class"][label][name],
            )
    for third, bounds in thirds.items():
        values, lesions = precisions(rank_classes(truth, detections, bounds))
        add(f"bins.relative.{third}.ap", values.mean(axis=1), lesions, found["bins"]["relative"][third]["ap"])
    return estimates


def _of_class(
    label: str, truth: Truth, detections: pd.DataFrame, evaluation: coco.Evaluation, ranking: Ranking
) -> dict:
    """Counts, COCO's values, and precision against recall at IoU 0.5."""
    hits, shown, lesions = (counts.sum(axis=0, dtype=float) for counts in ranking)
    return {
        "n_boxes": int(lesions),
        "n_images": int((truth.images["label"] == label).sum()),
        "n_detections": int((detections["label"] == label).sum()),
        "ap": evaluation.ap(label=label),
        "ap50": evaluation.ap(0.5, label),
        "ap75": evaluation.ap(0.75, label),
        "ar100": evaluation.ar(label),
        # The area without interpolation: over the scores of hits, precision times the gain in recall.
        "auc_pr": float((hits / shown * np.diff(hits, prepend=0)).sum() / lesions) if lesions else None,
        "pr_curve": evaluation.curve(label),
    }


def _bin(
    evaluation: coco.Evaluation,
    boxes: pd.DataFrame,
    name: str,
    bounds: coco.Range,
    limit: int,
    column: str = "area",
) -> dict:
    parts = {label: boxes[boxes["label"] == label] for label in LESIONS}
    return {
        "from": float(bounds[0]),
        "to": None if bounds[1] == coco.UNBOUNDED else float(bounds[1]),
        "n": coco.count(boxes, bounds, column),
        "n_per_class": {label: coco.count(part, bounds, column) for label, part in parts.items()},
        "ap": evaluation.ap(area=name, limit=limit),
        "ap_per_class": {label: evaluation.ap(label=label, area=name, limit=limit) for label in parts},
    }
