"""Where a task's models fail: their mean score on each part of the test set."""

from collections.abc import Iterator
from pathlib import Path

import pandas as pd

from busflow.labels import LABELS
from busflow.metrics.inputs import read_table
from busflow.metrics.uncertainty import mean_of
from busflow.tables.leading import INTERVAL, ends, interval_columns
from busflow.tables.overlap import THIRDS
from busflow.tables.table import Table, number

# Columns of a task's failures that the table shows, and what the leading one is.
SCORES = {
    "classification": {"score": "Probability of the true class", "right": "Accuracy"},
    "detection": {"score": "F1 of boxes"},
    "segmentation": {"score": "Dice"},
}
WORDS = {
    "classification": "Probability of the true class as predicted, before calibration.",
    "detection": "F1 of an image's boxes at an IoU of 0.5, either class, where the detector has one false "
    "positive per image; 1 for an image with neither a lesion nor a box.",
    "segmentation": "Dice of lesion against background, of images with a lesion.",
}
ALL = "all"


def failures(failures_path: Path, settings: dict) -> Table:
    """Every part of the test set under every protocol: all images, and by source, class, size and marks.

    Args:
        failures_path: ``results/failures/{task}.csv``, see ``busflow.failures.errors.find_errors``.
    """
    task = Path(failures_path).stem
    images = read_table(failures_path, ["protocol", "group", "source", "label", "third", "marked", "score"])
    images[list(SCORES[task])] = images[list(SCORES[task])].apply(pd.to_numeric, errors="coerce")
    of_protocols = dict(list(images.groupby("protocol")))
    known = [name for name in settings["protocols"] if name in of_protocols]
    data = pd.DataFrame([row for name in known for row in _rows(task, name, of_protocols[name])])
    models = sum(name.startswith("score_") for name in images)
    shown = pd.DataFrame(
        {
            "Protocol": data["protocol"].map(lambda name: settings["protocols"][name]["label"]),
            "Subset": data.apply(_subset, axis=1, settings=settings),
            "n": data["n"].map(number),
            "Groups": data["n_groups"].map(number),
        }
    )
    for name, title in SCORES[task].items():
        shown[title] = data.apply(_text, axis=1, name=name)
    notes = [
        f"Means over images of the mean over {models} {'models' if models > 1 else 'model'} and their seeds. "
        f"{WORDS[task]}",
        "Thirds of the lesions by share of the image, an image's largest counting. Marked: with marks burnt "
        "into the picture, such as callipers and words.",
        INTERVAL.replace("the mean over the seeds", "that mean"),
        "Parts overlap and differ in more than their name (a source has sizes of its own): a difference "
        "between two need not come from what they are named after.",
    ]
    return Table(f"{task.capitalize()}: where models fail.", data, shown, notes)


def _rows(task: str, protocol: str, images: pd.DataFrame) -> Iterator[dict]:
    """A row for each part of a protocol's test set; all groups of the protocol are drawn for each."""
    group = pd.factorize(images["group"], sort=True)[0]
    for kind, part, chosen in _parts(images):
        scored = chosen & images["score"].notna()
        row = {"protocol": protocol, "kind": kind, "part": part, "n": int(scored.sum())}
        row["n_groups"] = images.loc[scored, "group"].nunique()
        for name in SCORES[task]:
            estimate = mean_of(images[name].where(scored), group)
            row |= interval_columns(name, (estimate.value, *ends(estimate)))
        yield row


def _parts(images: pd.DataFrame) -> Iterator[tuple[str, str, pd.Series]]:
    """Kind, name and images (bool [N]) of each part that there is."""
    yield ALL, ALL, pd.Series(True, images.index)
    marked = images["marked"].map({True: "marked", False: "clean"})
    for kind, values, order in (
        ("source", images["source"], sorted(images["source"].unique())),
        ("label", images["label"], LABELS),
        ("third", images["third"], THIRDS),
        ("marked", marked, ("marked", "clean")),
    ):
        for part in order:
            if (chosen := values == part).any():
                yield kind, part, chosen


def _subset(row: pd.Series, settings: dict) -> str:
    words = {
        ALL: "All images",
        "marked": f"{row['part'].capitalize()} images",
        "label": row["part"].capitalize(),
    }
    words["third"] = f"{row['part'].capitalize()} third of the lesions"
    words["source"] = settings["sources"].get(row["part"], {}).get("label", row["part"])
    return words[row["kind"]]


def _text(row: pd.Series, name: str) -> str:
    if pd.isna(row[name]):
        return f"n/a (n={row['n']})"
    low, high = row[f"{name}_low"], row[f"{name}_high"]
    return f"{row[name]:.3f}" + ("" if pd.isna(low) else f" [{low:.3f}, {high:.3f}]")
