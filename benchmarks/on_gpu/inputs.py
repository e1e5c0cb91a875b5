"""Inputs of the study's trainings made of noise, and what a training makes of them."""

import functools
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import torch
from mmengine.optim import OptimWrapper

from busflow.config import training_settings
from busflow.data.views import make_views
from busflow.engine import classification, detection, precision, segmentation
from busflow.engine.datasets import accumulation_steps
from busflow.engine.training import Engine, Setup
from busflow.labels import LABELS, LESIONS
from busflow.tasks import TASKS

CUDA = torch.cuda.is_available()
DEVICE = torch.device("cuda" if CUDA else "cpu")
# The dearest and least sure first.
ENGINES: dict[str, Engine] = {
    "detection": detection,
    "segmentation": segmentation,
    "classification": classification,
}
ROWS = 64  # distinct images; more samples than that share them
SIZE = (160, 120)  # of the original images in pixels
GIB = 2**30


def settings_of(config: dict, task: str, model: str) -> dict:
    """Of a training under the protocol that balances classes."""
    return training_settings(config, "grouped", task, model)


@functools.cache
def write_inputs(folder: Path, task: str, side: int, train: int, held_out: int) -> dict[str, Path]:
    """Files of a study of noise that a training reads, by role."""
    folder = folder / f"{task}-{side}-{train}-{held_out}"
    folder.mkdir(parents=True, exist_ok=True)
    rng, count = np.random.default_rng(0), train + 2 * held_out
    numbers, hashes = np.arange(count), np.array([f"{row:064x}" for row in range(ROWS)])
    table = pd.DataFrame({"image_id": [f"image{k}" for k in numbers], "label": np.resize(LESIONS, count)})
    if task == "classification":
        table["label"] = np.resize(LABELS, count)
    table["split"] = np.repeat(["train", "val", "test"], [train, held_out, held_out])
    images = table[["image_id"]].assign(pixel_sha256=hashes[numbers % ROWS], source="noise")
    images["width"], images["height"] = SIZE
    np.save(folder / "images.npy", rng.integers(0, 256, (ROWS, side, side), np.uint8))
    images.to_csv(folder / "images.csv", index=False)
    pd.DataFrame({"row": range(ROWS), "pixel_sha256": hashes}).to_csv(folder / "packed.csv", index=False)
    table.to_csv(folder / "split.csv", index=False)
    boxes = np.concatenate([rng.uniform(10, 50, (count, 2)), rng.uniform(15, 60, (count, 2))], axis=1)
    if task == "detection":
        annotations = table[["image_id", "label"]].assign(annotation_id=numbers)
        annotations[["x", "y", "w", "h"]] = boxes
        make_views(table, images, annotations, folder)
    if task == "segmentation":
        for image_id, label, (x, y, w, h) in zip(
            table["image_id"], table["label"], boxes.astype(int), strict=True
        ):
            mask = np.zeros(SIZE[::-1], np.uint8)
            mask[y : y + h, x : x + w] = 1 + LESIONS.index(label)
            cv2.imwrite(str(folder / f"{image_id}.png"), mask)
    names = {"packed_images": "images.npy", "packed_index": "packed.csv", "masks": "."}
    names |= {"images": "images.csv", "split": "split.csv", "train": "train.json", "val": "val.json"}
    return {role: folder / names[role] for role in TASKS[task].train}


def prepared(task: str, inputs: dict[str, Path], settings: dict) -> Setup:
    """The setup of a training, its weights random. DETR's backbone is frozen as with pretrained ones."""
    engine = ENGINES[task]
    torch.manual_seed(settings["seed"])
    data = [engine.read(inputs, name) for name in ("train", "val")]
    setup = engine.prepare(*data, settings)
    setup.model.init_weights()
    if settings.get("detector") == "detr":
        file = inputs["images"].with_name("backbone.pth")
        torch.save(setup.model.network.backbone.state_dict(), file)
        setup = engine.prepare(*data, settings, file)
        setup.model.init_weights()
    return setup


def wrapped(setup: Setup, wanted: str) -> OptimWrapper:
    """The optimiser as a training has it, in the precision that is wanted."""
    settings, clip = setup.settings, setup.settings.get("clip_grad")
    options = {
        "optimizer": setup.optimizer,
        "accumulative_counts": accumulation_steps(settings["batch_size"], settings["micro_batch"]),
        "clip_grad": {"max_norm": clip} if clip else None,
    }
    return precision.wrap(precision.resolve(wanted), **options)
