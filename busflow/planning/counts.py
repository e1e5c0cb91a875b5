"""What a forward pass of a model takes; each is counted once and remembered."""

import hashlib
import json
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

from busflow.files import read_json, write_json

PACKAGES = ("torch", "timm", "onedl-mmdetection", "onedl-mmsegmentation")
# Of the settings, what changes nothing of a step: other schedules need no other count.
OF_SCHEDULE = ("epochs", "milestones", "warmup_epochs", "poly_power", "learning_rate", "batch_size")


class Count(NamedTuple):
    """Of one forward pass in mixed precision.

    Attributes:
        images: in the batch.
        flops: floating-point operations of all of them; a multiplication and its addition are two.
        operators: that compute or copy something.
        moved: bytes that these read and write, each by itself.
        kept: bytes that autograd keeps for the backward pass, the weights left out.
        largest: bytes of the tensors of the largest operator.
        weights: bytes of parameters and buffers.
        trained: number of the parameters that are trained.
    """

    images: int
    flops: int
    operators: int
    moved: int
    kept: int
    largest: int
    weights: int
    trained: int


def counts(models: list[tuple[str, dict, bool, int]], memory: Path) -> list[Count]:
    """``busflow.planning.counting.count`` of each of these arguments.

    Counting takes up to a second for each network, and importing torch some more: what was counted before
    is read from the file ``memory``.
    """
    state = json.dumps([*map(version, PACKAGES), _hash_of_code()])
    known = read_json(memory) if memory.is_file() else {}
    known = {key: numbers for key, numbers in known.items() if key.startswith(state)}
    keys = []
    for task, settings, pretrained, images in models:
        shaping = {key: value for key, value in settings.items() if key not in OF_SCHEDULE}
        keys.append(state + json.dumps([task, shaping, pretrained, images], sort_keys=True))
    if new := {key: model for key, model in zip(keys, models, strict=True) if key not in known}:
        from busflow.planning.counting import count

        known |= {key: count(*model) for key, model in new.items()}
        write_json(memory, known)
    return [Count(*known[key]) for key in keys]


def _hash_of_code() -> str:
    """Of the library files that a count depends on."""
    library = Path(__file__).parents[1]
    files = sorted(path for room in ("models", "planning") for path in (library / room).glob("*.py"))
    return hashlib.sha256(b"".join(path.read_bytes() for path in files)).hexdigest()
