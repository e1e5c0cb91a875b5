"""How well segmenters outline the lesion of each test image."""

from pathlib import Path

import pandas as pd

from busflow.failures.errors import Files
from busflow.metrics import segmentation_inputs
from busflow.metrics.segmentation import confusions, overlap, two_classes
from busflow.metrics.segmentation_inputs import read_segmentations


def read_truth(split: Path, files: Files) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The test images, ``image_id, label, group, relative_area`` (of the lesion, or 0), and the truth."""
    truth = segmentation_inputs.read_truth(split, files.masks)
    images = truth[["image_id", "label", "group"]]
    return images.assign(relative_area=truth["area"] / truth["n_pixels"]), truth


def score(path: Path, truth: pd.DataFrame) -> pd.DataFrame:
    """``score``, Dice of lesion against background, NaN for an image without a lesion; and
    ``false_positive_area``, the share of the image that is wrongly taken for lesion."""
    matrices = confusions(truth, read_segmentations(path, truth))
    dice = pd.Series(overlap(two_classes(matrices))["dice"][:, 1])
    return pd.DataFrame(
        {
            "score": dice.where(truth["area"] > 0),
            "false_positive_area": matrices[:, 0, 1:].sum(axis=1) / truth["n_pixels"],
        }
    )
