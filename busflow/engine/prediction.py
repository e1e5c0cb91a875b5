"""The test set one image at a time, and what a prediction leaves."""

import itertools
import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TypeVar

import torch
from mmengine.device import get_device
from torch.utils.data import Dataset

from busflow.engine import timing
from busflow.engine.datasets import evaluation_loader
from busflow.engine.memory import out_of_memory_is
from busflow.files import write_json, write_text

Found = TypeVar("Found")


@out_of_memory_is("a prediction of one image", "take a larger GPU, or set compute.gpus to 0 in the config")
def one_by_one(infer: Callable[[dict], Found], dataset: Dataset, warmup: int, output: Path) -> list[Found]:
    """What ``infer`` makes of each sample's batch; writes timing.json.

    Args:
        infer: takes a loader batch of one image; its seconds are measured.
        dataset: has ``images`` [N, S, S].
        warmup: untimed calls before.
        output: folder of timing.json.
    """
    device = torch.device(get_device())
    loader = evaluation_loader(dataset, 1, workers=0)
    batches = itertools.chain(itertools.islice(itertools.cycle(loader), warmup), loader)
    found: list[Found] = []
    times = timing.seconds_of_each(lambda batch: found.append(infer(batch)), batches, device)[warmup:]
    write_json(
        output / "timing.json",
        {
            "device": timing.device_name(device),
            "precision": "fp32",
            "threads": torch.get_num_threads(),
            "image_size": dataset.images.shape[1],
            "warmup": warmup,
            "latency": timing.latency(times),
            "test_set": {"n": len(times), "seconds": float(times.sum())},
        },
    )
    return found[warmup:]


def write(path: Path, results: Iterable[dict]) -> None:
    """Write predictions as JSON on one line: there may be hundreds of thousands."""
    write_text(path, json.dumps(list(results), allow_nan=False) + "\n")
