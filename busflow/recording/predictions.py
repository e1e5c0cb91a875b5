"""How far two files with the predictions of one model are apart."""

import math
from pathlib import Path

import numpy as np
import pandas as pd
from faster_coco_eval.core import mask

from busflow.files import read_json

# Another processor adds in another order. Of a probability or score, a pixel of a box, a share of an image.
TOLERANCE = 1e-3


def difference(one: Path, other: Path) -> float:
    """Largest difference of a number, or share of an image's pixels under another label; 0: equal bytes.

    Infinite when the files are not about the same images, boxes or labels.
    """
    if one.read_bytes() == other.read_bytes():
        return 0.0
    if one.suffix == ".csv":
        return _of_tables(pd.read_csv(one), pd.read_csv(other))
    return _of_json(read_json(one), read_json(other))


def _of_tables(one: pd.DataFrame, other: pd.DataFrame) -> float:
    numbers = one.select_dtypes("number").columns
    words = one.columns.difference(numbers)
    if not one.columns.equals(other.columns) or not one[words].equals(other[words]):
        return math.inf
    return float(np.abs(one[numbers].to_numpy() - other[numbers].to_numpy()).max(initial=0))


def _of_json(one: object, other: object) -> float:
    if isinstance(one, dict) and isinstance(other, dict) and one.keys() == other.keys():
        if "counts" in one and one["size"] == other["size"]:  # a mask, as COCO encodes it
            return float((mask.decode(one) != mask.decode(other)).mean())
        pairs = [(one[key], other[key]) for key in one]
    elif isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        pairs = list(zip(one, other, strict=True))
    elif isinstance(one, float) and isinstance(other, float):
        return abs(one - other)
    else:
        return 0.0 if one == other else math.inf
    return max((_of_json(*pair) for pair in pairs), default=0.0)
