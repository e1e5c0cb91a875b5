"""Shares of hits: their intervals, and exact tests between two of them."""

import numpy as np

from busflow.metrics.uncertainty import LEVEL, SEED

PERMUTATIONS = 9999


def wilson(hits: int, n: int) -> list[float]:
    """95 % Wilson interval of a share (Wilson 1927). Naive here: it takes n images for independent."""
    from scipy.stats import binomtest  # here and below: a second, which many a table need not wait

    interval = binomtest(hits, n).proportion_ci(LEVEL, method="wilson")
    return [float(interval.low), float(interval.high)]


def mcnemar(right_a: np.ndarray, right_b: np.ndarray) -> float:
    """Exact two-sided McNemar p-value of two classifiers on the same images (bool [N] each).

    Only images that exactly one of them gets right count (McNemar 1947); without any, p = 1.
    """
    from scipy.stats import binomtest

    only_a = int(np.sum(right_a & ~right_b))
    only_b = int(np.sum(right_b & ~right_a))
    discordant = only_a + only_b
    return float(binomtest(only_a, discordant).pvalue) if discordant else 1.0


def swapped(parts_a: np.ndarray, parts_b: np.ndarray) -> float:
    """Two-sided p-value of what the same groups add to two models' numbers [G] each, when they may swap.

    Paired permutation test (Fisher 1935) of the difference of the two totals, with whole groups (videos,
    patients) as its units: exact up to 13 groups, else of 9,999 seeded draws. It takes nothing but groups for
    independent; fewer than six can tell no two models apart, since then p is above 0.05 whatever they do.
    Totals that are equal to nine decimals are equal.
    """
    from scipy.stats import permutation_test

    return float(
        permutation_test(
            (np.asarray(parts_a, float), np.asarray(parts_b, float)),
            lambda a, b, axis: (a - b).sum(axis=axis).round(9),
            permutation_type="samples",
            vectorized=True,
            n_resamples=PERMUTATIONS,
            batch=1000,
            rng=SEED,
        ).pvalue
    )


def holm(p_values: np.ndarray) -> np.ndarray:
    """Holm-adjusted p-values [M] of a family of M tests (Holm 1979)."""
    p_values = np.asarray(p_values, dtype=float)
    order = np.argsort(p_values, kind="stable")
    steps = p_values[order] * np.arange(len(p_values), 0, -1)
    adjusted = np.empty_like(p_values)
    adjusted[order] = np.minimum(np.maximum.accumulate(steps), 1)
    return adjusted
