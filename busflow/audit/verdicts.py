"""When a printed claim holds: rules that look at numbers only."""

import math
from collections.abc import Callable, Iterable

from scipy.special import expit, logit

REPRODUCED = "reproduced"
WITHIN = "within CI"
NOT_TOLD = "not told apart"
CONTRADICTED = "contradicted"
UNDEFINED = "undefined"
NOT_TESTABLE = "not testable"

Told = Callable[[str, str], bool]


def holds(condition: bool) -> str:
    """A statement that is true or false."""
    return REPRODUCED if condition else CONTRADICTED


def agreed(measured: Iterable[bool]) -> str:
    """A statement that is true or false of each of several measurements; they must agree."""
    found = set(measured)
    return NOT_TOLD if len(found) > 1 else holds(found == {True})


def equal(printed: float, ours: float | None, tolerance: float = 0) -> str:
    """A number without sampling error: equal to within the tolerance (its rounding)."""
    if ours is None or math.isnan(ours):
        return UNDEFINED
    return holds(abs(printed - ours) <= tolerance * (1 + 1e-9))


def another(value: float, low: float, high: float, top: float = 1) -> tuple[float, float]:
    """Where 95 of 100 studies of the same design have their number: each errs as ours does.

    Two independent estimates lie √2 times as far apart as each from the truth; on the logit scale, on which
    intervals are symmetric. Source: prediction interval of a replication (Patil, Peng & Leek 2016, Perspect.
    Psychol. Sci. 11(4)).

    Args:
        value, low, high: our number and its 95 % interval, in 0..``top``.
    """
    if not 0 < value < top:
        return low, high
    line = [logit(each / top) for each in (low, value, high)]
    ends = (line[1] + math.sqrt(2) * (end - line[1]) for end in (line[0], line[2]))
    first, last = (top * float(expit(end)) for end in ends)
    return first, last


def within(
    printed: float, ours: float | None, low: float, high: float, tolerance: float = 0, top: float = 1
) -> str:
    """A number with sampling error on both sides: equal to within its rounding, or as `another` study's.

    Not testable where ours has no interval, of too few groups.
    """
    verdict = equal(printed, ours, tolerance)
    if verdict != CONTRADICTED:
        return verdict
    if math.isnan(low):
        return NOT_TESTABLE
    first, last = another(ours, low, high, top)
    return WITHIN if first - tolerance <= printed <= last + tolerance else CONTRADICTED


def ranked(pairs: Iterable[tuple[str, str]], told: Told) -> str:
    """That of each pair the first is better; ``told`` says whether a test tells that one is than another.

    Reproduced if it does for all pairs, contradicted if it tells the opposite of any.
    """
    pairs = list(pairs)
    if any(told(worse, better) for better, worse in pairs):
        return CONTRADICTED
    return REPRODUCED if all(told(better, worse) for better, worse in pairs) else NOT_TOLD


def above(bound: float, intervals: Iterable[tuple[float, float]]) -> str:
    """That numbers exceed a bound, by their intervals (NaN of too few groups)."""
    intervals = list(intervals)
    if any(high < bound for _, high in intervals):
        return CONTRADICTED
    return REPRODUCED if all(low > bound for low, _ in intervals) else NOT_TOLD
