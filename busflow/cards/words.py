"""How the cards name tasks, counts and what is missing."""

import json
from collections.abc import Iterable

import pandas as pd

NOT_KNOWN = "not known: "
# What a network of a task does, and what model hubs call it.
DOES = {
    "classification": "tells whether an image shows a benign lesion, a malignant lesion or none",
    "detection": "draws boxes around lesions and calls each benign or malignant",
    "segmentation": "outlines lesions and calls each benign or malignant",
}
HUB_TASK = {
    "classification": "image-classification",
    "detection": "object-detection",
    "segmentation": "image-segmentation",
}


def known(value: str | None, fact: str) -> str:
    """A fact of the config, or that it is missing."""
    return f"{NOT_KNOWN}{fact}" if value in (None, "", "unknown") else value


def counted(n: int, one: str, many: str = "") -> str:
    """``1 image``, ``1,200 images``."""
    return f"{n:,} {one if n == 1 else many or f'{one}s'}"


def listed(words: Iterable[str]) -> str:
    """``a, b and c``."""
    *others, last = words
    return f"{', '.join(others)} and {last}" if others else last


def setting(value: object) -> str:
    """A value of the config, as it may be written there."""
    return value if isinstance(value, str) else json.dumps(value)


def hours(seconds: float) -> str:
    """Four digits of the hours that these seconds are."""
    return f"{seconds / 3600:.4g}"


def reasons(column: pd.Series) -> str:
    """Reasons by their first words, and how often each occurs; ``none`` if there is none."""
    counts = column.str.split(":").str[0].value_counts()
    return "; ".join(f"{reason} ({n:,})" for reason, n in counts.items()) or "none"


def share(value: float | None) -> str:
    """A share as per cent; n/a where it is undefined."""
    return "n/a" if value is None else f"{100 * value:.1f} %"


def decimal(value: float | None, interval: list[float] | None = None) -> str:
    """``0.912 [0.880, 0.941]``, as far as it is known."""
    if value is None:
        return "n/a"
    return f"{value:.3f}" + (f" [{interval[0]:.3f}, {interval[1]:.3f}]" if interval else "")
