"""Weights as they are published: enough for inference, safe to load, the same bytes for the same numbers."""

from pathlib import Path

import torch

from busflow.errors import BusflowError
from busflow.files import atomic
from busflow.models.weights import read_data, refuse_non_finite


def save_weights(path: Path, weights: dict[str, torch.Tensor], meta: dict) -> None:
    """Atomically write ``{"state_dict", "meta"}``: tensors on the CPU, and plain values."""
    with atomic(path) as temporary:
        write_tensors(temporary, {"state_dict": weights, "meta": meta})


def write_tensors(path: Path, content: dict) -> None:
    """``torch.save`` that writes the same bytes under any name.

    Raises:
        OSError: what is wrong with the disk; torch alone would raise a RuntimeError that does not tell.
    """
    with path.open("wb") as file:  # torch writes the name of a path into the file
        try:
            torch.save(content, file)
        except RuntimeError as error:
            raise error.__context__ if isinstance(error.__context__, OSError) else error from None


def load_weights(path: Path) -> dict:
    """Read what ``save_weights`` wrote, without running any code that the file may carry.

    Raises:
        BusflowError: the file is missing, truncated or not such a file, or a weight is NaN or infinite.
    """
    loaded = read_data(path)
    if not (
        isinstance(loaded, dict)
        and all(isinstance(loaded.get(part), dict) for part in ("state_dict", "meta"))
        and all(isinstance(each, torch.Tensor) for each in loaded["state_dict"].values())
    ):
        raise BusflowError(f"{path} is no weights file of a training here; delete it and train again")
    refuse_non_finite(loaded["state_dict"], path)
    return {"state_dict": loaded["state_dict"], "meta": loaded["meta"]}
