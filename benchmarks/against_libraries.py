"""Training here against the pipelines that one would run instead: timm's, mmdet's and mmseg's own.

Each pair trains a network of the paper's study, from random weights, at its size and with the same images a
step, in one thread and one process: here from packed arrays, with augmentation on the device; there from
PNG files of BUSI's size by the library's dataset, transforms, collation and preprocessing. Steps alternate,
so that a busy machine slows both. Then the inputs alone, up to what the network takes, and what the CPU does
for them where the device augments. Targets: training at least 1.0 times theirs, inputs at least 20 times.
"""

import argparse
import functools
import itertools
import json
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import torch
from gpu import ENGINES, ROOT, prepared, write_inputs
from mmengine.model import BaseModel
from mmengine.optim import OptimWrapper
from mmengine.registry import MODELS, DefaultScope
from mmengine.runner import Runner

from busflow.config import read_study, training_settings
from busflow.engine.datasets import training_loader
from busflow.engine.training import Setup
from busflow.labels import LABELS, LESIONS
from busflow.models.segmenters import segmenter_config

PAIRS = {
    "classification": ("convnext_atto", 32),
    "detection": ("convnext_tiny", 2),
    "segmentation": ("segformer_b0", 4),
}  # models of the paper's study, and images a step
IMAGES, WIDTH, HEIGHT = 32, 560, 470
BOX = (200, 150, 160, 120)  # left, top, width, height
MEAN, STD = [123.675, 116.28, 103.53], [58.395, 57.12, 57.375]


class Pipeline(NamedTuple):
    """Endless batches, what makes of one what the network takes, and a step of training on one."""

    batches: Iterator
    preprocess: Callable
    step: Callable


def write_files(folder: Path) -> None:
    """Speckle with a lesion in the same place: images by class, masks, and boxes in COCO's format."""
    rng, names = np.random.default_rng(0), [f"{number:04}.png" for number in range(IMAGES)]
    left, top, width, height = BOX
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    mask[top : top + height, left : left + width] = 1
    for folder_of in ("images", "masks", *(f"classes/{label}" for label in LABELS)):
        (folder / folder_of).mkdir(parents=True)
    for number, name in enumerate(names):
        speckle = cv2.GaussianBlur(rng.rayleigh(60, (HEIGHT, WIDTH)).astype(np.float32), (5, 3), 0)
        content = cv2.imencode(".png", speckle.clip(0, 255).astype(np.uint8))[1].tobytes()
        (folder / "images" / name).write_bytes(content)
        (folder / "classes" / LABELS[number % len(LABELS)] / name).write_bytes(content)
        cv2.imwrite(str(folder / "masks" / name), mask)
    images = [{"id": k, "file_name": name, "width": WIDTH, "height": HEIGHT} for k, name in enumerate(names)]
    boxes = [
        {"id": k, "image_id": k, "category_id": 1 + k % 2, "bbox": BOX, "area": width * height, "iscrowd": 0}
        for k in range(IMAGES)
    ]
    categories = [{"id": k, "name": name} for k, name in enumerate(LESIONS, start=1)]
    (folder / "boxes.json").write_text(
        json.dumps({"images": images, "annotations": boxes, "categories": categories})
    )


def endless(loader: torch.utils.data.DataLoader) -> Iterator:
    return itertools.chain.from_iterable(itertools.repeat(loader))


def ours(task: str, folder: Path, setup: Setup, images: int) -> Pipeline:
    settings = setup.settings
    samples = ENGINES[task].read(write_inputs(folder, task, settings["image_size"], 2 * IMAGES, 2), "train")
    loader = training_loader(samples, images, images, seed=0, workers=0)
    wrapper = OptimWrapper(setup.optimizer)
    return Pipeline(
        endless(loader),
        functools.partial(setup.model.data_preprocessor, training=True),
        lambda data: setup.model.train_step(data, wrapper),
    )


def timms(folder: Path, setup: Setup, images: int) -> Pipeline:
    """The loop of timm's training script, at its defaults for augmentation."""
    import timm.data  # here, and mmdet's and mmseg's below: after what makes torchvision importable
    import timm.optim

    side, network = setup.settings["image_size"], setup.model.network
    loader = timm.data.create_loader(
        timm.data.create_dataset("", root=folder / "classes"),
        input_size=(3, side, side),
        batch_size=images,
        is_training=True,
        use_prefetcher=False,
        num_workers=0,
        persistent_workers=False,
        color_jitter=0.4,
        device=torch.device("cpu"),
    )
    optimizer = timm.optim.create_optimizer_v2(network, opt="adamw", lr=1e-4, weight_decay=0.05)

    def step(data: tuple[torch.Tensor, torch.Tensor]) -> None:
        inputs, labels = data
        torch.nn.functional.cross_entropy(network(inputs), labels).backward()
        optimizer.step()
        optimizer.zero_grad()

    return Pipeline(endless(loader), lambda data: data, step)


def openmmlabs(dataset: dict, preprocessor: dict, network: BaseModel, images: int) -> Pipeline:
    """mmengine's loader and step, with the dataset and the preprocessing of mmdet or mmseg."""
    loader = Runner.build_dataloader(
        {
            "batch_size": images,
            "num_workers": 0,
            "sampler": {"type": "InfiniteSampler", "shuffle": True},
            "dataset": dataset,
        }
    )
    network.data_preprocessor = MODELS.build(preprocessor | {"mean": MEAN, "std": STD, "bgr_to_rgb": True})
    wrapper = OptimWrapper(torch.optim.AdamW(network.parameters(), lr=1e-4))
    return Pipeline(
        iter(loader),
        functools.partial(network.data_preprocessor, training=True),
        lambda data: network.train_step(data, wrapper),
    )


def mmdets(folder: Path, setup: Setup, images: int) -> Pipeline:
    """The transforms of its Cascade R-CNN, padded to the square that is trained on here."""
    import mmdet.datasets  # noqa: F401

    side = setup.settings["image_size"]
    dataset = {
        "type": "mmdet.CocoDataset",
        "ann_file": str(folder / "boxes.json"),
        "data_prefix": {"img": str(folder / "images")},
        "metainfo": {"classes": LESIONS},
        "pipeline": [
            {"type": "mmdet.LoadImageFromFile"},
            {"type": "mmdet.LoadAnnotations", "with_bbox": True},
            {"type": "mmdet.Resize", "scale": (side, side), "keep_ratio": True},
            {"type": "mmdet.RandomFlip", "prob": 0.5},
            {"type": "mmdet.PackDetInputs"},
        ],
    }
    pad = {"type": "mmdet.BatchFixedSizePad", "size": (side, side)}
    preprocessor = {"type": "mmdet.DetDataPreprocessor", "batch_augments": [pad]}
    return openmmlabs(dataset, preprocessor, setup.model.network, images)


def mmsegs(folder: Path, setup: Setup, images: int) -> Pipeline:
    """The transforms of its SegFormers, and their head as it is there."""
    import mmseg.datasets  # noqa: F401

    side = setup.settings["image_size"]
    dataset = {
        "type": "mmseg.BaseSegDataset",
        "data_prefix": {"img_path": str(folder / "images"), "seg_map_path": str(folder / "masks")},
        "img_suffix": ".png",
        "metainfo": {"classes": ("background", *LESIONS)},
        "pipeline": [
            {"type": "mmseg.LoadImageFromFile"},
            {"type": "mmseg.LoadAnnotations"},
            {
                "type": "mmseg.RandomResize",
                "scale": (side, side),
                "ratio_range": (0.5, 2.0),
                "keep_ratio": True,
            },
            {"type": "mmseg.RandomCrop", "crop_size": (side, side), "cat_max_ratio": 0.75},
            {"type": "mmseg.RandomFlip", "prob": 0.5},
            {"type": "mmseg.PhotoMetricDistortion"},
            {"type": "mmseg.PackSegInputs"},
        ],
    }
    config = segmenter_config(setup.settings)
    config.decode_head.type = "SegformerHead"
    with DefaultScope.overwrite_default_scope("mmseg"):
        network = MODELS.build(config)
    network.init_weights()
    preprocessor = {"type": "mmseg.SegDataPreProcessor", "size": (side, side)}
    return openmmlabs(dataset, preprocessor, network.train(), images)


THEIRS = {
    "classification": ("timm", timms),
    "detection": ("mmdet", mmdets),
    "segmentation": ("mmseg", mmsegs),
}


def seconds(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def compare(here: Pipeline, there: Pipeline, rounds: int) -> dict[str, tuple[float, float]]:
    """Median seconds of a batch, here and there: whole steps, the inputs, and the loaders' share of them."""
    ways: dict[str, Callable[[Pipeline], object]] = {
        "training": lambda side: side.step(next(side.batches)),
        "inputs": lambda side: side.preprocess(next(side.batches)),
        "loading": lambda side: next(side.batches),
    }
    found = {}
    for name, way in ways.items():
        for side in (here, there):
            way(side)
        pairs = [[seconds(functools.partial(way, side)) for side in (here, there)] for _ in range(rounds)]
        found[name] = tuple(statistics.median(column) for column in zip(*pairs, strict=True))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tasks", nargs="+", choices=PAIRS, default=list(PAIRS))
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    warnings.simplefilter("ignore")
    config = read_study(ROOT / "config/paper.yaml")
    for task in args.tasks:
        model, images = PAIRS[task]
        library, build = THEIRS[task]
        settings = training_settings(config, "grouped", task, model)
        settings |= {"seed": 0, "batch_size": images, "micro_batch": images}
        with tempfile.TemporaryDirectory() as scratch, DefaultScope.overwrite_default_scope(None):
            folder = Path(scratch)
            write_files(folder)
            inputs = write_inputs(folder, task, settings["image_size"], 2 * IMAGES, 2)
            setup = prepared(task, inputs, settings)
            setup.model.train()
            found = compare(ours(task, folder, setup, images), build(folder, setup, images), args.rounds)
        print(f"{model}, {settings['image_size']} px, {images} images a step, against {library}:")
        for name, (here, there) in found.items():
            print(f"  {name}: {images / here:.1f} to {images / there:.1f} images/s, ratio {there / here:.2f}")


if __name__ == "__main__":
    main()
