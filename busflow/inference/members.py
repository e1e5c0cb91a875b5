"""The trained models that predict together: one, or an ensemble."""

import itertools
from pathlib import Path
from typing import NamedTuple

import torch
from mmengine.model import BaseModel

from busflow.data.appearance import departures
from busflow.engine.checkpoints import load_weights
from busflow.engine.loading import load_task
from busflow.errors import BusflowError
from busflow.files import sha256
from busflow.inference.pictures import Opened
from busflow.tasks import TASKS


class Member(NamedTuple):
    """A trained model.

    Attributes:
        path, sha256: of its weights.
        model: in evaluation mode, on the device.
        meta: what its file says of it (``busflow.engine.meta``).
    """

    path: Path
    sha256: str
    model: BaseModel
    meta: dict

    @property
    def side(self) -> int:
        """Of the images that it takes, in pixels."""
        return self.meta["settings"]["image_size"]

    def images(self, opened: list[Opened]) -> torch.Tensor:
        """Opened pictures as a batch, uint8 [B, 1, side, side]."""
        return torch.stack([torch.from_numpy(each.packed[self.side]) for each in opened]).unsqueeze(1)


def load_members(paths: list[Path], device: torch.device) -> tuple[str, list[Member]]:
    """The task of published weights, and their models.

    Raises:
        BusflowError: a file is no such file, damaged or given twice, or they are of more tasks than one.
    """
    tasks = {path: load_weights(path)["meta"].get("task") for path in paths}
    first, task = next(iter(tasks.items()))
    for path, other in tasks.items():
        if other != task:
            raise BusflowError(
                f"{first} is of the task {task} and {path} of {other}; models of one task predict together"
            )
    hashes = [sha256(path) for path in paths]
    if len(set(hashes)) < len(hashes):
        twice = next(path for k, path in enumerate(paths) if hashes[k] in hashes[:k])
        raise BusflowError(f"{twice} is given twice; an ensemble is of different models")
    # A file that names no task is told what is amiss by any engine.
    engine = load_task(task if task in TASKS else next(iter(TASKS)))
    members = []
    for path, digest in zip(paths, hashes, strict=True):
        model, meta = engine.load(path)
        members.append(Member(path, digest, model.to(device), meta))
    return task, members


def flags(opened: Opened, members: list[Member]) -> list[str]:
    """Why a picture may be none of the kind that the members were trained on."""
    found = (departures(opened.measures[each.side], each.meta["images"]) for each in members)
    return list(dict.fromkeys(itertools.chain(opened.remarks, *found)))


def spread(values: torch.Tensor) -> float:
    """The disagreement of members: largest difference between two of them [M, ...] in any value."""
    return float((values.amax(dim=0) - values.amin(dim=0)).max())
