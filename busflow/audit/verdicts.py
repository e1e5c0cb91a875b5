"""When a printed claim holds: rules that look at numbers only."""

import itertools
import math
from collections.abc import Iterable, Mapping

REPRODUCED = "reproduced"
WITHIN = "within CI"
CONTRADICTED = "contradicted"
UNDEFINED = "undefined"
NOT_TESTABLE = "not testable"


def holds(condition: bool) -> str:
    """A statement that is true or false."""
    return REPRODUCED if condition else CONTRADICTED


def equal(printed: float, ours: float | None, tolerance: float = 0) -> str:
    """A number without sampling error: equal to within the tolerance (its rounding)."""
    if ours is None or math.isnan(ours):
        return UNDEFINED
    return holds(abs(printed - ours) <= tolerance * (1 + 1e-9))


def within(printed: float, ours: float | None, low: float, high: float, tolerance: float = 0) -> str:
    """A number with sampling error: equal to within its rounding, or inside our interval."""
    verdict = equal(printed, ours, tolerance)
    return WITHIN if verdict == CONTRADICTED and low <= printed <= high else verdict


def leads(claimed: str, values: Mapping[str, float], as_good: Iterable[str]) -> str:
    """``claimed`` is the best: alone at the top, among the statistically indistinguishable, or neither."""
    best, as_good = max(values, key=values.__getitem__), set(as_good)
    if claimed == best and as_good <= {best}:
        return REPRODUCED
    return WITHIN if claimed in as_good | {best} else CONTRADICTED


def ordered(claimed: list[str], values: Mapping[str, float]) -> str:
    """The claimed order, best first, is strictly that of the values."""
    mine = [values[name] for name in claimed]
    return holds(all(a > b for a, b in itertools.pairwise(mine)))
