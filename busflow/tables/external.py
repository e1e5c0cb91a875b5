"""How models do on sources that they never learnt from, beside the test split of their own protocol."""

from pathlib import Path

import numpy as np
import pandas as pd

from busflow.files import read_csv
from busflow.labels import LABELS, LESIONS
from busflow.metrics.resamples import read_metrics
from busflow.metrics.scores import at
from busflow.metrics.uncertainty import apart
from busflow.tables.leading import INTERVAL, LEADING, Score, estimate, interval_columns
from busflow.tables.table import Table, number
from busflow.units import units

INTERNAL = "internal"


# The first of a task leads its figure.
SCORES = {
    task: {name: LEADING[task].scores[name] for name in names}
    for task, names in {
        "classification": ("balanced_accuracy", "accuracy", "macro_f1"),
        "detection": ("ap50", "ap"),
        "segmentation": ("lesion_dice", "lesion_iou"),
    }.items()
}
# Of each class: how many there are, and one score.
CLASSES = {
    "classification": (
        LABELS,
        "per_class.{}.n",
        Score("Recall of {} (n)", "per_class.{}.recall"),
    ),
    "detection": (LESIONS, "per_class.{}.n_boxes", Score("AP50 of {} (boxes)", "per_class.{}.ap50")),
    "segmentation": (LESIONS, "per_image.{}.n", Score("Dice, {} (n)", "per_image.{}.dice.mean")),
}


def external(
    metrics_paths: list[Path], external_paths: list[Path], excluded_paths: list[Path], settings: dict
) -> Table:
    """Every model of one task on its own test split and on each external source.

    Args:
        metrics_paths: ``metrics.json`` of the units of the task.
        external_paths: those of their external tests.
        excluded_paths: ``data/external/{source}/{task}/excluded.csv``, what was left out and why.
    """
    found: dict[tuple[str, str, str], list[dict]] = {}
    for unit in units([*metrics_paths, *external_paths], settings):
        task = unit.task
        found.setdefault((unit.protocol, unit.model, unit.source), []).append(read_metrics(unit.path))
    data = pd.DataFrame([_row(task, *key, found) for key in found])
    data.insert(2, "label", data["model"].map(lambda model: settings["models"][task][model]["label"]))
    shown = pd.DataFrame(
        {
            "Protocol": data["protocol"].map(lambda name: settings["protocols"][name]["label"]),
            "Model": data["label"],
            "Tested on": data["test"].map(lambda name: _label(name, settings)),
            "n": data["n"].map(number),
            "Groups": data["n_groups"].map(number),
        }
    )
    for name, score in SCORES[task].items():
        shown[score.title] = data.apply(_with_interval, axis=1, name=name)
        shown[f"{score.title}: drop"] = data.apply(_with_interval, axis=1, name=f"{name}_drop")
    labels, _, of_class = CLASSES[task]
    for label in labels:
        shown[of_class.title.format(label)] = data.apply(_of_class, axis=1, label=label)
    notes = [
        *_left_out(excluded_paths, settings),
        "No model has seen an image of an external source in training or when its best epoch was chosen; an "
        "image that the study has too, or a near copy of one, is left out with all images of its group.",
        f"Scores range from 0 to 1. Groups are patients where the source tells them. {INTERVAL}",
        "Drop: the value on the own test split less the one on the external source. Its interval follows "
        "from the two intervals (Zou and Donner 2008, Stat. Med. 27:1693); one that holds 0 shows no drop.",
        "n/a (0): the source has no such image. Means over classes are over those that a source has, so that "
        "a drop may come from the mixture too: compare class by class.",
    ]
    return Table(f"{task.capitalize()}: external tests.", data, shown, notes)


def _row(task: str, protocol: str, model: str, source: str, found: dict) -> dict:
    seeds = found[protocol, model, source]
    row = {"protocol": protocol, "model": model, "test": source or INTERNAL, "seeds": len(seeds)}
    row |= {name: seeds[0][name] for name in ("n", "n_groups", "split_sha256")}
    for name, score in SCORES[task].items():
        inside, outside = (estimate(found[protocol, model, test], score) for test in ("", source))
        row |= interval_columns(name, outside)
        drop = (inside[0] - outside[0], *apart(inside, outside)) if source else (np.nan,) * 3
        row |= interval_columns(f"{name}_drop", drop)
    labels, count, of_class = CLASSES[task]
    for label in labels:
        here = of_class._replace(value=of_class.value.format(label))
        row[f"n_{label}"] = at(seeds[0], count.format(label))
        row[f"score_{label}"] = estimate(seeds, here)[0]
    return row


def _label(test: str, settings: dict) -> str:
    return "Own test split" if test == INTERNAL else settings["external"][test]["label"]


def _with_interval(row: pd.Series, name: str) -> str:
    if pd.isna(row[name]):
        return "" if name.endswith("_drop") and row["test"] == INTERNAL else "n/a"
    low, high = row[f"{name}_low"], row[f"{name}_high"]
    return f"{row[name]:.3f}" + ("" if pd.isna(low) else f" [{low:.3f}, {high:.3f}]")


def _of_class(row: pd.Series, label: str) -> str:
    value = row[f"score_{label}"]
    return f"{'n/a' if pd.isna(value) else f'{value:.3f}'} ({row[f'n_{label}']})"


def _left_out(paths: list[Path], settings: dict) -> list[str]:
    """A note per source: how many images were left out, by the first words of the reason."""
    notes = []
    for path in paths:
        source = Path(path).parents[1].name
        reasons = read_csv(path)["reason"].str.split(":").str[0].value_counts()
        words = "; ".join(f"{n} {reason}" for reason, n in reasons.items()) or "none"
        notes.append(f"Left out of {_label(source, settings)}: {words}.")
    return notes
