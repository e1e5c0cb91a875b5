"""``metrics.json`` and, beside it, ``resamples.npz``: what its numbers are in resamples of the groups."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from busflow.errors import BusflowError
from busflow.files import atomic, read_json, write_json
from busflow.metrics.uncertainty import Estimate

KEY, FILE = "resamples", "resamples.npz"
PARTS = Estimate._fields


def write_metrics(path: Path, metrics: Mapping) -> None:
    """Write what an evaluation gives: its estimates to ``resamples.npz``, all else as JSON to ``path``.

    Values are kept in single precision: their last digits are noise.
    """
    arrays = {
        f"{name}:{part}": np.asarray(value, np.float32)
        for name, estimate in metrics[KEY].items()
        for part, value in zip(PARTS, estimate, strict=True)
    }
    with atomic(Path(path).with_name(FILE)) as temporary:
        np.savez(temporary, **arrays)  # not compressed: the same bytes whatever the library
    write_json(path, {name: value for name, value in metrics.items() if name != KEY})


def read_metrics(path: Path | str) -> dict:
    """A ``metrics.json`` with its estimates by name under ``resamples``.

    Raises BusflowError when the file beside it is missing or damaged.
    """
    beside = Path(path).with_name(FILE)
    try:
        with np.load(beside, allow_pickle=False) as file:
            arrays = dict(file)
        names = dict.fromkeys(name.rpartition(":")[0] for name in arrays)
        found = {
            name: Estimate(*(arrays[f"{name}:{part}"].astype(float) for part in PARTS)) for name in names
        }
    except (OSError, ValueError, KeyError) as error:
        raise BusflowError(f"{beside}: not readable ({error}); evaluate again") from None
    estimates = {name: each._replace(bounds=tuple(each.bounds.tolist())) for name, each in found.items()}
    return read_json(path) | {KEY: estimates}


def intervals(estimates: Mapping[str, Estimate]) -> dict:
    """The interval of each estimate, nested as the dots in its name say: ``per_class.benign.auroc``."""
    found: dict = {}
    for name, estimate in estimates.items():
        *places, last = name.split(".")
        node = found
        for place in places:
            node = node.setdefault(place, {})
        node[last] = estimate.interval()
    return found
