"""Metrics of a classifier from its predictions: numpy and scikit-learn, no torch.

A number that is not defined is null and its count is given: the precision of a class that is never
predicted is 0/0, not 0.
"""

from pathlib import Path

import numpy as np
import pandas as pd

from busflow.files import sha256
from busflow.labels import LABELS
from busflow.metrics.confusion import per_class, summary
from busflow.metrics.inputs import indices, match, read_calibration, read_predictions, read_split
from busflow.metrics.ranking import SPECIFICITIES, auroc, ranked
from busflow.metrics.relatives import relatives
from busflow.metrics.reliability import calibration_error, calibration_estimate, reliability
from busflow.metrics.resamples import intervals
from busflow.metrics.shares import wilson
from busflow.metrics.uncertainty import Estimate, resampled, sums_of, weights

INTERVALS = ("accuracy", "balanced_accuracy", "macro_f1")
OF_MATRIX = ("precision", "recall", "f1")
OF_RANKS = ("auroc", "average_precision")
SENSITIVITIES = tuple(f"sensitivity_at_{name}" for name in SPECIFICITIES)


def evaluate(
    predictions_path: Path | str, split_path: Path | str, record_path: Path | str | None = None
) -> dict:
    """All metrics of one unit of study: ready for JSON, but for the estimates under ``resamples``.

    With ``record_path``, the ``run.json`` of the classifier's training, also ``calibration`` (see
    ``busflow.metrics.reliability``); None for predictions of several trainings, which have no calibration in
    common. ``sensitivity_at`` is that for malignant images at specificities of 90 and 95 % on the same
    images, so at thresholds that nobody knows beforehand. ``relatives``: see ``busflow.metrics.relatives``.

    Raises BusflowError when the predictions are not exactly the split's test images with their labels, or
    when the record has no calibration.
    """
    split = read_split(split_path)
    table = match(read_predictions(predictions_path), split, predictions_path)
    related = relatives(split, table["group"])
    matrix = count(table)
    estimates = _estimates(table, related)
    calibration = {}
    if record_path is not None:
        calibration["calibration"], of_calibration = reliability(table, read_calibration(record_path))
        estimates |= of_calibration
    naive = {"accuracy": wilson(int(np.trace(matrix)), int(matrix.sum()))}
    found = intervals({name: each for name, each in estimates.items() if not name.startswith("calibration.")})
    leading = {name: {"cluster": found[name], "wilson": naive.get(name)} for name in INTERVALS}
    return {
        "n": len(table),
        "n_groups": table["group"].nunique(),
        "split_sha256": sha256(split_path),
        "labels": list(LABELS),
        **_numbers(summary(matrix)),
        "ece": calibration_error(table),
        "sensitivity_at": {
            name: _number(estimates[f"sensitivity_at_{name}"].value) for name in SPECIFICITIES
        },
        **calibration,
        "intervals": found | leading,
        "undefined": _undefined(matrix),
        "per_class": _per_class(table, matrix),
        "confusion_matrix": matrix.tolist(),
        "per_source": {
            source: _short(part, f"per_source.{source}", estimates)
            for source, part in table.groupby("source", sort=True)
        },
        **({"relatives": _of_relatives(table, related, estimates)} if related else {}),
        "resamples": estimates,
    }


def count(table: pd.DataFrame) -> np.ndarray:
    """Confusion matrix [3, 3] (int): rows are the truth, columns the prediction, in the order of LABELS."""
    return _cells(table).sum(axis=0).astype(int)


def matrices_per_group(table: pd.DataFrame) -> np.ndarray:
    """One confusion matrix per independent group [G, 3, 3] (float), groups in sorted order."""
    return sums_of(_cells(table), pd.factorize(table["group"], sort=True)[0])


def _cells(table: pd.DataFrame) -> np.ndarray:
    """Each image's confusion matrix [N, 3, 3]."""
    cells = np.zeros((len(table), len(LABELS), len(LABELS)))
    cells[np.arange(len(table)), indices(table["label"]), indices(table["prediction"])] = 1
    return cells


def _estimates(table: pd.DataFrame, related: dict[str, np.ndarray]) -> dict[str, Estimate]:
    """Every number with what it is in resamples of the groups, by its place in ``metrics.json``."""
    group = pd.factorize(table["group"], sort=True)[0]
    cells, truth = _cells(table), indices(table["label"])
    matrices = matrices_per_group(table)
    found = of_matrices(matrices) | {"ece": calibration_estimate(table)}
    parts = {
        f"per_source.{source}": (table["source"] == source).to_numpy()
        for source in sorted(table["source"].unique())
    }
    parts |= {f"relatives.{name}": here for name, here in related.items()}
    malignant, score = (table["label"] == "malignant").to_numpy(), table["p_malignant"].to_numpy()
    for place, here in parts.items():
        of_part = of_matrices(sums_of(cells * here[:, None, None], group))
        found |= {f"{place}.{name}": of_part[name] for name in INTERVALS}
        both = np.column_stack([malignant & here, ~malignant & here]).astype(float)
        areas = auroc(malignant[here], score[here], group[here], weights(len(matrices)))
        found[f"{place}.malignant_auroc"] = Estimate(areas, sums_of(both, group))
    scores, cases = per_class(resampled(matrices)), matrices.sum(axis=2)
    counted = {"precision": matrices.sum(axis=1), "recall": cases, "f1": cases}
    for k, label in enumerate(LABELS):
        for name in OF_MATRIX:
            found[f"per_class.{label}.{name}"] = Estimate(scores[name][:, k], counted[name][:, [k]])
        ranks = ranked(truth == k, table[f"p_{label}"].to_numpy(), group, weights(len(matrices)))
        both = np.column_stack([cases[:, k], cases.sum(axis=1) - cases[:, k]])
        found |= {f"per_class.{label}.{name}": Estimate(ranks[name], both) for name in OF_RANKS}
        if label == "malignant":
            found |= {name: Estimate(ranks[name], both) for name in SENSITIVITIES}
    return found


def of_matrices(matrices: np.ndarray) -> dict[str, Estimate]:
    """Accuracy and macro values of the groups' matrices [G, 3, 3]; the latter need all classes there are."""
    per_label = matrices.sum(axis=2)
    present = per_label.sum(axis=0) > 0
    per_label = per_label[:, present] if present.any() else per_label
    scores = summary(resampled(matrices))
    images = matrices.sum(axis=(1, 2))[:, None]
    return {
        name: Estimate(values, images if name == "accuracy" else per_label) for name, values in scores.items()
    }


def _per_class(table: pd.DataFrame, matrix: np.ndarray) -> dict[str, dict]:
    # Two seconds, which the tables that count with this module need not wait.
    from sklearn.metrics import average_precision_score, roc_auc_score

    scores = per_class(matrix)
    result = {}
    for k, label in enumerate(LABELS):
        truth, score = table["label"] == label, table[f"p_{label}"]
        one_class_only = truth.nunique() < 2
        result[label] = {
            "n": int(scores["n"][k]),
            "n_predicted": int(scores["n_predicted"][k]),
            **{name: _number(scores[name][k]) for name in OF_MATRIX},
            "auroc": None if one_class_only else float(roc_auc_score(truth, score)),
            "average_precision": None if one_class_only else float(average_precision_score(truth, score)),
        }
    return result


def _short(table: pd.DataFrame, place: str, estimates: dict[str, Estimate]) -> dict:
    """The few numbers that are given of a part of the images, such as a source, which is at this place."""
    matrix = count(table)
    scores = _numbers(summary(matrix))
    return {
        "n": len(table),
        "n_per_class": dict(zip(LABELS, matrix.sum(axis=1).tolist(), strict=True)),
        **{name: scores[name] for name in INTERVALS},
        "malignant_auroc": _number(estimates[f"{place}.malignant_auroc"].value),
    }


def _of_relatives(table: pd.DataFrame, related: dict[str, np.ndarray], estimates: dict) -> dict[str, dict]:
    """Counts and scores of the images with and without a relative in training."""
    return {
        name: {
            "n_groups": table.loc[here, "group"].nunique(),
            **_short(table[here], f"relatives.{name}", estimates),
        }
        for name, here in related.items()
    }


def _undefined(matrix: np.ndarray) -> list[str]:
    """Which per-class values are 0/0, e.g. ``normal.precision``."""
    scores = per_class(matrix)
    return [
        f"{label}.{name}" for k, label in enumerate(LABELS) for name in OF_MATRIX if np.isnan(scores[name][k])
    ]


def _numbers(values: dict[str, np.ndarray]) -> dict[str, float | None]:
    return {name: _number(value) for name, value in values.items()}


def _number(value: float) -> float | None:
    return None if np.isnan(value) else float(value)
