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
from busflow.metrics.matching import Ranking, assign, average_precision, overlaps, rank
from busflow.metrics.uncertainty import cluster_bootstrap

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


def evaluate(
    predictions_path: Path | str,
    split_path: Path | str,
    annotations_path: Path | str,
    images_path: Path | str,
) -> dict:
    """All metrics of one unit of study, ready for JSON.

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
    return {
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
        "intervals": intervals(rankings),
        "froc": froc(truth, detections),
    }


def relative_thirds(boxes: pd.DataFrame) -> dict[str, coco.Range]:
    """Ranges of the share of the image that divide the boxes into thirds; equal shares stay together."""
    first, second = np.quantile(boxes["relative_area"], [1 / 3, 2 / 3]) if len(boxes) else (0.0, 0.0)
    return {
        "smallest": (0.0, first),
        "middle": (np.nextafter(first, 1), second),
        "largest": (np.nextafter(second, 1), coco.UNBOUNDED),
    }


def rank_classes(truth: Truth, detections: pd.DataFrame) -> dict[str, list[Ranking]]:
    """The ranked predictions of each class, matched at each of COCO's IoUs; groups in sorted order."""
    group = np.unique(truth.images["group"], return_inverse=True)[1]
    result = {}
    for label in LESIONS:
        shown = detections[detections["label"] == label].groupby("image").head(LIMITS["coco"])
        shown = shown.sort_values("score", ascending=False, kind="stable", ignore_index=True)
        lesions = truth.boxes[truth.boxes["label"] == label].reset_index(drop=True)
        pairs = overlaps(lesions, shown, coco.IOUS[0])
        counts = np.bincount(group[lesions["image"]], minlength=group.max() + 1)
        result[label] = [rank(assign(pairs, iou), group[shown["image"]], counts) for iou in coco.IOUS]
    return result


def intervals(rankings: dict[str, list[Ranking]]) -> dict[str, list[float] | None]:
    """95 % intervals of AP, AP50 and AP75 when whole groups are drawn with replacement.

    Boxes are matched within their image, so a resample only counts the same hits anew.
    """

    def statistics(weights: np.ndarray) -> dict[str, np.ndarray]:
        values = np.array([[average_precision(each, weights) for each in of] for of in rankings.values()])
        with np.errstate(invalid="ignore"):  # a resample without any lesion: 0/0
            by_iou = np.nansum(values, axis=0) / np.sum(~np.isnan(values), axis=0)
        return {"ap": by_iou.mean(axis=0), "ap50": by_iou[0], "ap75": by_iou[5]}

    n_groups = len(rankings[LESIONS[0]][0].lesions)
    found = cluster_bootstrap(np.eye(n_groups), statistics)
    return {name: None if ends is None or np.isnan(ends).any() else ends for name, ends in found.items()}


def _of_class(
    label: str, truth: Truth, detections: pd.DataFrame, evaluation: coco.Evaluation, ranking: Ranking
) -> dict:
    """Counts, COCO's values, and precision against recall at IoU 0.5."""
    hits, shown, lesions = (counts.sum(axis=0) for counts in ranking)
    return {
        "n_boxes": int(lesions),
        "n_images": int((truth.images["label"] == label).sum()),
        "n_detections": int((detections["label"] == label).sum()),
        "ap": evaluation.ap(label=label),
        "ap50": evaluation.ap(0.5, label),
        "ap75": evaluation.ap(0.75, label),
        "ar100": evaluation.ar(label),
        # The area without interpolation: over the hits, precision times the gain in recall.
        "auc_pr": float((hits / shown).sum() / lesions) if lesions else None,
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
