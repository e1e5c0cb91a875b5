"""How sure a number is when images come in groups (videos, patients): one rule for all numbers."""

from collections.abc import Iterable
from functools import cache
from typing import NamedTuple

import numpy as np
from scipy.special import expit, logit, stdtrit

LEVEL = 0.95
RESAMPLES = 2000
SEED = 0
# With fewer groups no interval held its level in simulations (benchmarks/interval_coverage.py).
MIN_GROUPS = 10
TOO_FEW = f"too few groups (fewer than {MIN_GROUPS})"

Bounds = tuple[float, float]
SHARE: Bounds = (0, 1)
DIFFERENCE: Bounds = (-1, 1)  # of two shares
DISTANCE: Bounds = (0, np.inf)
REAL: Bounds = (-np.inf, np.inf)


class Estimate(NamedTuple):
    """A number, what it is in resamples of the groups, and what it is without each of them.

    ``values`` [1 + RESAMPLES + G]: of all G groups, of each resample, without each group; NaN where it is
    undefined. Resamples depend on G alone, so that models and seeds on the same images meet the same ones.
    ``cases`` [G, K]: what each group has (images, lesions, pixels) of each of the K kinds that the number
    cannot do without, such as the classes whose mean it is. ``bounds``: the least and the greatest that the
    number can be.
    """

    values: np.ndarray
    cases: np.ndarray
    bounds: Bounds = SHARE

    @property
    def value(self) -> float:
        return float(self.values[0])

    @property
    def draws(self) -> np.ndarray:
        """Values of the resamples [RESAMPLES]."""
        return self.values[1 : 1 + RESAMPLES]

    @property
    def n_groups(self) -> int:
        """How many groups have a case, of the kind of which the fewest have."""
        return int((self.cases > 0).sum(axis=0).min())

    def deviation(self) -> float:
        """Standard deviation over resamples, of G / (G - 1) times the variance; NaN of one group."""
        groups = self.n_groups
        return float(np.nanstd(self.draws) * np.sqrt(groups / (groups - 1))) if groups > 1 else np.nan

    def interval(self, least: int = MIN_GROUPS) -> list[float] | None:
        """95 % interval, or None where the number is undefined or there are fewer groups than ``least``.

        A t-interval on the scale on which the number has no bounds (logit for shares, logarithm for
        distances), with the standard deviation of the resamples there. Its degrees of freedom are those of
        the effective number of groups, (sum of cases)² / sum of squares (Kish 1965, Survey Sampling), less
        one: a few large videos weigh as few. Values at a bound are moved in by half a case, or by half of
        what is between the number and the bound where that is less (an AUROC is of pairs, not of cases).

        Where all groups are at the same bound nothing varies; then the interval reaches from it as far as G
        of G hits do (Clopper & Pearson 1934), which is never too short for a mean of values in the bounds.
        """
        groups = self.n_groups
        if groups < least or np.isnan(self.value):
            return None
        low, high = self.bounds
        if self.value in self.bounds and np.nanmin(self.draws) == np.nanmax(self.draws):
            reach = (high - low) * (1 - ((1 - LEVEL) / 2) ** (1 / groups))
            if np.isinf(reach):
                return None
            return [low, low + reach] if self.value == low else [high - reach, high]
        total = self.cases.sum(axis=0, dtype=float)
        effective = (total**2 / (self.cases.astype(float) ** 2).sum(axis=0)).min()
        margin = 0.5 / total.min()
        between = min(self.value - low, high - self.value) / (1 if np.isinf(high) else high - low)
        if between > 0:
            margin = min(margin, between / 2)
        on_line = self._replace(values=_to_line(self.values, self.bounds, margin))
        reach = on_line.deviation() * stdtrit(max(effective - 1, 1), (1 + LEVEL) / 2)
        ends = np.array([on_line.value - reach, on_line.value + reach])
        return _from_line(ends, self.bounds).tolist()

    def contributions(self) -> np.ndarray:
        """What each group adds to the number [G]; they sum to it, but for the bias of the jackknife.

        The number less that without the group, each with its share of the cases: for a mean over images
        exactly the group's part of the sum. Source: the jackknife of groups that differ in size, Busing,
        Meijer & van der Leeden 1999, Stat. Comput. 9(1).
        """
        shares = (self.cases / self.cases.sum(axis=0)).mean(axis=1)
        without = self.values[1 + RESAMPLES :]
        return self.value - (1 - shares) * np.where(shares > 0, without, self.value)

    def minus(self, other: "Estimate") -> "Estimate":
        """The difference from another model's number on the same images."""
        bounds = DIFFERENCE if self.bounds == SHARE else REAL
        return Estimate(self.values - other.values, self.cases, bounds)


def apart(one: tuple[float, float, float], other: tuple[float, float, float]) -> tuple[float, float]:
    """95 % interval of the difference of two estimates on images of their own, each ``(value, low, high)``.

    NaN where one of them has no interval. The method of variance estimates recovery (MOVER): Zou & Donner
    2008, Stat. Med. 27(10), eq. 7.
    """
    (a, a_low, a_high), (b, b_low, b_high) = one, other
    return a - b - np.hypot(a - a_low, b_high - b), a - b + np.hypot(a_high - a, b - b_low)


def mean(estimates: Iterable[Estimate]) -> Estimate:
    """The mean over several seeds, each with the same resamples of the same groups."""
    estimates = list(estimates)
    values, cases = (np.mean([each[k] for each in estimates], axis=0) for k in range(2))
    return Estimate(values, cases, estimates[0].bounds)


def mean_of(values: np.ndarray, groups: np.ndarray, bounds: Bounds = SHARE) -> Estimate:
    """The mean of those values [N] that are not NaN, over images of ``groups`` [N], numbers from 0."""
    known = ~np.isnan(np.asarray(values, float))
    sums = sums_of(np.column_stack([np.where(known, values, 0), known]), groups)
    drawn = resampled(sums)
    with np.errstate(invalid="ignore"):  # a resample without any such image: 0/0
        return Estimate(drawn[:, 0] / drawn[:, 1], sums[:, 1:], bounds)


def resampled(groups: np.ndarray) -> np.ndarray:
    """Sums [1 + RESAMPLES + G, ...] of additive counts of each group [G, ...].

    Of all groups; of resamples, in which whole groups are drawn with replacement; and of all but each group.
    As they are sums, all come from one matrix product. Source: Field & Welsh 2007, J. R. Stat. Soc. B 69(3).
    """
    return np.tensordot(weights(len(groups)), groups, axes=1)


@cache
def weights(count: int) -> np.ndarray:
    """How often each of the groups is there [1 + RESAMPLES + count, count] in each of those sums."""
    draws = np.random.default_rng(SEED).multinomial(count, np.full(count, 1 / count), size=RESAMPLES)
    found = np.concatenate([np.ones((1, count)), draws, 1 - np.eye(count)])
    found.flags.writeable = False
    return found


def sums_of(terms: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """Sums over the images of each group [G, ...] of terms [N, ...]; ``groups`` are numbers from 0."""
    sums = np.zeros((groups.max() + 1, *terms.shape[1:]))
    np.add.at(sums, groups, terms)
    return sums


def _to_line(values: np.ndarray, bounds: Bounds, margin: float) -> np.ndarray:
    low, high = bounds
    if np.isinf(low):
        return values
    if np.isinf(high):
        return np.log(np.maximum(values - low, margin))
    return logit(np.clip((values - low) / (high - low), margin, 1 - margin))


def _from_line(values: np.ndarray, bounds: Bounds) -> np.ndarray:
    low, high = bounds
    if np.isinf(low):
        return values
    return low + (np.exp(values) if np.isinf(high) else (high - low) * expit(values))
