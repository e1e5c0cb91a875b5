"""Average precision and recall as COCO defines them, in any range of areas, by faster-coco-eval.

Source: Lin et al. 2014, ECCV, and the evaluation code of cocodataset.org, which faster-coco-eval repeats
to the last bit.
"""

import contextlib
import gc
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import pandas as pd
from faster_coco_eval import COCO, COCOeval_faster

from busflow.labels import LESIONS
from busflow.metrics.detection_inputs import BOX

ALL = "all"
UNBOUNDED = 1e10
IOUS = np.linspace(0.5, 0.95, 10)
LOOSE_IOU = 0.25  # of AI-TOD's AP25
LIMITS = (1, 10, 100, 1500)  # boxes per image and class: COCO's three, and AI-TOD's

Range = tuple[float, float]  # least and greatest area, both included, as in COCO


class Evaluation(NamedTuple):
    """What COCO accumulates; -1 for a class without a box in the range.

    ``precision`` [IoU, 101 recalls, class, range, limit], ``recall`` [IoU, class, range, limit], and the
    names of the ranges and the limits of the last two axes.
    """

    precision: np.ndarray
    recall: np.ndarray
    ranges: list[str]
    limits: list[int]

    def ap(
        self, iou: float | None = None, label: str | None = None, area: str = ALL, limit: int = 100
    ) -> float | None:
        """Average precision, range 0..1; None when no box of the truth is in the range.

        Args:
            iou: one threshold (0.25, 0.5, 0.55 ... 0.95); None: the mean over 0.5 ... 0.95.
            label: one class; None: the mean over the classes that have a box in the range.
            area: name of the range.
            limit: how many boxes an image may have in a class, the best first: one of LIMITS.
        """
        return _mean(self._part(self.precision, iou, label, area, limit))

    def ar(self, label: str | None = None, area: str = ALL, limit: int = 100) -> float | None:
        """Average recall over IoU 0.5 ... 0.95, range 0..1; arguments and None as in `ap`."""
        return _mean(self._part(self.recall, None, label, area, limit))

    def curve(self, label: str) -> list[float] | None:
        """Precision at recall 0, 0.01 ... 1 and IoU 0.5: the envelope that COCO averages."""
        return self._part(self.precision, 0.5, label, ALL, 100).tolist() or None

    def _part(
        self, values: np.ndarray, iou: float | None, label: str | None, area: str, limit: int
    ) -> np.ndarray:
        """The defined values, flat."""
        if area not in self.ranges:
            return np.empty(0)
        thresholds = np.array([LOOSE_IOU, *IOUS])
        chosen = values[thresholds >= IOUS[0] if iou is None else np.isclose(thresholds, iou)]
        chosen = chosen[..., self.ranges.index(area), self.limits.index(min(limit, self.limits[-1]))]
        chosen = chosen if label is None else chosen[..., LESIONS.index(label)]
        return chosen[chosen > -1]


@contextlib.contextmanager
def _no_garbage_collection() -> Iterator[None]:
    """Among many small objects that all stay, looking for garbage takes longer than making them."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


@_no_garbage_collection()
def evaluate(
    truth: pd.DataFrame, detections: pd.DataFrame, ranges: dict[str, dict[str, Range]]
) -> dict[str, Evaluation]:
    """Match boxes and accumulate, for each named range of areas that holds a box of the truth.

    Args:
        truth, detections: boxes with ``image, label, x, y, w, h``; the latter with ``score``.
        ranges: for a column of both tables that is taken for the area, the ranges by name.

    Returns:
        An evaluation per column.
    """
    # A limit beyond the boxes that there are is none.
    most = int(detections.groupby(["image", "label"]).size().max()) if len(detections) else 1
    limits = sorted({min(limit, most) for limit in LIMITS})
    images = sorted({*truth["image"], *detections["image"]})
    reference, predicted = _coco(images, truth), _coco(images, detections)
    result = {}
    for column, all_bounds in ranges.items():
        used = {name: bounds for name, bounds in all_bounds.items() if count(truth, bounds, column)}
        if not used:
            result[column] = Evaluation(np.empty(0), np.empty(0), [], limits)
            continue
        _set_areas(reference, truth[column])
        _set_areas(predicted, detections[column])
        evaluation = COCOeval_faster(reference, predicted, "bbox")
        evaluation.params.iouThrs = np.array([LOOSE_IOU, *IOUS])
        evaluation.params.areaRng, evaluation.params.areaRngLbl = list(used.values()), list(used)
        evaluation.params.maxDets = limits
        evaluation.evaluate()
        evaluation.accumulate()
        found = evaluation.eval
        result[column] = Evaluation(found["precision"], found["recall"], list(used), limits)
    return result


def count(truth: pd.DataFrame, bounds: Range, column: str = "area") -> int:
    """How many boxes of the truth are in the range, bounds included."""
    return int(truth[column].between(*bounds).sum())


def _coco(images: list[int], boxes: pd.DataFrame) -> COCO:
    """The boxes as a COCO dataset without areas; ids count from 1, in the boxes' order."""
    columns = {
        "id": range(1, len(boxes) + 1),
        "image_id": (boxes["image"] + 1).tolist(),
        "category_id": (boxes["label"].map(LESIONS.index) + 1).tolist(),
        "bbox": boxes[BOX].to_numpy(float).tolist(),
    }
    if "score" in boxes:
        columns["score"] = boxes["score"].tolist()
    return COCO(
        {
            "images": [{"id": image + 1} for image in images],
            "categories": [{"id": k, "name": name} for k, name in enumerate(LESIONS, start=1)],
            "annotations": [
                dict(zip(columns, values, strict=True), iscrowd=0)
                for values in zip(*columns.values(), strict=True)
            ],
        }
    )


def _set_areas(boxes: COCO, areas: pd.Series) -> None:
    for annotation, area in zip(boxes.dataset["annotations"], areas.tolist(), strict=True):
        annotation["area"] = area


def _mean(values: np.ndarray) -> float | None:
    return float(values.mean()) if values.size else None
