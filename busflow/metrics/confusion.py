"""Precision, recall, F1 and their means from confusion matrices: numpy alone."""

import numpy as np


def per_class(matrix: np.ndarray) -> dict[str, np.ndarray]:
    """n, n_predicted, precision, recall and F1 per class [..., K] of confusion matrices [..., K, K].

    Standard definitions: precision is hits over predictions of the class, recall hits over its images
    (the paper's Eqs. 2 and 3 swap the symbols; its values follow the standard). 0/0 is NaN.
    """
    matrix = np.asarray(matrix, dtype=float)
    hits = np.diagonal(matrix, axis1=-2, axis2=-1)
    n, predicted = matrix.sum(axis=-1), matrix.sum(axis=-2)
    with np.errstate(invalid="ignore"):
        precision, recall, f1 = hits / predicted, hits / n, 2 * hits / (n + predicted)
    return {"n": n, "n_predicted": predicted, "precision": precision, "recall": recall, "f1": f1}


def summary(matrix: np.ndarray) -> dict[str, np.ndarray]:
    """Accuracy and macro values [...] (range 0..1) of confusion matrices [..., K, K].

    Macro values are means over the classes that have images; there an undefined precision counts as 0.
    Macro F1 is the mean of the classes' F1, as in the paper, not the harmonic mean of macro P and R.
    """
    matrix = np.asarray(matrix, dtype=float)
    scores = per_class(matrix)
    present = scores["n"] > 0
    with np.errstate(invalid="ignore"):  # of no images at all
        macro = {
            name: np.nan_to_num(scores[name] * present).sum(axis=-1) / present.sum(axis=-1)
            for name in ("precision", "recall", "f1")
        }
        accuracy = np.trace(matrix, axis1=-2, axis2=-1) / matrix.sum(axis=(-2, -1))
    return {
        "accuracy": accuracy,
        "balanced_accuracy": macro["recall"],
        "macro_precision": macro["precision"],
        "macro_recall": macro["recall"],
        "macro_f1": macro["f1"],
    }
