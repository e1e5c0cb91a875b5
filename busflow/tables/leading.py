"""The scores that lead the tables across protocols and sources: what they are called, how they are shown."""

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
import pandas as pd

from busflow.metrics.resamples import KEY
from busflow.metrics.scores import at
from busflow.metrics.uncertainty import RESAMPLES, TOO_FEW, Estimate, mean
from busflow.tables.table import number
from busflow.tasks import TASKS

INTERVAL = (
    "In brackets the 95 % interval of the mean over the seeds: a t-interval on the logit scale, with the "
    f"spread of {RESAMPLES:,} resamples of whole groups; none of {TOO_FEW}."
)
RANKS = "Rank: all ranks by {} that the tests leave open, for all models at once (Mogstad et al. 2024)."


class Score(NamedTuple):
    """A number of ``metrics.json``: its title, its place there, and the name of its estimate, if any."""

    title: str
    value: str
    estimate: str = ""


class Leading(NamedTuple):
    """A task's scores by name, the factor and the digits they are shown with, and words that explain them."""

    scores: dict[str, Score]
    factor: int
    digits: int
    words: str


def _scores(task: str, **shown: tuple[str, str]) -> dict[str, Score]:
    return {name: Score(title, TASKS[task].scores[name], end) for name, (title, end) in shown.items()}


LEADING = {
    "classification": Leading(
        _scores(
            "classification",
            accuracy=("Accuracy", "accuracy"),
            balanced_accuracy=("Balanced accuracy", "balanced_accuracy"),
            macro_f1=("Macro F1", "macro_f1"),
        ),
        100,
        2,
        "In per cent.",
    ),
    "detection": Leading(
        _scores(
            "detection",
            ap=("AP", "ap"),
            ap50=("AP50", "ap50"),
            ap75=("AP75", "ap75"),
            ar100=("AR", "ar100"),
        ),
        1,
        3,
        "Average precision and recall as COCO defines them.",
    ),
    "segmentation": Leading(
        _scores(
            "segmentation",
            miou=("mIoU", "three_class_miou"),
            lesion_iou=("IoU of lesions", "two_class_lesion_iou"),
            lesion_dice=("Dice by image", "dice_mean"),
        ),
        100,
        2,
        "In per cent: mIoU of background, benign and malignant and IoU of lesions over all pixels, Dice "
        "(lesion against background) as the mean over images with a lesion.",
    ),
}


def over_seeds(seeds: list[dict], name: str) -> Estimate | None:
    """An estimate of the mean over the seeds' metrics, from ``read_metrics``; None where a seed has none."""
    found = [each[KEY].get(name) for each in seeds]
    return None if None in found else mean(found)


def estimate(seeds: list[dict], score: Score) -> tuple[float, float, float]:
    """The mean over the seeds' metrics and the ends of its interval; NaN where a seed has no value."""
    values = [at(each, score.value) for each in seeds]
    value = np.nan if None in values else float(np.mean(values))
    return value, *ends(over_seeds(seeds, score.estimate))


def ends(estimate: Estimate | None) -> tuple[float, float]:
    """The ends of an interval; NaN where there is none."""
    low, high = (estimate and estimate.interval()) or (np.nan, np.nan)
    return low, high


def interval_columns(name: str, values: Iterable[float]) -> dict[str, float]:
    """Value and ends of its interval under the names that all tables give them."""
    return dict(zip((name, f"{name}_low", f"{name}_high"), values, strict=True))


def rank_text(row: pd.Series) -> str:
    """``1``, or ``1–3`` where tests leave these ranks open; a dash without tests."""
    low, high = row["rank_low"], row["rank_high"]
    if pd.isna(low):
        return "–"
    return f"{low:.0f}" if low == high else f"{low:.0f}–{high:.0f}"


def estimate_text(value: float, low: float, high: float, how: Leading) -> str:
    """``91.20 [88.1, 93.9]``; without brackets where there is no interval, ``n/a`` without a value."""
    if np.isnan(value):
        return "n/a"
    known = [f"{how.factor * end:.{how.digits - 1}f}" for end in (low, high) if not np.isnan(end)]
    return number(how.factor * value, how.digits) + (f" [{', '.join(known)}]" if known else "")


def mean_text(mean: float, sd: float, known: int, of: int, how: Leading) -> str:
    """``91.20 ± 1.31``; with ``(4 of 5)`` where the score is undefined in some."""
    if not known:
        return "n/a"
    words = number(how.factor * mean, how.digits)
    if known > 1:
        words += f" ± {how.factor * sd:.{how.digits}f}"
    return words + (f" ({known} of {of})" if known < of else "")


def seeds_text(seeds: int) -> str:
    """Over how many seeds the values are means."""
    return f"Means over {seeds} seeds." if seeds > 1 else "One seed."
