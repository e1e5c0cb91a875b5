"""How well detectors find the lesions of each test image."""

from pathlib import Path

import numpy as np
import pandas as pd

from busflow.failures.errors import Files
from busflow.metrics import detection_inputs
from busflow.metrics.detection_inputs import Truth, read_detections
from busflow.metrics.froc import IOU, thresholds
from busflow.metrics.matching import overlaps

RATE = 1.0  # false positives per image, over the test set, at which a detector's boxes are judged


def read_truth(split: Path, files: Files) -> tuple[pd.DataFrame, Truth]:
    """The test images, ``image_id, label, group, relative_area`` (of the largest box; NaN without), and the
    truth."""
    truth = detection_inputs.read_truth(split, files.annotations, files.images)
    largest = truth.boxes.groupby("image")["relative_area"].max()
    images = truth.images[["image_id", "label", "group"]]
    return images.assign(relative_area=largest.reindex(images.index)), truth


def score(path: Path, truth: Truth) -> pd.DataFrame:
    """``score``: F1 of the image's boxes (van Rijsbergen 1979) at one false positive per test image.

    Lesions, false positives and the threshold are those of the FROC curve (`busflow.metrics.froc`): a box of
    either class finds a lesion from an IoU of 0.5 on, and more boxes on one lesion are neither. An image with
    neither a lesion nor a box has 1.
    """
    detections = read_detections(path, truth)
    shown = detections[detections["score"] > operating_point(truth, detections)].reset_index(drop=True)
    pairs = overlaps(truth.boxes, shown, IOU)
    images = range(len(truth.images))
    lesions = truth.boxes["image"].value_counts().reindex(images, fill_value=0)
    found = truth.boxes["image"][pairs["lesion"].unique()].value_counts().reindex(images, fill_value=0)
    false = shown["image"].drop(pairs["detection"].unique()).value_counts().reindex(images, fill_value=0)
    total = found + lesions + false  # 2 found + missed + false
    return pd.DataFrame({"score": (2 * found / total).where(total > 0, 1.0)})


def operating_point(truth: Truth, detections: pd.DataFrame) -> float:
    """The score that a box must exceed for one false positive per image, over the test set."""
    pairs = overlaps(truth.boxes, detections, IOU)
    false = detections["score"].drop(pairs["detection"].unique())
    return float(thresholds(np.sort(false)[::-1], len(truth.images), RATE))
