"""How sure a number is when images come in groups."""

from collections.abc import Callable

import numpy as np

LEVEL = 0.95
RESAMPLES = 1000
SEED = 0


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
