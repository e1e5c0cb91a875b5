"""How far the probabilities of a classifier can be believed, and what its thresholds find."""

import numpy as np
import pandas as pd

from busflow.metrics.calibration import TARGETS, calibrated
from busflow.metrics.inputs import PROBABILITIES, indices
from busflow.metrics.uncertainty import Estimate, resampled, sums_of

ECE_BINS = 15
BOUNDS = {"ece": (0, 1), "brier": (0, 2)}
MALIGNANT = PROBABILITIES.index("p_malignant")


def reliability(table: pd.DataFrame, calibration: dict) -> tuple[dict, dict[str, Estimate]]:
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
    estimates = {
        f"calibration.{stage}.{name}": each
        for stage, terms in stages.items()
        for name, each in _estimates(terms, table["group"]).items()
    }
    points = []
    for name, target in TARGETS.items():
        threshold = calibration["thresholds"][name]
        point, of_point = _at(threshold, after[:, MALIGNANT], table)
        points.append({"target": target, "threshold": threshold, **point})
        estimates |= {f"calibration.{share}_{100 * target:.0f}": each for share, each in of_point.items()}
    found = {
        "temperature": calibration["temperature"],
        "n_validation": calibration["n"],
        **{stage: _scores_of_all(terms) for stage, terms in stages.items()},
        "intervals": {
            stage: {name: estimates[f"calibration.{stage}.{name}"].interval() for name in BOUNDS}
            for stage in stages
        },
        "operating_points": points,
    }
    return found, estimates


def calibration_error(table: pd.DataFrame) -> float:
    """Expected calibration error, range 0..1 (Guo et al. 2017, ICML, Eq. 3), of predictions as they stand.

    ECE = sum over bins b of |b| / n * |accuracy(b) - confidence(b)|, with 15 bins of equal width
    ((m - 1) / 15, m / 15] of the greatest probability.
    """
    return _scores_of_all(_terms(table, table[PROBABILITIES].to_numpy()))["ece"]


def calibration_estimate(table: pd.DataFrame) -> Estimate:
    """The same with its resamples."""
    return _estimates(_terms(table, table[PROBABILITIES].to_numpy()), table["group"])["ece"]


def _estimates(terms: np.ndarray, groups: pd.Series) -> dict[str, Estimate]:
    sums = sums_of(terms, pd.factorize(groups, sort=True)[0])
    values = _scores(resampled(sums))
    return {name: Estimate(values[name], sums[:, :1], bounds) for name, bounds in BOUNDS.items()}


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
    with np.errstate(invalid="ignore"):  # without the only group
        return {"ece": np.abs(gaps).sum(axis=-1) / n, "brier": squares / n}


def _scores_of_all(terms: np.ndarray) -> dict[str, float]:
    return {name: float(value) for name, value in _scores(terms.sum(axis=0)).items()}


def _at(threshold: float | None, scores: np.ndarray, table: pd.DataFrame) -> tuple[dict, dict[str, Estimate]]:
    """Sensitivity and specificity at a threshold of the probability of malignancy ``scores`` [N]."""
    malignant = (table["label"] == "malignant").to_numpy()
    counts = {"n_malignant": int(malignant.sum()), "n_other": int((~malignant).sum())}
    if threshold is None:
        ends = {"sensitivity": None, "specificity": None}
        return {**ends, **counts, "intervals": dict(ends)}, {}
    found = scores >= threshold
    estimates = {
        "sensitivity": _share(found, malignant, table["group"]),
        "specificity": _share(~found, ~malignant, table["group"]),
    }
    values = {name: None if np.isnan(each.value) else each.value for name, each in estimates.items()}
    return {
        **values,
        **counts,
        "intervals": {name: each.interval() for name, each in estimates.items()},
    }, estimates


def _share(right: np.ndarray, images: np.ndarray, groups: pd.Series) -> Estimate:
    """Share of the ``images`` that are right (both bool [N]); those of other classes say nothing."""
    sums = sums_of(np.c_[right & images, images], pd.factorize(groups, sort=True)[0])
    drawn = resampled(sums)
    with np.errstate(invalid="ignore"):  # without such an image: 0/0
        return Estimate(drawn[:, 0] / drawn[:, 1], sums[:, 1:])
