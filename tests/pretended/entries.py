"""The models of the paper's study on the pretended GPU: a training that is cut and goes on, and predictions.

As few layers of each kind as it takes, and few channels: what goes wrong on a GPU does so at any size.
"""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import NamedTuple
from unittest import mock

import timm
import torch
from mmengine.config import ConfigDict
from mmengine.model import BaseModel

from benchmarks.on_gpu.inputs import ENGINES, settings_of, write_inputs
from busflow.config import read_study
from busflow.engine import training
from busflow.engine.hooks import RandomnessHook
from busflow.models import detectors, segmenters
from busflow.models.published import published_model
from pretended.card import card
from pretended.ledger import Ledger

# One of each kind: ``kind`` tells what makes one.
KINDS = {
    "classification": ("convnext_atto", "convnext_tiny"),
    "segmentation": ("segformer_b0", "convnext_tiny"),
    "detection": (
        *("convnext_tiny", "swin_base", "detr_r50"),
        *("convnext_small_rfla", "swin_base_rfla", "swin_base_detectors_rfla"),
    ),
}
CONFIG = read_study(Path("config/paper.yaml"))
SIDE = 64  # px
SMALL = {
    **{"image_size": SIDE, "epochs": 2, "validation_interval": 1, "milestones": [], "warmup_epochs": 0.5},
    **{"batch_size": 4, "reference_batch": 4, "micro_batch": 2, "clip_grad": 1.0},
}
SMALL_DETECTOR = {"roi_samples": 16, "train_proposals": 50, "test_proposals": 50}
IMAGES = (4, 3)  # of the training, and held out
STEPS = IMAGES[0] // SMALL["micro_batch"]  # of an epoch
ORIGIN = {"study": "test", "notice": None, "protocol": "grouped", "model": "narrow", "seed": 0, "sources": []}
CONVNEXT = {"depths": (1, 1, 2, 1), "dims": (8, 16, 32, 64)}
SWIN = {"embed_dims": 16, "depths": [1, 1, 2, 1], "num_heads": [1, 2, 4, 8], "window_size": 7}


class PowerCutError(Exception):
    pass


class Run(NamedTuple):
    """What a run left.

    Attributes:
        output: folder of what it published and predicted.
        steps: of each training batch, in order, those that were repeated too.
        settled: of them those that are not the first of their process, which makes what it keeps.
        resumed: number of the training batch that it went on with.
    """

    output: Path
    steps: list[Ledger]
    settled: list[Ledger]
    resumed: int


def settings(task: str, model: str) -> dict:
    """Of an entry of config/paper.yaml, small."""
    entry = settings_of(CONFIG, task, model) | SMALL
    return entry | SMALL_DETECTOR if task == "detection" else entry


@contextlib.contextmanager
def narrow() -> Iterator[None]:
    """Networks that are built within have few channels."""
    create = timm.create_model

    def create_narrow(name: str, **options) -> torch.nn.Module:
        return create(name, **options, **(CONVNEXT if name.startswith("convnext") else {}))

    def published_narrow(library: ModuleType, name: str) -> ConfigDict:
        config = published_model(library, name)
        if config.type == "CascadeRCNN":
            for head in config.roi_head.bbox_head:
                head.fc_out_channels = 32
        elif config.type == "DETR":
            config.backbone.base_channels = 8
            config.neck.in_channels = [32 * config.backbone.base_channels]
            for part in (config.encoder, config.decoder):
                part.layer_cfg.ffn_cfg.feedforward_channels = 64
        else:
            for head in (config.decode_head, config.get("auxiliary_head", {})):
                head["channels"] = 32
            if config.backbone.type == "MixVisionTransformer":
                config.backbone.update(embed_dims=8, num_layers=[1, 1, 1, 1])
                config.decode_head.in_channels = [8 * heads for heads in config.backbone.num_heads]
        return config

    with (
        mock.patch.object(timm, "create_model", create_narrow),
        mock.patch.object(detectors, "published_model", published_narrow),
        mock.patch.object(segmenters, "published_model", published_narrow),
        mock.patch.dict(detectors.SWINS, swin_base=SWIN),
    ):
        yield


def kind(task: str, model: str) -> tuple:
    """What an entry does on a GPU: the classes of its network's modules, and how it is trained."""
    entry = settings(task, model)
    if entry.get("assigner") == "rfla":
        entry["prior_sides"] = [8.0, 16.0, 32.0, 64.0, 128.0]
    with narrow():
        if task == "classification":
            network = ENGINES[task].build_network(entry["timm"], options=entry["network"])
        else:
            network = ENGINES[task].build_network(entry)
    modules = tuple(type(module).__qualname__ for module in network.modules())
    choices = ("optimizer", "detector", "assigner", "neck", "segmenter", "balance_classes")
    return modules, tuple(entry.get(key) for key in choices)


def run(task: str, model: str, folder: Path) -> Run:
    """Train on the pretended GPU, cut within the last epoch, go on to the end, then predict the test split.

    All through the engine's own functions.
    """
    engine, entry, output = ENGINES[task], settings(task, model), folder / "output"
    inputs = write_inputs(folder, task, SIDE, *IMAGES)
    steps: list[Ledger] = []
    with narrow(), card() as ledger, _counted(ledger, steps):
        with contextlib.suppress(PowerCutError), _cut(STEPS):
            train(engine, inputs, entry, folder, output)
        before = len(steps)
        train(engine, inputs, entry, folder, output)
        inputs["test"] = inputs["images"].with_name("test.json")
        timing = {"batch": 2, "warmup": 1, "iterations": 2}
        engine.predict(inputs, output / "weights.pth", timing, output)
    settled = [*steps[1:before], *steps[before + 1 :]]
    return Run(output, steps, settled, resumed=2 * STEPS - (len(steps) - before))


def train(engine: training.Engine, inputs: dict, entry: dict, folder: Path, output: Path) -> None:
    """States after every step of the optimiser and every validation."""
    compute = {"workers": 0, "checkpoint_interval": 0}
    roles = {role: path for role, path in inputs.items() if role != "test"}
    training.train(engine, roles, entry, 0, ORIGIN, compute, folder / "state", output)


@contextlib.contextmanager
def _counted(ledger: Ledger, steps: list[Ledger]) -> Iterator[None]:
    """Writes down each training step by itself: both passes and, where it is due, the optimiser's part."""
    train_step = BaseModel.train_step

    def counted(*args, **kwargs):
        ledger.clear()
        losses = train_step(*args, **kwargs)
        steps.append(ledger.copy())
        return losses

    with mock.patch.object(BaseModel, "train_step", counted):
        yield


@contextlib.contextmanager
def _cut(step: int) -> Iterator[None]:
    """The training ends in the middle of this batch, counted from zero."""

    def cut(hook, runner, batch_idx, data_batch=None, outputs=None):
        if runner.iter == step:
            raise PowerCutError

    with mock.patch.object(RandomnessHook, "after_train_iter", cut):
        yield
