"""How well a score ranks positive images above negative ones, for many weightings of their groups at once."""

import numpy as np

# Specificities at which the sensitivity is given, by name.
SPECIFICITIES = {"90": 0.90, "95": 0.95}


def ranked(
    positive: np.ndarray, scores: np.ndarray, groups: np.ndarray, weights: np.ndarray
) -> dict[str, np.ndarray]:
    """``auroc``, ``average_precision`` and ``sensitivity_at`` each of the specificities, each [R].

    Each is the value of the images copied ``weights[r, g]`` times for their group g; images of one score
    count together. NaN without a positive or a negative image. AUROC is the trapezoid rule; average
    precision the sum of precisions weighted by gains in recall, as in scikit-learn; the sensitivity is the
    greatest at a threshold with at least that specificity, so that of a threshold that exists.

    Args:
        positive: [N] (bool).
        scores: [N], greater for positive.
        groups: [N], numbers from 0 to G - 1.
        weights: [R, G].
    """
    order = np.argsort(-scores, kind="stable")
    last = np.flatnonzero(np.append(np.diff(scores[order]), -1))  # of the images of each score
    present = weights.astype(np.float32)[:, groups[order]]

    def down_to_each_score(chosen: np.ndarray) -> np.ndarray:
        """Images [R, S] of at least each score."""
        return np.cumsum(present * chosen[order], axis=1)[:, last]

    hits, others = down_to_each_score(positive), down_to_each_score(~positive)
    n_hits, n_others = hits[:, -1].astype(float), others[:, -1].astype(float)
    gains = np.diff(hits, axis=1, prepend=0)
    steps = np.diff(others, axis=1, prepend=0)
    precision = hits / np.maximum(hits + others, 1)
    with np.errstate(invalid="ignore", divide="ignore"):
        area = ((hits - gains / 2) * steps).sum(axis=1, dtype=float) / (n_hits * n_others)
        found = {
            "auroc": area,
            "average_precision": (precision * gains).sum(axis=1, dtype=float) / n_hits,
        }
        for name, specificity in SPECIFICITIES.items():
            allowed = (1 - specificity) * n_others * (1 + 1e-9)
            reached = np.where(others <= allowed[:, None], hits, 0).max(axis=1)
            found[f"sensitivity_at_{name}"] = reached / n_hits
    defined = (n_hits > 0) & (n_others > 0)
    return {name: np.where(defined, values, np.nan) for name, values in found.items()}
