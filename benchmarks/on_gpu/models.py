"""What a model of the study costs: steps of its training, validation, predictions of one image."""

import contextlib
import functools
import statistics
import time
import warnings
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from mmengine.runner.amp import autocast
from torch.utils.flop_counter import FlopCounterMode, conv_flop_count

from busflow.engine import precision, timing
from busflow.engine.datasets import accumulation_steps, evaluation_loader, training_loader
from busflow.engine.training import Setup, as_trained

from .attempts import attempt
from .inputs import CUDA, DEVICE, ENGINES, GIB, SIZE, prepared, settings_of, wrapped, write_inputs
from .same_step import same_step, without_tf32

STEPS = 8  # timed micro-steps at least


def measure_model(config: dict, folder: Path, name: str, variant: dict | None = None) -> dict:
    """All figures of a model; of a variant, those of its training alone."""
    task, _, model = name.partition("/")
    settings = settings_of(config, task, model) | {"seed": 0} | (variant or {})
    parts = accumulation_steps(settings["batch_size"], settings["micro_batch"])
    cycles = -(-STEPS // parts)  # steps of the optimiser that are timed
    micro, side = settings["batch_size"] // parts, settings["image_size"]
    samples = settings["batch_size"] * (cycles + 3)
    inputs = write_inputs(folder, task, side, samples, 3 * micro)
    setup = prepared(task, inputs, settings)
    parameters = sum(parameter.numel() for parameter in setup.model.parameters())
    row = {"side": side, "micro_batch": micro, "accumulation": parts, "parameters": parameters}
    if variant is None:
        row["same_step"] = attempt(functools.partial(same_step, task, setup, folder))
    as_trained(setup).to(DEVICE).train()
    row |= training_steps(task, inputs, setup, settings["precision"], config["compute"], cycles)
    if variant is None:
        row |= predictions(task, inputs, setup, micro)
    return row


def training_steps(task: str, inputs: dict, setup: Setup, wanted: str, compute: dict, cycles: int) -> dict:
    """Whole steps of the optimiser: one untimed, ``cycles`` timed, one for FLOPs and one for waits."""
    settings, wrapper = setup.settings, wrapped(setup, wanted)
    batch, micro = settings["batch_size"], settings["micro_batch"]
    parts = accumulation_steps(batch, micro)
    data = ENGINES[task].read(inputs, "train")
    batches = iter(training_loader(data, batch, micro, settings["seed"], compute["workers"]))
    reset_peak()
    waited, losses = 0.0, []

    def step() -> None:
        nonlocal waited
        before = time.perf_counter()
        images = next(batches)
        waited += time.perf_counter() - before
        losses.append(setup.model.train_step(images, wrapper)["loss"].detach())

    def repeat(times: int) -> None:
        for _ in range(times):
            step()

    repeat(parts)
    synchronize()
    waited, start = 0.0, time.perf_counter()
    repeat(cycles * parts)
    submitted = time.perf_counter() - start
    synchronize()
    seconds = time.perf_counter() - start
    steps, micro = cycles * parts, batch // parts
    row = {
        "ms_per_micro_step": 1e3 * seconds / steps,
        "images_per_s": steps * micro / seconds,
        "loader_share": waited / seconds,
        "host_share": submitted / seconds,  # near 1: the GPU waits for the host
        **peak("peak"),
    }
    with FlopCounterMode(display=False, custom_mapping=FORMULAS) as counter:
        step()
    row["gflop_per_image"] = counter.get_total_flops() / micro / 1e9
    if CUDA:
        with waits() as lines:
            repeat(parts)
        row["waits_per_micro_step"] = lines.total() / parts
        row["waits"] = {line: count / parts for line, count in lines.most_common(12)}
    values = torch.stack(losses).float().tolist()
    row |= {"first_loss": values[0], "last_loss": values[-1], "finite": bool(np.isfinite(values).all())}
    if hasattr(wrapper, "loss_scaler"):
        row["loss_scale"] = wrapper.loss_scaler.get_scale()  # below 65536: steps were skipped
    return row


def gradients_of_convolution(
    gradient: list[int],
    inputs: list[int],
    weights: list[int],
    *others: object,
    out_shape: object,
    **rest: object,
) -> int:
    """FLOPs of the backward pass of a convolution, from shapes: those of the forward pass for each gradient.

    torch's own formula leaves the groups out, and counts a depthwise one hundreds of times too much.
    """
    transposed, wanted = others[4], others[7]
    return sum(wanted[:2]) * conv_flop_count(inputs, weights, gradient, transposed)


FORMULAS = {torch.ops.aten.convolution_backward: gradients_of_convolution}


@contextlib.contextmanager
def waits() -> Iterator[Counter]:
    """Counts the lines at which the host waits for the GPU."""
    lines: Counter[str] = Counter()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            yield lines
        finally:
            torch.cuda.set_sync_debug_mode("default")
    for each in caught:
        if "called a synchronizing" in str(each.message):
            lines[f"{'/'.join(Path(each.filename).parts[-3:])}:{each.lineno}"] += 1


@torch.inference_mode()
def predictions(task: str, inputs: dict, setup: Setup, micro: int) -> dict:
    """Validation with its metric, as in training; then single images, as scripts/predict.py takes them.

    The training before has set the precision.
    """
    engine, model, data = ENGINES[task], setup.model.eval(), ENGINES[task].read(inputs, "val")
    reset_peak()

    def validate(batch: dict) -> None:
        with autocast(enabled=precision.resolve("auto") != "fp32"):
            found = model.val_step(batch)
        setup.validation.process(batch, found)

    seconds = timing.seconds_of_each(validate, evaluation_loader(data, micro, workers=0), DEVICE)
    row = {"validation_images_per_s": micro / statistics.median(seconds[1:]), **peak("validation_peak")}
    single = next(iter(evaluation_loader(data, 1, workers=0)))
    more = SIZE if task == "segmentation" else ()
    with without_tf32():
        times = timing.seconds(lambda: engine.infer(model, single, *more), DEVICE, 3, STEPS)
    return row | {"prediction_ms": 1e3 * statistics.median(times)}


def synchronize() -> None:
    if CUDA:
        torch.cuda.synchronize()


def reset_peak() -> None:
    if CUDA:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


def peak(name: str) -> dict:
    if not CUDA:
        return {}
    allocated, reserved = torch.cuda.max_memory_allocated(), torch.cuda.max_memory_reserved()
    return {f"{name}_gib": allocated / GIB, f"{name}_reserved_gib": reserved / GIB}
