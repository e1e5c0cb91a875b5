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
from busflow.metrics.inputs import read_split
from busflow.metrics.matching import Ranking, assign, average_precision, of_groups, overlaps, rank, recall
from busflow.metrics.relatives import relatives
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
RELATED = ("ap50", "ap")  # those that are given of images with and without a relative in training


def evaluate(
    predictions_path: Path | str,
    split_path: Path | str,
    annotations_path: Path | str,
    images_path: Path | str,
) -> dict:
    """All metrics of one unit of study: ready for JSON, but for the estimates under ``resamples``.

    ``relatives``: see ``busflow.metrics.relatives``.

    Raises BusflowError when the files do not fit together or hold what cannot be scored.
    """
    truth = read_truth(split_path, annotations_path, images_path)
    detections = read_detections(predictions_path, truth)
    related = relatives(read_split(split_path), truth.images["group"])
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
    if related:
        found["relatives"] = {
            name: _of_relatives(truth, detections, here, by_pixels) for name, here in related.items()
        }
    estimates = _estimates(found, truth, detections, rankings, thirds, related)
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
    found: dict,
    truth: Truth,
    detections: pd.DataFrame,
    rankings: dict[str, list[Ranking]],
    thirds: dict,
    related: dict[str, np.ndarray],
) -> dict[str, Estimate]:
    """AP and AR of all boxes, of each class and, AP alone, of other parts of them, with their resamples.

    Boxes are matched within their image, so a resample only counts the same hits anew.
    """
    drawn = weights(truth.images["group"].nunique())
    aps, lesions = _precisions(rankings, drawn), _lesions(rankings)
    scores = {name: aps[:, part].mean(axis=1) for name, part in AVERAGES.items()}
    recalls = [[recall(each, drawn) for each in of_class] for of_class in rankings.values()]
    scores["ar100"] = np.mean(recalls, axis=1).T
    estimates = {}
    for name, of_classes in scores.items():
        estimates[name] = _mean_of_classes(of_classes, lesions, found["coco"][name])
        for k, label in enumerate(LESIONS):
            estimates[f"per_class.{label}.{name}"] = _mean_of_classes(
                of_classes[:, [k]], lesions[:, [k]], found["per_class"][label][name]
            )
    for third, bounds in thirds.items():
        ranked = rank_classes(truth, detections, bounds)
        value = found["bins"]["relative"][third]["ap"]
        estimates[f"bins.relative.{third}.ap"] = _mean_of_classes(
            _precisions(ranked, drawn).mean(axis=1), _lesions(ranked), value
        )
    groups = np.unique(truth.images["group"])
    for name, here in related.items():
        chosen = np.isin(groups, truth.images.loc[here, "group"])
        values = aps  # of all images nothing need be computed twice
        if not chosen.all():
            parts = {label: [of_groups(each, chosen) for each in rankings[label]] for label in LESIONS}
            values = _precisions(parts, drawn[:, chosen])
        for score in RELATED:
            estimates[f"relatives.{name}.{score}"] = _mean_of_classes(
                values[:, AVERAGES[score]].mean(axis=1),
                lesions * chosen[:, None],
                found["relatives"][name][score],
            )
    return estimates


def _precisions(rankings: dict[str, list[Ranking]], drawn: np.ndarray) -> np.ndarray:
    """AP [R, IoU, class] under the weights [R, G] of the groups."""
    values = [[average_precision(each, drawn) for each in of_class] for of_class in rankings.values()]
    return np.array(values).T


def _lesions(rankings: dict[str, list[Ranking]]) -> np.ndarray:
    """Lesions [G, class] of each group."""
    return np.column_stack([of_class[0].lesions for of_class in rankings.values()])


def _mean_of_classes(values: np.ndarray, lesions: np.ndarray, value: float | None) -> Estimate:
    """Of values [R, class], the mean over the classes that have a lesion.

    COCO's value stands in the middle: it differs from ours where boxes of one score are ordered by their
    images.
    """
    present = lesions.sum(axis=0) > 0
    with np.errstate(invalid="ignore"):  # without any lesion: 0/0
        mean = np.nansum(values, axis=1) / np.sum(~np.isnan(values), axis=1)
    shift = 0 if value is None else value - mean[0]
    return Estimate(mean + shift, lesions[:, present] if present.any() else lesions)


def _of_relatives(
    truth: Truth, detections: pd.DataFrame, here: np.ndarray, of_all: coco.Evaluation
) -> dict[str, float | None]:
    """Counts and scores of those images (bool [N]) that have a relative in training, or of those without."""
    boxes, found = (each[here[each["image"]]] for each in (truth.boxes, detections))
    evaluation = of_all
    if not here.all():
        evaluation = coco.evaluate(boxes, found, {"area": {coco.ALL: (0, coco.UNBOUNDED)}})["area"]
    return {
        "n": int(here.sum()),
        "n_boxes": len(boxes),
        "n_groups": int(truth.images.loc[here, "group"].nunique()),
        "ap50": evaluation.ap(0.5),
        "ap": evaluation.ap(),
    }


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
