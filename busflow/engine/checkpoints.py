"""Weights as they are published: enough for inference, safe to load, the same bytes for the same numbers."""

from pathlib import Path

import torch

from busflow.errors import BusflowError
from busflow.files import atomic


def save_weights(path: Path, weights: dict[str, torch.Tensor], meta: dict) -> None:
    """Atomically write ``{"state_dict", "meta"}``: tensors on the CPU, and plain values."""
    # Through a file object, because torch writes a path's name into the file.
    with atomic(path) as temporary, temporary.open("wb") as file:
        torch.save({"state_dict": weights, "meta": meta}, file)


def load_weights(path: Path) -> dict:
    """Read what ``save_weights`` wrote, without running any code that the file may carry.

    Raises:
        BusflowError: the file is missing, truncated or not such a file.
    """
    try:
        loaded = torch.load(path, map_location="cpu", weights_only=True)
        return {"state_dict": loaded["state_dict"], "meta": loaded["meta"]}
    except FileNotFoundError as error:
        raise BusflowError(f"{path} does not exist; run the training that makes it") from error
    except Exception as error:
        raise BusflowError(
            f"{path} is no intact weights file ({error}); delete it and train again"
        ) from error
