"""Whether a GPU computes what a CPU does: one small step on both."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

import torch
from mmengine.optim import OptimWrapper

from busflow.engine import precision
from busflow.engine.training import Setup

from .inputs import CUDA, DEVICE, ENGINES, write_inputs

# The side of the images at most, and how far the losses in fp32 and in mixed precision may lie from the
# CPU's. A detector trains on a random choice of proposals, which rounding puts in another order.
SAME_STEP = {
    "classification": (96, 1e-3, 2e-2),
    "detection": (256, 2e-2, 1e-1),
    "segmentation": (128, 1e-3, 2e-2),
}
LOSS_SCALE = 1024  # keeps gradients in fp16 from vanishing


def same_step(task: str, setup: Setup, folder: Path) -> dict:
    """Loss and norm of the gradient of one small step, on the CPU in fp32, and on the GPU in fp32 and mixed.

    Nothing is random in it but what detectors draw, which they do on the CPU.
    """
    most, fp32, mixed = SAME_STEP[task]
    side = min(most, setup.settings["image_size"])
    data = ENGINES[task].read(write_inputs(folder, task, side, 4, 4), "train")
    model, found = setup.model.train(), {}
    plain = OptimWrapper(optimizer=setup.optimizer)
    ways = {"cpu": ("cpu", plain)} | (
        {
            "gpu": (DEVICE, plain),
            "amp": (DEVICE, precision.wrap(precision.resolve("auto"), optimizer=setup.optimizer)),
        }
        if CUDA
        else {}
    )
    with without_tf32(), nothing_dropped(model):
        for way, (device, wrapper) in ways.items():
            model.to(device)
            torch.manual_seed(0)
            with wrapper.optim_context(model):
                inputs = model.data_preprocessor(data.__getitems__([0, 1]), False)
                losses = model(**inputs, mode="loss")
            loss, _ = model.parse_losses(losses)
            (loss * LOSS_SCALE).backward()
            gradients = [each.grad for each in model.parameters() if each.grad is not None]
            norm = torch.stack([each.double().norm() for each in gradients]).norm().item() / LOSS_SCALE
            found |= {way: loss.item(), f"{way}_gradient": norm}
            setup.optimizer.zero_grad()
    for way, limit in (("gpu", fp32), ("amp", mixed)) if CUDA else ():
        for key in (way, f"{way}_gradient"):
            reference = found[key.replace(way, "cpu")]
            found[f"{key}_apart"] = abs(found[key] - reference) / max(abs(reference), 1e-9)
        found[f"{way}_limit"] = limit
    found["agrees"] = all(
        found[f"{way}_apart"] <= found[f"{way}_limit"] for way in found.keys() & {"gpu", "amp"}
    )
    return found


@contextlib.contextmanager
def without_tf32() -> Iterator[None]:
    """Convolutions in fp32 as in scripts/predict.py; products of matrices are so anyway."""
    torch.backends.cudnn.allow_tf32 = False
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32 = True


@contextlib.contextmanager
def nothing_dropped(model: torch.nn.Module) -> Iterator[None]:
    """A model in training mode without dropout and stochastic depth."""
    rates = [
        (module, name, rate)
        for module in model.modules()
        for name in ("p", "drop_prob", "dropout")  # of nn.Dropout, DropPath and nn.MultiheadAttention
        if isinstance(rate := getattr(module, name, None), float)
    ]
    for module, name, _ in rates:
        setattr(module, name, 0.0)
    try:
        yield
    finally:
        for module, name, rate in rates:
            setattr(module, name, rate)
