"""How far the probabilities of a classifier can be believed, and what its thresholds find."""

import numpy as np
import pandas as pd

from busflow.metrics.calibration import TARGETS, calibrated
from busflow.metrics.inputs import PROBABILITIES, indices
from busflow.metrics.uncertainty import cluster_bootstrap

ECE_BINS = 15
MALIGNANT = PROBABILITIES.index("p_malignant")


def reliability(table: pd.DataFrame, calibration: dict) -> dict:
    """Test images before and after calibration, and at the thresholds; undefined values are None.

    Args:
        table: predictions of the test images, from ``busflow.metrics.inputs.match``.
        calibration: of the classifier, as its training recorded it.

    Returns:
        ``temperature`` and ``n_validation`` as recorded; ``ece`` (range 0..1) and ``brier`` (0..2) under
        ``before`` and ``after``, their 95 % intervals under ``intervals``; and ``operating_points``: of each
        target the threshold, sensitivity (malignant images at or above it) and specificity (others below
        it), with the numbers of both kinds of images, and intervals. Intervals draw groups with replacement.
    """
    uncalibrated = table[PROBABILITIES].to_numpy()
    after = calibrated(uncalibrated, calibration["temperature"])
    stages = {"before": _terms(table, uncalibrated), "after": _terms(table, after)}
    chosen = calibration["thresholds"]
    return {
        "temperature": calibration["temperature"],
        "n_validation": calibration["n"],
        **{stage: _scores_of_all(terms) for stage, terms in stages.items()},
        "intervals": {
            stage: cluster_bootstrap(_by_group(terms, table["group"]), _scores)
            for stage, terms in stages.items()
        },
        "operating_points": [
            {"target": target, "threshold": chosen[name], **_at(chosen[name], after[:, MALIGNANT], table)}
            for name, target in TARGETS.items()
        ],
    }


def calibration_error(table: pd.DataFrame) -> float:
    """Expected calibration error, range 0..1 (Guo et al. 2017, ICML, Eq. 3), of predictions as they stand.

    ECE = sum over bins b of |b| / n * |accuracy(b) - confidence(b)|, with 15 bins of equal width
    ((m - 1) / 15, m / 15] of the greatest probability.
    """
    return _scores_of_all(_terms(table, table[PROBABILITIES].to_numpy()))["ece"]


def _terms(table: pd.DataFrame, probabilities: np.ndarray) -> np.ndarray:
    """What each image adds to the sums that ``_scores`` takes [N, 2 + ECE_BINS]."""
    images = np.arange(len(table))
    truth = np.zeros_like(probabilities)
    truth[images, indices(table["label"])] = 1
    confidence = probabilities.max(axis=1)
    bins = np.clip(np.ceil(confidence * ECE_BINS).astype(int) - 1, 0, ECE_BINS - 1)
    terms = np.zeros((len(table), 2 + ECE_BINS))
    terms[:, 0] = 1
    terms[:, 1] = ((probabilities - truth) ** 2).sum(axis=1)
    terms[images, 2 + bins] = (table["label"] == table["prediction"]) - confidence
    return terms


def _scores(sums: np.ndarray) -> dict[str, np.ndarray]:
    """ECE and Brier score [...] of sums over images [..., 2 + ECE_BINS].

    Of the images: their number, the squared distances of probabilities and truth over all classes (Brier
    1950, Mon. Weather Rev. 78(1), Eq. 2), and in each bin of confidence the hits less the confidences.
    """
    n, squares, gaps = sums[..., 0], sums[..., 1], sums[..., 2:]
    return {"ece": np.abs(gaps).sum(axis=-1) / n, "brier": squares / n}


def _scores_of_all(terms: np.ndarray) -> dict[str, float]:
    return {name: float(value) for name, value in _scores(terms.sum(axis=0)).items()}


def _at(threshold: float | None, scores: np.ndarray, table: pd.DataFrame) -> dict:
    """Sensitivity and specificity at a threshold of the probability of malignancy ``scores`` [N]."""
    malignant = (table["label"] == "malignant").to_numpy()
    counts = {"n_malignant": int(malignant.sum()), "n_other": int((~malignant).sum())}
    if threshold is None:
        ends = {"sensitivity": None, "specificity": None}
        return {**ends, **counts, "intervals": dict(ends)}
    found = scores >= threshold
    sensitivity, of_sensitivity = _share(found[malignant], table["group"][malignant])
    specificity, of_specificity = _share(~found[~malignant], table["group"][~malignant])
    return {
        "sensitivity": sensitivity,
        "specificity": specificity,
        **counts,
        "intervals": {"sensitivity": of_sensitivity, "specificity": of_specificity},
    }


def _share(right: np.ndarray, groups: pd.Series) -> tuple[float | None, list[float] | None]:
    """Share of the images that are right (bool [N]), and its interval; those of other classes say nothing."""
    if not len(right):
        return None, None
    sums = _by_group(np.c_[right, np.ones(len(right))], groups)
    interval = cluster_bootstrap(sums, lambda drawn: {"share": drawn[:, 0] / drawn[:, 1]})["share"]
    return float(right.mean()), interval


def _by_group(terms: np.ndarray, groups: pd.Series) -> np.ndarray:
    """Sums of the images' terms [N, M] over each independent group [G, M], groups in sorted order."""
    group, names = pd.factorize(groups, sort=True)
    sums = np.zeros((len(names), terms.shape[1]))
    np.add.at(sums, group, terms)
    return sums
