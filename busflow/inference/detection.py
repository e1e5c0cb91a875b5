"""Detectors on anyone's images: boxes in COCO's formats."""

from typing import NamedTuple

import numpy as np
import torch
from mmdet.models.utils import weighted_boxes_fusion

from busflow.engine.boxes import original_boxes
from busflow.inference.coco import write_coco
from busflow.inference.job import Job
from busflow.inference.members import Member, spread
from busflow.inference.overlays import Overlay
from busflow.inference.pictures import Opened
from busflow.labels import LESIONS

THRESHOLD = 0.3  # of the boxes that summaries and overlays show
SAME_LESION = 0.55  # IoU from which boxes are fused (Solovyev et al., Image and Vision Computing 107, 2021)


class Found(NamedTuple):
    """Of one image: boxes float64 [D, 4] (left, top, right, bottom), scores and labels [D], disagreement."""

    boxes: np.ndarray
    scores: np.ndarray
    labels: np.ndarray
    disagreement: float


def infer(job: Job, opened: list[Opened]) -> list[Found]:
    """Each image's boxes in its own pixels; those of several members by weighted boxes fusion.

    The members' disagreement is the difference of their highest scores, of the lesion of which it is larger.
    """
    every = zip(*(_boxes(member, opened) for member in job.members), strict=True)
    return [_fused(one) if len(job.members) > 1 else Found(*one[0], 0.0) for one in every]


def _boxes(member: Member, opened: list[Opened]) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    images = member.images(opened)
    none = [torch.zeros(0, 4) for _ in opened], [torch.zeros(0, dtype=torch.long) for _ in opened]
    batch = member.model.data_preprocessor({"images": images, "boxes": none[0], "labels": none[1]})
    found = member.model(**batch)
    return [
        (
            original_boxes(each["boxes"], *one.grey.shape[::-1], member.side),
            each["scores"].double().cpu().numpy(),
            each["labels"].cpu().numpy(),
        )
        for each, one in zip(found, opened, strict=True)
    ]


def _fused(every: tuple[tuple[np.ndarray, np.ndarray, np.ndarray], ...]) -> Found:
    boxes, scores, labels = zip(*every, strict=True)
    best = [
        [score[label == k].max(initial=0) for k in range(len(LESIONS))]
        for score, label in zip(scores, labels, strict=True)
    ]
    seen = [(each[:, 2:] > each[:, :2]).all(axis=1) for each in boxes]  # not what was cut off at the border
    kept = [[each[k] for each, k in zip(column, seen, strict=True)] for column in (boxes, scores, labels)]
    fused = weighted_boxes_fusion(*kept, iou_thr=SAME_LESION)
    boxes, scores, labels = (each.double().numpy() for each in fused)
    return Found(boxes.reshape(-1, 4), scores, labels.astype(int), spread(torch.tensor(np.array(best))))


def finish(job: Job, opened: Opened, found: Found) -> tuple[dict, list[dict], Overlay]:
    """Columns of the summary, the image's COCO results, and what an overlay shows."""
    threshold = THRESHOLD if job.threshold is None else job.threshold
    corners = np.concatenate([found.boxes[:, :2], found.boxes[:, 2:] - found.boxes[:, :2]], axis=1).round(3)
    results = [
        {"category_id": int(label) + 1, "bbox": box, "score": round(score, 9)}
        for box, label, score in zip(corners.tolist(), found.labels, found.scores.tolist(), strict=True)
    ]
    shown = sorted((each for each in results if each["score"] >= threshold), key=lambda each: -each["score"])
    first = shown[0] if shown else None
    row = {
        "prediction": LESIONS[first["category_id"] - 1] if first else "no lesion",
        "score": first["score"] if first else None,
        "boxes": len(shown),
    }
    if len(job.members) > 1:
        row["disagreement"] = round(found.disagreement, 6)
    captions = [(LESIONS[each["category_id"] - 1], each) for each in shown]
    overlay = Overlay(
        [] if shown else [(None, row["prediction"])],
        boxes=[(label, each["bbox"], f"{label} {each['score']:.2f}") for label, each in captions],
    )
    return row, results, overlay


write = write_coco
