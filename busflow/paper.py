"""The paper's printed values, and what follows from them where they are misprinted."""

import functools
import itertools
from importlib.resources import files

import numpy as np
import pandas as pd
import yaml

TABLE7 = ["iou0", "acc0", "iou1", "acc1", "miou", "aacc", "macc"]  # its columns, class 0 and class 1


@functools.cache
def facts() -> dict:
    """Everything in paper.yaml."""
    return yaml.safe_load(files("busflow").joinpath("paper.yaml").read_text(encoding="utf-8"))


def printed(table: str, corrected: bool = False) -> pd.DataFrame:
    """A printed table, rows x columns (NaN where nothing is printed); or with its implied corrections."""
    values = pd.DataFrame.from_dict(facts()[table]["rows"], orient="index")
    for note in facts()[table].get("notes", []) if corrected else []:
        if "implied" in note:
            values.loc[note["row"], note["column"]] = note["implied"]
    return values.apply(_restored, axis=1) if corrected and table == "table7" else values


def status(table: str, row: str, column: str) -> str:
    """``ok``, or the status of the note on that cell (see paper.yaml)."""
    for note in facts()[table].get("notes", []):
        if (note["row"], note["column"]) == (row, column):
            return note["status"]
    return "ok"


def two_class(share: float, acc0: float, acc1: float) -> np.ndarray:
    """The columns TABLE7 (per cent) as they follow from one confusion matrix of background and lesion.

    ``share`` of all pixels are lesion; ``acc0`` and ``acc1`` are the shares of background and of lesion
    pixels that are found (all in 0..1).
    """
    right0, right1 = (1 - share) * acc0, share * acc1
    wrong = 1 - right0 - right1
    iou0, iou1 = right0 / (right0 + wrong), right1 / (right1 + wrong)
    return 100 * np.array([iou0, acc0, iou1, acc1, (iou0 + iou1) / 2, right0 + right1, (acc0 + acc1) / 2])


def fit_two_class(row: pd.Series) -> np.ndarray:
    """[share, acc0, acc1] of the matrix that comes nearest to a row of Table 7, or to some of its cells."""
    from scipy.optimize import least_squares  # half the start of most tables and figures, which fit nothing

    cells, values = [TABLE7.index(column) for column in row.index], row.to_numpy(float)
    start = [0.1, 0.9, 0.5]
    return least_squares(lambda x: two_class(*x)[cells] - values, start, bounds=(0, 1), xtol=1e-12).x


@functools.cache
def lesion_share(model: str) -> tuple[float, float, float]:
    """Share of lesion pixels that a row of Table 7 implies, and the ends that its rounding leaves open.

    aAcc is the mean of the classes' accuracies, weighted by their pixels, so Acc and aAcc give the share.
    The ends are NaN where one of the three is a typo.
    """
    acc0, acc1, aacc = _intact(printed("table7").loc[model]).reindex(["acc0", "acc1", "aacc"])
    ends = [
        (acc0 + a - aacc - c) / (acc0 + a - acc1 - b)
        for a, b, c in itertools.product((-0.005, 0.005), repeat=3)
    ]
    return fit_two_class(_intact(printed("table7").loc[model]))[0], min(ends), max(ends)


def _intact(row: pd.Series) -> pd.Series:
    """The cells of a row of Table 7 that count: no typos, and no means, which only repeat the others."""
    own = row.drop(["miou", "macc"])
    return own[[status("table7", row.name, column) == "ok" for column in own.index]]


def _restored(row: pd.Series) -> pd.Series:
    """A row of Table 7 with its typos replaced by what follows from its other cells, to two digits."""
    wrong = [column for column in row.index if status("table7", row.name, column) == "typo"]
    if wrong:
        values = pd.Series(two_class(*fit_two_class(_intact(row))), TABLE7)
        row[wrong] = values[wrong].round(2)
    return row
