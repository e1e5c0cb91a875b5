"""How sure a number is: intervals that respect groups, and paired tests."""

from collections.abc import Callable

import numpy as np
from scipy.stats import binomtest

LEVEL = 0.95
RESAMPLES = 1000
SEED = 0


def wilson(hits: int, n: int) -> list[float]:
    """95 % Wilson interval of a share (Wilson 1927). Naive here: it takes n images for independent."""
    interval = binomtest(hits, n).proportion_ci(LEVEL, method="wilson")
    return [float(interval.low), float(interval.high)]


def cluster_bootstrap(
    groups: np.ndarray, statistics: Callable[[np.ndarray], dict[str, np.ndarray]]
) -> dict[str, list[float] | None]:
    """95 % percentile intervals when whole groups (videos, patients) are drawn with replacement.

    ``groups`` [G, ...] holds one additive count array per group; ``statistics`` maps the sums of R resamples
    [R, ...] to named values [R]. As resamples are sums, all R come from one matrix product.
    A single group says nothing about spread: null. Source: Field & Welsh 2007, J. R. Stat. Soc. B 69(3).
    """
    count = len(groups)
    draws = np.random.default_rng(SEED).multinomial(count, np.full(count, 1 / count), size=RESAMPLES)
    values = statistics(np.tensordot(draws.astype(float), groups, axes=1))
    if count < 2:
        return dict.fromkeys(values)
    tails = [(1 - LEVEL) / 2, (1 + LEVEL) / 2]
    return {name: np.quantile(value, tails).tolist() for name, value in values.items()}


def mcnemar(right_a: np.ndarray, right_b: np.ndarray) -> float:
    """Exact two-sided McNemar p-value of two classifiers on the same images (bool [N] each).

    Only images that exactly one of them gets right count (McNemar 1947); without any, p = 1.
    """
    only_a = int(np.sum(right_a & ~right_b))
    only_b = int(np.sum(right_b & ~right_a))
    discordant = only_a + only_b
    return float(binomtest(only_a, discordant).pvalue) if discordant else 1.0


def holm(p_values: np.ndarray) -> np.ndarray:
    """Holm-adjusted p-values [M] of a family of M tests (Holm 1979)."""
    p_values = np.asarray(p_values, dtype=float)
    order = np.argsort(p_values, kind="stable")
    steps = p_values[order] * np.arange(len(p_values), 0, -1)
    adjusted = np.empty_like(p_values)
    adjusted[order] = np.minimum(np.maximum.accumulate(steps), 1)
    return adjusted
