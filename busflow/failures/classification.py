"""How sure classifiers are of each test image's true class."""

from pathlib import Path

import numpy as np
import pandas as pd

from busflow.failures.errors import Files
from busflow.files import read_csv
from busflow.metrics.inputs import PROBABILITIES, indices, match, read_predictions, read_split, read_table


def read_truth(split: Path, files: Files) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The test images, ``image_id, label, group, relative_area`` sorted by image_id; and the split.

    The area is that of the image's largest box as a share of the image; NaN where the index has no box.
    """
    truth = read_split(split)
    test = truth[truth["split"] == "test"].sort_values("image_id", ignore_index=True)
    return test.assign(relative_area=test["image_id"].map(_largest_boxes(files))), truth


def score(path: Path, truth: pd.DataFrame) -> pd.DataFrame:
    """``score``, the predicted probability of the true class, and ``right``, whether it is the prediction."""
    table = match(read_predictions(path), truth, path)
    of_truth = table[PROBABILITIES].to_numpy()[np.arange(len(table)), indices(table["label"])]
    return pd.DataFrame({"score": of_truth, "right": (table["prediction"] == table["label"]).astype(float)})


def _largest_boxes(files: Files) -> pd.Series:
    """The greatest share of its image that a box has, by image_id."""
    boxes = read_csv(files.annotations)[["image_id", "w", "h"]]  # may have no rows
    sizes = read_table(files.images, ["image_id", "width", "height"])[["image_id", "width", "height"]]
    table = boxes.merge(sizes, on="image_id")
    sides = table[["w", "h", "width", "height"]].apply(pd.to_numeric, errors="coerce")
    shares = sides["w"] * sides["h"] / (sides["width"] * sides["height"])
    return shares.groupby(table["image_id"]).max()
