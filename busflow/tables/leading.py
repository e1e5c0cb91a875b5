"""The scores that lead the tables across protocols and sources: what they are called, how they are shown."""

from typing import NamedTuple

import numpy as np

from busflow.metrics.scores import at
from busflow.tables.table import number
from busflow.tasks import TASKS


class Score(NamedTuple):
    """A number of ``metrics.json``: its title, its place there, and that of its interval if it has one."""

    title: str
    value: str
    interval: str = ""


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
            accuracy=("Accuracy", "intervals.accuracy.cluster"),
            balanced_accuracy=("Balanced accuracy", "intervals.balanced_accuracy.cluster"),
            macro_f1=("Macro F1", "intervals.macro_f1.cluster"),
        ),
        100,
        2,
        "In per cent.",
    ),
    "detection": Leading(
        _scores(
            "detection",
            ap=("AP", "intervals.ap"),
            ap50=("AP50", "intervals.ap50"),
            ap75=("AP75", "intervals.ap75"),
            ar100=("AR", ""),
        ),
        1,
        3,
        "Average precision and recall as COCO defines them.",
    ),
    "segmentation": Leading(
        _scores(
            "segmentation",
            miou=("mIoU", "intervals.three_class_miou"),
            lesion_iou=("IoU of lesions", "intervals.two_class_lesion_iou"),
            lesion_dice=("Dice by image", "intervals.dice_mean"),
        ),
        100,
        2,
        "In per cent: mIoU of background, benign and malignant and IoU of lesions over all pixels, Dice "
        "(lesion against background) as the mean over images with a lesion.",
    ),
}


def estimate(seeds: list[dict], score: Score) -> tuple[float, float, float]:
    """Value and ends of its interval, means over the seeds' metrics; NaN where a seed has none."""
    ends = [(score.interval and at(each, score.interval)) or [None, None] for each in seeds]
    values = [at(each, score.value) for each in seeds]
    value, low, high = (
        np.nan if None in column else float(np.mean(column)) for column in (values, *zip(*ends, strict=True))
    )
    return value, low, high


def estimate_text(value: float, low: float, high: float, how: Leading) -> str:
    """``91.20 [88.1, 93.9]``; without brackets where there is no interval, ``n/a`` without a value."""
    if np.isnan(value):
        return "n/a"
    ends = [f"{how.factor * end:.{how.digits - 1}f}" for end in (low, high) if not np.isnan(end)]
    return number(how.factor * value, how.digits) + (f" [{', '.join(ends)}]" if ends else "")


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
