"""What a weights file says of itself: all that a prediction needs that has nothing but the file."""

import itertools
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType

from torch.utils.data import Dataset

from busflow.data.appearance import MEASURES, ranges
from busflow.errors import BusflowError
from busflow.models.inputs import IMAGENET_MEAN, IMAGENET_STD
from busflow.models.rules import Rule, is_among, is_count, is_finite, is_text, picked

# How an image becomes what the networks take in. In the file, so that no other preparation is taken for it.
PREPARATION = {
    "resize": "letterbox",  # busflow.data.packing
    "channels": "grey, three times",
    "mean": list(IMAGENET_MEAN),  # of levels in [0, 1]
    "std": list(IMAGENET_STD),
}
# Names, no labels: a new label must not make weights anew.
ORIGIN = ("study", "notice", "protocol", "model", "seed", "sources")
SOURCE = ("name", "licence", "citation")


def describe(task: str, settings: dict, classes: tuple[str, ...], samples: Dataset) -> dict:
    """What a training writes beside its weights, but for the epoch and where it comes from.

    Args:
        task: name in ``busflow.tasks``.
        settings: of the run; what shapes the network is among them, and ``image_size``.
        classes: in the order of the network's outputs.
        samples: of the training; has ``images``, ``rows`` and ``sizes``.
    """
    return {
        "task": task,
        "settings": settings,
        "classes": list(classes),
        "preparation": PREPARATION,
        "images": ranges(samples.images, samples.rows, samples.sizes),
    }


def read_meta(
    path: Path,
    meta: dict,
    task: str,
    classes: tuple[str, ...],
    shaping: Callable[[dict], dict],
    more: Mapping[str, Rule] = MappingProxyType({}),
) -> dict:
    """What a weights file says of itself, if that is what a training of this task writes.

    Args:
        path: of the file, which may come from anywhere.
        meta: from ``load_weights``.
        task: name in ``busflow.tasks``.
        classes: of the task.
        shaping: picks the settings that shape a network, and raises ValueError where they shape none.
        more: rules of what only this task writes.

    Returns:
        The same, of the settings only those that shape the network, and ``image_size``.

    Raises:
        BusflowError: it is another task's, an earlier version's, or a value is not of its kind.
    """
    rules: dict[str, Rule] = {
        "task": is_among(task),
        "settings": lambda each: isinstance(each, dict) and bool(shaping(each)),
        "classes": lambda names: names == list(classes),
        "preparation": lambda each: each == PREPARATION,
        "images": is_ranges,
        "origin": is_origin,
        "epoch": is_count,
        **more,
    }
    if "task" not in meta:
        raise BusflowError(
            f"{path} is of an earlier version of busflow, which did not write all that a prediction needs; "
            "train again, or take another weights.pth"
        )
    try:
        if unknown := sorted(map(str, meta.keys() - rules.keys())):
            raise ValueError(f"{unknown[0]} is not expected")
        known = picked(meta, rules)
        size = picked(meta["settings"], {"image_size": is_count})
        return known | {"settings": shaping(meta["settings"]) | size}
    except ValueError as error:
        raise BusflowError(
            f"{path} does not describe a network of this task (meta: {error}); take the weights.pth that a "
            "training of this task published"
        ) from error


def is_ranges(value: object) -> bool:
    """Least and greatest of each measure of the training images."""
    return (
        isinstance(value, dict)
        and value.keys() == MEASURES.keys()
        and all(isinstance(each, list) and len(each) == 2 for each in value.values())
        and all(map(is_finite, itertools.chain(*value.values())))
    )


def is_origin(value: object) -> bool:
    """Where a training comes from: of plain words, so that they can be printed."""
    return (
        isinstance(value, dict)
        and value.keys() == set(ORIGIN)
        and all(is_text(value[key]) for key in ("study", "protocol", "model"))
        and (value["notice"] is None or is_text(value["notice"]))
        and type(value["seed"]) is int
        and isinstance(value["sources"], list)
        and all(
            isinstance(each, dict) and each.keys() == set(SOURCE) and all(map(is_text, each.values()))
            for each in value["sources"]
        )
    )
