"""What the values may be from which a network is built: the file that holds them may come from anywhere."""

import math
from collections.abc import Callable

Rule = Callable[[object], bool]


def picked(values: dict, rules: dict[str, Rule]) -> dict:
    """The values that have a rule.

    Raises:
        ValueError: one is missing or breaks its rule; the message names it.
    """
    for key, rule in rules.items():
        if key not in values:
            raise ValueError(f"{key} is missing")
        if not rule(values[key]):
            raise ValueError(f"{key} is {values[key]!r}")
    return {key: values[key] for key in rules}


def is_among(*choices: str) -> Rule:
    return lambda value: isinstance(value, str) and value in choices


def is_flag(value: object) -> bool:
    return isinstance(value, bool)


def is_count(value: object) -> bool:
    """A whole number from 1."""
    return type(value) is int and value >= 1


def is_finite(value: object) -> bool:
    return type(value) in (int, float) and math.isfinite(value)


def is_text(value: object) -> bool:
    """One line of words, without anything that steers a terminal."""
    return isinstance(value, str) and len(value) <= 2000 and value.isprintable()


def is_number(value: object) -> bool:
    """A finite number from 0."""
    return is_finite(value) and value >= 0


def is_positive(value: object) -> bool:
    return is_number(value) and value > 0


def is_rate(value: object) -> bool:
    """A number in [0, 1)."""
    return is_number(value) and value < 1
