"""Metrics of a classifier from its predictions: numpy and scikit-learn, no torch.

A number that is not defined is null and its count is given: the precision of a class that is never
predicted is 0/0, not 0.
"""

from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.metrics import average_precision_score, confusion_matrix, roc_auc_score

from busflow.files import sha256
from busflow.labels import LABELS
from busflow.metrics.confusion import per_class, summary
from busflow.metrics.inputs import indices, match, read_calibration, read_predictions, read_split
from busflow.metrics.reliability import calibration_error, reliability
from busflow.metrics.shares import wilson
from busflow.metrics.uncertainty import cluster_bootstrap

INTERVALS = ("accuracy", "balanced_accuracy", "macro_f1")


def evaluate(
    predictions_path: Path | str, split_path: Path | str, record_path: Path | str | None = None
) -> dict:
    """All metrics of one unit of study, ready for JSON.

    With ``record_path``, the ``run.json`` of the classifier's training, also ``calibration`` (see
    ``busflow.metrics.reliability``); None for predictions of several trainings, which have no calibration in
    common.

    Raises BusflowError when the predictions are not exactly the split's test images with their labels, or
    when the record has no calibration.
    """
    table = match(read_predictions(predictions_path), read_split(split_path), predictions_path)
    matrix = count(table)
    groups = matrices_per_group(table)
    cluster = cluster_bootstrap(groups, summary)
    naive = {"accuracy": wilson(int(np.trace(matrix)), int(matrix.sum()))}
    recorded = (
        {} if record_path is None else {"calibration": reliability(table, read_calibration(record_path))}
    )
    return {
        "n": len(table),
        "n_groups": len(groups),
        "split_sha256": sha256(split_path),
        "labels": list(LABELS),
        **_numbers(summary(matrix)),
        "ece": calibration_error(table),
        **recorded,
        "intervals": {name: {"cluster": cluster[name], "wilson": naive.get(name)} for name in INTERVALS},
        "undefined": _undefined(matrix),
        "per_class": _per_class(table, matrix),
        "confusion_matrix": matrix.tolist(),
        "per_source": {source: _short(part) for source, part in table.groupby("source", sort=True)},
    }


def count(table: pd.DataFrame) -> np.ndarray:
    """Confusion matrix [3, 3] (int): rows are the truth, columns the prediction, in the order of LABELS."""
    return confusion_matrix(table["label"], table["prediction"], labels=LABELS)


def matrices_per_group(table: pd.DataFrame) -> np.ndarray:
    """One confusion matrix per independent group [G, 3, 3] (int), groups in sorted order."""
    group, names = pd.factorize(table["group"], sort=True)
    matrices = np.zeros((len(names), len(LABELS), len(LABELS)), dtype=int)
    np.add.at(matrices, (group, indices(table["label"]), indices(table["prediction"])), 1)
    return matrices


def _per_class(table: pd.DataFrame, matrix: np.ndarray) -> dict[str, dict]:
    scores = per_class(matrix)
    result = {}
    for k, label in enumerate(LABELS):
        truth, score = table["label"] == label, table[f"p_{label}"]
        one_class_only = truth.nunique() < 2
        result[label] = {
            "n": int(scores["n"][k]),
            "n_predicted": int(scores["n_predicted"][k]),
            **{name: _number(scores[name][k]) for name in ("precision", "recall", "f1")},
            "auroc": None if one_class_only else float(roc_auc_score(truth, score)),
            "average_precision": None if one_class_only else float(average_precision_score(truth, score)),
        }
    return result


def _short(table: pd.DataFrame) -> dict:
    """The few numbers that are given per source."""
    matrix = count(table)
    scores = _numbers(summary(matrix))
    return {
        "n": len(table),
        "n_per_class": dict(zip(LABELS, matrix.sum(axis=1).tolist(), strict=True)),
        **{name: scores[name] for name in INTERVALS},
    }


def _undefined(matrix: np.ndarray) -> list[str]:
    """Which per-class values are 0/0, e.g. ``normal.precision``."""
    scores = per_class(matrix)
    return [
        f"{label}.{name}"
        for k, label in enumerate(LABELS)
        for name in ("precision", "recall", "f1")
        if np.isnan(scores[name][k])
    ]


def _numbers(values: dict[str, np.ndarray]) -> dict[str, float | None]:
    return {name: _number(value) for name, value in values.items()}


def _number(value: float) -> float | None:
    return None if np.isnan(value) else float(value)
