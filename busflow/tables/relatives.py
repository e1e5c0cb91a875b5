"""What a leak of the split does to the scores: test images with and without a relative in training."""

from pathlib import Path

import pandas as pd

from busflow.metrics.resamples import read_metrics
from busflow.metrics.uncertainty import apart
from busflow.tables.leading import (
    INTERVAL,
    Score,
    estimate,
    interval_columns,
    seeds_text,
)
from busflow.tables.table import Table, number
from busflow.tasks import TASKS
from busflow.units import units

PARTS = ("with", "without")
# Title, and place of the value and of its estimate in a part of ``relatives`` of metrics.json.
SCORES = {
    "classification": {
        "accuracy": Score("Accuracy", "accuracy", "accuracy"),
        "macro_f1": Score("Macro F1", "macro_f1", "macro_f1"),
        "malignant_auroc": Score("AUROC of malignant", "malignant_auroc", "malignant_auroc"),
    },
    "detection": {
        "ap50": Score("AP50", "ap50", "ap50"),
        "ap": Score("AP", "ap", "ap"),
    },
    "segmentation": {
        "lesion_dice": Score("Dice by image", "dice.mean", "dice"),
        "image_iou": Score("IoU by image", "iou.mean", "iou"),
    },
}
NOTES = (
    "With a relative: an image of the same group (patient, video, near copies) is in the training part of "
    "the split. A group is with or without one as a whole. n: test images, of segmentation those with a "
    "lesion.",
    "Difference: the score with less the score without. The images differ: those with a relative are of "
    "other groups, sources and classes than those without, so the difference is not the leak alone.",
    "The two parts have no group in common: the interval of the difference follows from the two intervals "
    "(Zou and Donner 2008, Stat. Med. 27:1693). n/a: no image, or none of those that the score needs.",
)


def relatives(metrics_paths: list[Path], settings: dict) -> Table:
    """Scores of the models of all tasks on the two parts: a row per protocol, task, model and score.

    Args:
        metrics_paths: ``metrics.json`` of the units of all tasks, none of external tests or pooled folds.
    """
    seeds: dict[tuple[str, str, str], list[dict]] = {}
    for unit in units(metrics_paths, settings):
        seeds.setdefault((unit.protocol, unit.task, unit.model), []).append(read_metrics(unit.path))
    order = [
        (protocol, task, model)
        for protocol in settings["protocols"]
        for task in TASKS
        for model in settings["models"].get(task, {})
    ]
    keys = [key for key in order if key in seeds]
    data = pd.DataFrame([row for key in keys for row in _rows(key, seeds[key], settings)])
    shown = pd.DataFrame(
        {
            "Protocol": data["protocol"].map(lambda name: settings["protocols"][name]["label"]),
            "Task": data["task"].str.capitalize(),
            "Model": data["label"],
            "Score": [SCORES[row.task][row.score].title for row in data.itertuples()],
        }
    )
    for part in PARTS:
        shown[f"n {part}"] = data[f"n_{part}"].map(number)
        shown[f"Groups {part}"] = data[f"n_groups_{part}"].map(number)
    for name, how in (("with", ".3f"), ("without", ".3f"), ("difference", "+z.3f")):
        shown[name.capitalize()] = data.apply(_text, axis=1, name=name, how=how)
    notes = [
        *_splits(data, settings),
        *NOTES,
        f"Scores range from 0 to 1. {seeds_text(data['seeds'].max())} {INTERVAL}",
    ]
    return Table("Test images with and without a relative in training.", data, shown, notes)


def _rows(key: tuple[str, str, str], seeds: list[dict], settings: dict) -> list[dict]:
    protocol, task, model = key
    of_model = {"protocol": protocol, "task": task, "model": model}
    of_model |= {"label": settings["models"][task][model]["label"], "seeds": len(seeds)}
    counts = {
        f"{count}_{part}": seeds[0]["relatives"][part][count] for part in PARTS for count in ("n", "n_groups")
    }
    rows = []
    for name, score in SCORES[task].items():
        found = {part: estimate(seeds, _of_part(score, part)) for part in PARTS}
        one, other = found.values()
        row = of_model | {"score": name} | counts
        for part, values in found.items():
            row |= interval_columns(part, values)
        row |= interval_columns("difference", (one[0] - other[0], *apart(one, other)))
        rows.append(row | {"split_sha256": seeds[0]["split_sha256"]})
    return rows


def _of_part(score: Score, part: str) -> Score:
    return score._replace(
        value=f"relatives.{part}.{score.value}", estimate=f"relatives.{part}.{score.estimate}"
    )


def _text(row: pd.Series, name: str, how: str) -> str:
    """``0.912 [0.850, 0.951]``; without brackets where there is no interval."""
    if pd.isna(row[name]):
        return "n/a"
    value, low, high = (f"{row[f'{name}{end}']:{how}}" for end in ("", "_low", "_high"))
    return value if pd.isna(row[f"{name}_low"]) else f"{value} [{low}, {high}]"


def _splits(data: pd.DataFrame, settings: dict) -> list[str]:
    """A note per protocol: the splits of its tasks."""
    notes = []
    for protocol, part in data.drop_duplicates(["protocol", "task"]).groupby("protocol", sort=False):
        words = "; ".join(f"{row.task}, split {row.split_sha256[:12]}" for row in part.itertuples())
        notes.append(f"{settings['protocols'][protocol]['label']}: {words}.")
    return notes
