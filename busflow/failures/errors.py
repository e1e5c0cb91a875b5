"""The score of each test image, and what it may have to do with: source, class, size, marks."""

import importlib
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from busflow.errors import BusflowError
from busflow.metrics.detection import relative_thirds
from busflow.metrics.inputs import read_table, refuse
from busflow.units import Unit, units

MODEL = "score_"  # what a column of one model's score begins with
FACTS = ["image_id", "protocol", "source", "label", "group", "third"]


class Files(NamedTuple):
    """What is known of the images: the two tables of the index, and the folder of a protocol's masks."""

    images: Path
    annotations: Path
    masks: Path | None = None


def find_errors(
    task: str, predictions: list[Path], splits: dict[Path, Files], marks: Path, settings: dict
) -> pd.DataFrame:
    """A row per protocol and test image, protocols as in ``splits``, images by image_id.

    Args:
        task: one of ``busflow.tasks.TASKS``; ``busflow/failures/<task>.py`` says what its score is.
        predictions: of all units, ``.../{protocol}/{task}/{model}/seed{seed}/<file>``.
        splits: ``.../{protocol}/{task}.csv`` with the files that belong to it.
        marks: ``data/index/marks.csv``.
        settings: ``protocols`` and ``models`` by task, in the order of the config.

    Returns:
        ``image_id, protocol, source, label, group``; ``third`` (smallest, middle, largest: of the image's
        largest lesion by its share of the image, among those of the protocol; empty where none is known);
        ``marked`` (bool); ``score`` (0 ... 1, the mean over models of their means over seeds; NaN where the
        task has none); ``disagreement``, the standard deviation (n - 1) of the models' scores; what else the
        task tells, as a mean in the same way; and ``score_<model>`` of each model.

    Raises:
        BusflowError: files do not fit together, cannot be scored, or a protocol has no predictions.
    """
    room = importlib.import_module(f"busflow.failures.{task}")
    found = units(predictions, settings)
    marked = read_marks(marks)
    parts = []
    for split, files in splits.items():
        protocol = split.parent.name
        of_protocol = [unit for unit in found if unit.protocol == protocol]
        if not of_protocol:
            raise BusflowError(f"{split}: no predictions of {protocol} are given; predict first")
        images, truth = room.read_truth(split, files)
        refuse(images, ~images["image_id"].isin(marked.index), marks, "lacks a test image", "make it again")
        table = _described(images, protocol, files.images).assign(marked=images["image_id"].map(marked))
        parts.append(table.join(_scores(of_protocol, lambda path, truth=truth: room.score(path, truth))))
    return pd.concat(parts, ignore_index=True)


def size_thirds(shares: pd.Series) -> pd.Series:
    """``smallest``, ``middle`` or ``largest`` for each share of the image; empty for 0 and NaN.

    The bounds are those of the metrics: thirds of the lesions at hand, equal shares together.
    """
    lesions = shares[shares > 0]
    names = pd.Series("", shares.index, dtype=object)
    for name, bounds in relative_thirds(lesions.to_frame("relative_area")).items():
        names[lesions.index[lesions.between(*bounds)]] = name
    return names


def read_marks(path: Path) -> pd.Series:
    """Whether each image bears marks burnt in by the scanner or a reader (bool), by image_id."""
    table = read_table(path, ["image_id", "marked"])
    known = table["marked"].isin([0, 1])
    refuse(table, ~known, path, "marked is neither true nor false", "find the marks again")
    return table.set_index("image_id")["marked"].astype(bool)


def _described(images: pd.DataFrame, protocol: str, index: Path) -> pd.DataFrame:
    sources = read_table(index, ["image_id", "source"]).set_index("image_id")["source"]
    refuse(images, ~images["image_id"].isin(sources.index), index, "lacks a test image", "make it again")
    table = images.assign(
        protocol=protocol,
        source=images["image_id"].map(sources),
        third=size_thirds(images["relative_area"]),
    )
    return table[FACTS]


def _scores(found: list[Unit], score: Callable[[Path], pd.DataFrame]) -> pd.DataFrame:
    """Means over seeds, then over models, in the order of the test images."""
    seeds: dict[str, list[pd.DataFrame]] = {}
    for unit in found:
        seeds.setdefault(unit.model, []).append(score(unit.path))
    models = {model: sum(tables) / len(tables) for model, tables in seeds.items()}
    scores = pd.DataFrame({model: table["score"] for model, table in models.items()})
    means = sum(models.values()) / len(models)
    means.insert(1, "disagreement", scores.std(axis=1, ddof=1))
    return means.join(scores.add_prefix(MODEL))
