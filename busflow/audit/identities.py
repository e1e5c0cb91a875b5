"""The arithmetic that the paper's printed values must obey."""

import math
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import pandas as pd

from busflow.paper import TABLE7, facts, fit_two_class, printed, two_class

BYTES_PER_WEIGHT = 4  # fp32
COUNTS = ("table1", "table2", "table3", "table4")


class Identity(NamedTuple):
    """One equation between printed numbers: ``printed`` is what stands there, ``implied`` what follows."""

    table: str
    row: str
    statement: str
    printed: float
    implied: float
    holds: bool


def identities(corrected: bool = False) -> list[Identity]:
    """Every equation that the printed numbers should satisfy, recomputed."""
    return [
        *(Identity(table, *each) for table in COUNTS for each in sums(printed(table, corrected))),
        *_split_rules(corrected),
        *_sizes(corrected),
        *_correct_counts(),
        _nano(),
        *table7_identities(corrected),
    ]


def sums(counts: pd.DataFrame) -> Iterator[tuple[str, str, float, float, bool]]:
    """Row sums (column ``total``) and column sums (row ``total``) of a table of counts.

    Yields (row, statement, what stands there, what the cells add up to, whether they agree).
    """
    cells = counts.drop(index="total", columns="total")
    for row, total in counts["total"].items():
        implied = counts.loc[row, cells.columns].sum()
        yield row, f"row {row} adds up to its total", total, implied, total == implied
    for column, total in counts.loc["total"].items():
        implied = counts.loc[cells.index, column].sum()
        yield "total", f"column {column} adds up to its total", total, implied, total == implied


def _split_rules(corrected: bool) -> Iterator[Identity]:
    """Table 2: floor, floor, rest per class; Table 4: 80/20 twice, rounded up; Table 3: 95/5."""
    table2, classes = printed("table2", corrected), printed("table1").loc["total"].drop("total")
    for label, n in classes.items():
        parts = {"train": n * 8 // 10, "val": n // 10}
        parts["test"] = n - sum(parts.values())
        for subset, implied in parts.items():
            value = table2.loc[subset, label]
            yield Identity("table2", subset, f"8:1:1 of {n} {label}", value, implied, value == implied)
    table4 = printed("table4", corrected)["total"]
    test = math.ceil(table4["total"] / 5)
    val = math.ceil((table4["total"] - test) / 5)
    for subset, implied in (("test", test), ("val", val), ("train", table4["total"] - test - val)):
        value = table4[subset]
        yield Identity("table4", subset, "80/20 twice, rounded up", value, implied, value == implied)
    table3 = printed("table3", corrected)["total"]
    share = facts()["table3"]["validation_share"]
    found = table3["val"] / (table3["train"] + table3["val"])
    statement = "validation is 5 % of the original training set"
    yield Identity("table3", "val", statement, found, share, abs(found - share) < 0.005)
    source = printed("table1").loc["lin", "total"]
    statement = "the images of source lin are those of Table 1"
    yield Identity("table3", "total", statement, table3["total"], source, table3["total"] == source)


def size_mb(params_m: float, width: int) -> float:
    """Decimal MB of the 3-class fp32 net, from the millions of parameters of the 1000-class net.

    The classifier is one linear layer: each class has ``width`` weights and a bias.
    """
    table = facts()["table5"]
    removed = (table["image_classes"] - table["study_classes"]) * (width + 1)
    return (params_m * 1e6 - removed) * BYTES_PER_WEIGHT / 1e6


def _sizes(corrected: bool) -> Iterator[Identity]:
    for name, row in printed("table5", corrected).iterrows():
        implied = size_mb(row["params_m"], facts()["table5"]["width"][name])
        # Both are rounded: the parameters to 0.01 M (0.02 MB, with half a unit of doubt), the size to 0.1 MB.
        holds = abs(row["size_mb"] - implied) <= 0.05 + 0.02
        yield Identity("table5", name, "size is 4 bytes a parameter", row["size_mb"], implied, holds)


def _correct_counts() -> Iterator[Identity]:
    """An accuracy is a whole number of the test images, to its two printed digits."""
    n = printed("table2").loc["test", "total"]
    for name, value in printed("fig3")["accuracy"].dropna().items():
        implied = 100 * round(value * n / 100) / n
        yield Identity("fig3", name, f"accuracy is k / {n}", value, implied, abs(value - implied) <= 0.005)


def nano_matrix() -> tuple[np.ndarray, float]:
    """The confusion matrix nearest to what is printed of ConvNeXt-Nano, and its greatest deviation (points).

    Two numbers per class suffice for all that is printed: hits and predictions. Of Normal they follow
    (recall 3/14, precision 3/5); the split of the rest between the other two classes is searched for.
    Returns ([3, 3]: hits, predictions and images per class, deviation).
    """
    row, test = printed("fig3").loc["convnext_nano"], printed("table2").loc["test"]
    correct = round(row["accuracy"] * test["total"] / 100)
    normal = round(row["normal_recall"] * test["normal"] / 100)
    normal_predicted = round(normal / row["normal_precision"] * 100)
    predicted = np.arange(1, test["total"] - normal_predicted)[:, None]
    # Hits further than one from the printed precision are further off than the nearest matrix.
    hits = np.rint(predicted * row["benign_precision"] / 100).astype(int) + np.array([-1, 0, 1])
    other, other_predicted = correct - normal - hits, test["total"] - normal_predicted - predicted
    f1 = (
        2 * hits / (predicted + test["benign"])
        + 2 * other / (other_predicted + test["malignant"])
        + 2 * normal / (normal_predicted + test["normal"])
    ) / 3
    deviation = np.max(
        [
            abs(100 * hits / predicted - row["benign_precision"]),
            abs(100 * other / other_predicted - row["malignant_precision"]),
            abs(100 * f1 - row["macro_f1"]),
        ],
        axis=0,
    )
    possible = (hits <= np.minimum(predicted, test["benign"])) & (other <= other_predicted)
    possible &= (other >= 0) & (other <= test["malignant"])
    deviation = np.where(possible, deviation, np.inf)
    i, j = np.unravel_index(deviation.argmin(), deviation.shape)
    matrix = [
        [hits[i, j], predicted[i, 0], test["benign"]],
        [other[i, j], other_predicted[i, 0], test["malignant"]],
        [normal, normal_predicted, test["normal"]],
    ]
    return np.array(matrix), float(deviation[i, j])


def _nano() -> Identity:
    _, deviation = nano_matrix()
    statement = "one confusion matrix yields every value printed of this model (deviation in points)"
    return Identity("fig3", "convnext_nano", statement, 0.0, deviation, deviation <= 0.005)


def table7_identities(corrected: bool = False) -> Iterator[Identity]:
    """mIoU and mAcc are the means of the two classes, and all seven values belong to one matrix."""
    for name, row in printed("table7", corrected).iterrows():
        for mean, parts in (("miou", ["iou0", "iou1"]), ("macc", ["acc0", "acc1"])):
            implied = row[parts].mean()
            holds = abs(row[mean] - implied) <= 0.0101  # each of three values is rounded to 0.01
            yield Identity("table7", name, f"{mean} is the mean of the classes", row[mean], implied, holds)
        deviation = abs(two_class(*fit_two_class(row)) - row[TABLE7]).max()
        statement = "one matrix of two classes yields all seven values (deviation in points)"
        yield Identity("table7", name, statement, 0.0, deviation, deviation <= 0.0101)
