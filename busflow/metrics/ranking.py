"""How well a score ranks positive images above negative ones, for many weightings of their groups at once."""

import numpy as np

from busflow.metrics.matching import ROWS, Ranking, rank

# Specificities at which the sensitivity is given, by name.
SPECIFICITIES = {"90": 0.90, "95": 0.95}


def ranked(
    positive: np.ndarray, scores: np.ndarray, groups: np.ndarray, weights: np.ndarray
) -> dict[str, np.ndarray]:
    """``auroc``, ``average_precision`` and ``sensitivity_at_90`` and ``_95`` per cent specificity, each [R].

    Each is the value of the images copied ``weights[r, g]`` times for their group g; images of one score
    count together. NaN without a positive or a negative image. Average precision is the sum of precisions
    weighted by gains in recall, as in scikit-learn; the sensitivity is the greatest of all thresholds with at
    least that specificity.

    Args:
        positive: [N] (bool).
        scores: [N], greater for positive.
        groups: [N], numbers from 0 to G - 1.
        weights: [R, G].
    """
    order = np.argsort(-scores, kind="stable")
    positive, scores, groups = positive[order], scores[order], groups[order]
    n_groups = weights.shape[1]
    n_positive, n_other = _counts(positive, groups, n_groups)
    ranking = rank(np.flatnonzero(positive), scores, groups, n_positive)
    hits, others = weights @ n_positive, weights @ n_other
    found = [
        _of_ranking(ranking, weights[i : i + ROWS], others[i : i + ROWS])
        for i in range(0, len(weights), ROWS)
    ]
    names = ("average_precision", *(f"sensitivity_at_{name}" for name in SPECIFICITIES))
    values = dict(zip(names, np.concatenate(found, axis=1), strict=True))
    with np.errstate(invalid="ignore", divide="ignore"):
        values = {name: each / hits for name, each in values.items()}
    values = {name: np.where((hits > 0) & (others > 0), each, np.nan) for name, each in values.items()}
    return values | {"auroc": auroc(positive, scores, groups, weights)}


def auroc(positive: np.ndarray, scores: np.ndarray, groups: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Area under the ROC curve [R]; arguments and NaN as in `ranked`.

    Concordant pairs over all pairs (Hanley & McNeil 1982, Radiology 143(1)).
    """
    n_groups = weights.shape[1]
    n_positive, n_other = _counts(positive, groups, n_groups)
    # Concordant pairs are counted by their two groups once, for all weightings.
    found = ((weights @ _concordant(positive, scores, groups, n_groups)) * weights).sum(axis=1)
    with np.errstate(invalid="ignore"):  # no pairs: 0/0
        return found / (weights @ n_positive) / (weights @ n_other)


def _counts(positive: np.ndarray, groups: np.ndarray, n_groups: int) -> tuple[np.ndarray, np.ndarray]:
    """Positive and negative images of each group [G] (float)."""
    return tuple(
        np.bincount(groups[part], minlength=n_groups).astype(float) for part in (positive, ~positive)
    )


def _of_ranking(ranking: Ranking, weights: np.ndarray, n_others: np.ndarray) -> np.ndarray:
    """Average precision and sensitivities [M, R], times the number of positive images."""
    hits, shown = (weights.astype(np.float32) @ counts for counts in ranking[:2])
    precision = np.divide(hits, shown, out=np.zeros_like(hits), where=shown > 0)
    found = [np.einsum("rh,rh->r", precision, np.diff(hits, axis=1, prepend=np.float32(0)), dtype=float)]
    for specificity in SPECIFICITIES.values():
        allowed = (1 - specificity) * n_others * (1 + 1e-9)
        found.append(np.where(shown - hits <= allowed[:, None], hits, 0).max(axis=1, initial=0))
    return np.array(found)


def _concordant(positive: np.ndarray, scores: np.ndarray, groups: np.ndarray, n_groups: int) -> np.ndarray:
    """Pairs [G, G] of a positive image of the one group above a negative of the other; ties count half."""
    found = np.zeros((n_groups, n_groups))
    for group in np.unique(groups[~positive]):
        others = np.sort(scores[~positive & (groups == group)])
        below, up_to = (np.searchsorted(others, scores[positive], side=side) for side in ("left", "right"))
        np.add.at(found[:, group], groups[positive], (below + up_to) / 2)
    return found
