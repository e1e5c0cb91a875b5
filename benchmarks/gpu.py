"""What each model of the paper's study costs on this machine's GPU, and whether it computes what a CPU does.

For each, at the paper's sizes and from random weights: training steps as the engine takes them, with loader,
augmentation, mixed precision and accumulation (images/s, memory, waits for the GPU, share of the measured
peak of matrix products, share of the time spent waiting for the loader); validation; predictions of one
image; the loss of one small step on the CPU, on the GPU and in mixed precision. Then trainings that are
stopped, killed and go on, and variants that may be faster. gpu.json is written after each, and tells a
failure beside the rest. Without a GPU: --small, which takes the demonstration's sizes.
"""

import argparse
import contextlib
import functools
import gc
import itertools
import json
import logging
import math
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import torch
from mmengine.logging import MMLogger
from mmengine.optim import OptimWrapper
from mmengine.registry import DefaultScope
from mmengine.runner.amp import autocast
from torch.utils.flop_counter import FlopCounterMode, conv_flop_count

from busflow.config import read_study, training_settings
from busflow.data.views import make_views
from busflow.engine import classification, detection, precision, provenance, segmentation, timing
from busflow.engine.checkpoints import load_weights
from busflow.engine.datasets import accumulation_steps, evaluation_loader, training_loader
from busflow.engine.training import Engine, Setup, as_trained
from busflow.files import write_json
from busflow.labels import LABELS, LESIONS
from busflow.models.detectors import MODELS, detector_config
from busflow.models.ops import MMCV_EXTENSION, torchvision_runs_on
from busflow.tasks import TASKS

ROOT = Path(__file__).parents[1]
CUDA = torch.cuda.is_available()
DEVICE = torch.device("cuda" if CUDA else "cpu")
START = time.monotonic()
# The dearest and least sure first.
ENGINES: dict[str, Engine] = {
    "detection": detection,
    "segmentation": segmentation,
    "classification": classification,
}
ROWS = 64  # distinct images; more samples than that share them
SIZE = (160, 120)  # of the original images in pixels
STEPS = 8  # timed micro-steps at least
GIB = 2**30
# Of the small step: the side of its images at most, and how far the losses in fp32 and in mixed precision may
# lie from the CPU's. A detector trains on a random choice of proposals, which rounding puts in another order.
SAME_STEP = {
    "classification": (96, 1e-3, 2e-2),
    "detection": (256, 2e-2, 1e-1),
    "segmentation": (128, 1e-3, 2e-2),
}
LOSS_SCALE = 1024  # keeps gradients in fp16 from vanishing
VARIANTS = [
    ("detection/detr_r50", {"micro_batch": 16}),
    ("detection/convnext_tiny", {"micro_batch": 8}),
    ("detection/convnext_small", {"micro_batch": 8}),
    ("detection/swin_base", {"micro_batch": 8}),
    ("classification/convnext_base", {"compile": True}),
    ("detection/convnext_small_rfla", {"compile": True}),
    ("detection/swin_base_rfla", {"compile": True}),
    ("segmentation/segformer_b4", {"compile": True}),
    ("classification/convnext_base", {"channels_last": True}),
    ("segmentation/convnext_tiny", {"channels_last": False}),
    ("detection/convnext_tiny", {"precision": "fp16"}),
    ("detection/detr_r50", {"precision": "fp16"}),
    ("segmentation/convnext_tiny", {"precision": "fp16"}),
    ("segmentation/segformer_b4", {"precision": "fp16"}),
    ("classification/convnext_base", {"precision": "fp16"}),
]
# Trainings of seconds that are stopped and killed: a model of the study, and what makes it small.
SHORT = {"epochs": 4, "batch_size": 4, "micro_batch": 2, "warmup_epochs": 0.5}
INTERRUPTED = {
    "classification": ("convnext_atto", {"image_size": 64}),
    "detection": (
        "convnext_small_rfla",
        {"image_size": 128, "backbone": "convnext_atto", "clip_grad": 10, "roi_samples": 32}
        | {"train_proposals": 100, "test_proposals": 100},
    ),
    "segmentation": ("segformer_b0", {"image_size": 64}),
}
STATUSES = [os.EX_TEMPFAIL, -signal.SIGKILL, 0]  # asked to stop, killed, finished


# ---- the study ----


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


def wrapped(setup: Setup, wanted: str = "auto") -> OptimWrapper:
    """The optimiser as a training has it, in the precision that is wanted."""
    settings, clip = setup.settings, setup.settings.get("clip_grad")
    options = {
        "optimizer": setup.optimizer,
        "accumulative_counts": accumulation_steps(settings["batch_size"], settings["micro_batch"]),
        "clip_grad": {"max_norm": clip} if clip else None,
    }
    return precision.wrap(precision.resolve(wanted), **options)


# ---- one model ----


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


# ---- the machine, pyramid levels, interruptions ----


def describe_machine() -> dict:
    record = provenance.run_record({}, {}, DEVICE, 0)
    record = {key: record[key] for key in ("git", "device", "threads", "python", "packages")}
    compiled = sys.modules.get(MMCV_EXTENSION)
    stands_in = type(compiled).__module__ == "busflow.models.ops"
    plain = "torchvision" if torchvision_runs_on(DEVICE.type) else "plain torch"
    record["operators"] = plain if stands_in else "compiled mmcv"
    if CUDA:
        card = torch.cuda.get_device_properties(DEVICE)
        query = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
        with contextlib.suppress(OSError, subprocess.CalledProcessError):
            done = subprocess.run(query, check=True, capture_output=True, text=True)
            record["driver"] = done.stdout.split("\n", 1)[0]
        record |= {"memory_gib": card.total_memory / GIB, "cuda": torch.version.cuda}
        record |= {"capability": f"{card.major}.{card.minor}", "cudnn": torch.backends.cudnn.version()}
    return record | {"gemm_tflops": gemm_tflops()}


def gemm_tflops() -> float:
    """Measured peak of matrix products, in half precision on a GPU."""
    size, dtype = (8192, torch.float16) if CUDA else (512, torch.float32)
    left, right = (torch.randn(size, size, dtype=dtype, device=DEVICE) for _ in range(2))

    def ten() -> None:
        for _ in range(10):
            left @ right

    return 20 * size**3 / timing.seconds(ten, DEVICE, 2, 5).min() / 1e12


def roi_levels(config: dict) -> dict:
    """The level of the pyramid that square RoIs are pooled from, by precision of the features."""
    with DefaultScope.overwrite_default_scope("mmdet"):
        settings = detector_config(settings_of(config, "detection", "convnext_tiny"))
        extractor = MODELS.build(settings.roi_head.bbox_roi_extractor).to(DEVICE)
    sides = [200, 220, 223, 225, 240, 250, 255, 257, 260, 300, 350, 400, 440, 447, 449, 460]
    rois = torch.tensor(
        [[0, 10, 10, 10 + side, 10 + side] for side in sides], dtype=torch.float, device=DEVICE
    )
    levels = {}
    for name in ("float32", "float16", "bfloat16"):
        dtype = getattr(torch, name)
        # Each level is filled with its number, so that what is pooled tells where from.
        maps = [
            torch.full(
                (1, settings.neck.out_channels, *[800 // stride] * 2),
                float(level),
                device=DEVICE,
                dtype=dtype,
            )
            for level, stride in enumerate(extractor.featmap_strides)
        ]
        half = dtype != torch.float32
        with torch.no_grad(), torch.autocast(DEVICE.type, dtype if half else None, enabled=half):
            levels[name] = extractor(maps, rois).float().mean(dim=(1, 2, 3)).round().int().tolist()
    wrong = {
        n: [s for s, a, b in zip(sides, levels["float32"], each, strict=True) if a != b]
        for n, each in levels.items()
    }
    return {"sides": sides, "levels": levels, "sides_at_another_level_than_in_float32": wrong}


def interruptions(config: dict, folder: Path, tasks: list[str], deadline: float) -> dict:
    """Trainings left alone, twice, and one that is asked to stop, then killed, then goes on."""
    chains = {"alone": [None], "again": [None], "cut": [signal.SIGTERM, signal.SIGKILL, None]}
    with ThreadPoolExecutor(max(1, (os.cpu_count() or 1) // 2)) as pool:
        started = {
            (task, name): pool.submit(training_runs, config, folder / task / name, task, stops, deadline)
            for task, (name, stops) in itertools.product(tasks, chains.items())
        }
    return {
        task: compare_runs(folder / task, {name: started[task, name].result() for name in chains})
        for task in tasks
    }


def training_runs(config: dict, folder: Path, task: str, stops: list, deadline: float) -> list[int]:
    """Exit statuses of the processes of one training; each is sent its stop once it saved two states."""
    model, small = INTERRUPTED[task]
    settings = settings_of(config, task, model) | SHORT | small
    inputs = write_inputs(folder, task, settings["image_size"], 4 * settings["batch_size"], 4)
    options = {role.replace("_", "-"): path for role, path in inputs.items()}
    options |= {"task": task, "settings": json.dumps(settings), "seed": 0, "gpus": int(CUDA)}
    options |= {key: config["compute"][key] for key in ("threads", "workers")}
    options |= {"origin": "{}", "state": folder / "state", "output": folder}
    options["checkpoint-interval"] = 0 if len(stops) > 1 else 10**9
    command = [
        sys.executable,
        ROOT / "scripts/train.py",
        *(f"--{name}={value}" for name, value in options.items()),
    ]
    paths = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    # In a scheduler's job no GPU is leased: these trainings share one.
    environment = os.environ | {"PYTHONPATH": paths, "SLURM_JOB_ID": "0"}
    statuses = []
    for stop in stops:
        before = seen = set(folder.glob("state/*/state-*.pth"))
        waiting = stop is not None
        with (folder / "log").open("a") as log:
            process = subprocess.Popen(command, stdout=log, stderr=log, env=environment)
            while process.poll() is None:
                seen = seen | set(folder.glob("state/*/state-*.pth"))
                if waiting and len(seen - before) >= 2:
                    process.send_signal(stop)
                    waiting = False
                if time.monotonic() > deadline:
                    process.kill()
                time.sleep(0.02)
        statuses.append(process.returncode)
    return statuses


def compare_runs(folder: Path, statuses: dict[str, list[int]]) -> dict:
    """Whether the weights of the training that was cut are those of the one left alone."""
    row = {
        "exit_statuses": statuses,
        "as_expected": statuses == {"alone": [0], "again": [0], "cut": STATUSES},
    }
    if not row["as_expected"]:
        logs = {name: (folder / name / "log").read_text() for name in statuses}
        return row | {"said": {name: text.splitlines()[-4:] for name, text in logs.items()}}
    weights = {name: load_weights(folder / name / "weights.pth")["state_dict"] for name in statuses}
    for name in ("again", "cut"):
        pairs = [(weights["alone"][key], weights[name][key]) for key in weights["alone"]]
        row[f"{name}_same_bits"] = all(torch.equal(one, other) for one, other in pairs)
        row[f"{name}_apart"] = max((one.double() - other.double()).abs().max().item() for one, other in pairs)
    losses = {n: pd.read_csv(folder / n / "history.csv")["train_loss"].tolist() for n in statuses}
    return row | {"train_losses": losses}


# ---- all of them ----


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--only", nargs="+", help="task/model, variants as the table names them, levels, interruptions"
    )
    parser.add_argument("--budget", type=float, default=10**6, help="seconds; what does not fit is named")
    parser.add_argument("--small", action="store_true", help="the demonstration's sizes")
    parser.add_argument("--output", type=Path, default=Path("results/benchmarks"), help="folder of gpu.json")
    args = parser.parse_args()
    if not (CUDA or args.small):  # as in make bench on any machine
        print("there is no GPU here; --small measures the demonstration's sizes on the CPU")
        return
    MMLogger.get_instance("mmengine").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore")
    config = read_study(*([] if args.small else [Path("config/paper.yaml")]))
    args.output.mkdir(parents=True, exist_ok=True)
    result = {"machine": describe_machine(), "rows": {}, "left_out": []}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        offered = jobs(config, folder, args)
        if unknown := sorted(set(args.only or ()) - offered.keys()):
            parser.error(f"there is no {unknown[0]}; there are {', '.join(offered)}")
        for name in args.only or offered:
            call, price = offered[name]
            if time.monotonic() - START + price > args.budget:
                result["left_out"].append(name)
                continue
            start = time.monotonic()
            row = result["rows"][name] = attempt(call)
            row["seconds"] = time.monotonic() - start
            if "images_per_s" in row:
                tflops = 1e-3 * row["gflop_per_image"] * row["images_per_s"]
                row["share_of_gemm"] = tflops / result["machine"]["gemm_tflops"]
            result["seconds"] = time.monotonic() - START
            write_json(args.output / "gpu.json", finite_only(result))
            print(f"{result['seconds']:6.0f} s  {name} {row.get('error', '')}", flush=True)
    write_json(args.output / "gpu.json", finite_only(result))
    print_table(result)


def jobs(config: dict, folder: Path, args: argparse.Namespace) -> dict[str, tuple[Callable[[], dict], float]]:
    """By name: what to call, and its seconds on a GPU, roughly."""
    measured = {
        task: {
            f"{task}/{model}": (functools.partial(measure_model, config, folder, f"{task}/{model}"), 12)
            for model in reversed(config["models"][task])  # the dearest first
        }
        for task in ENGINES
    }
    variants = {
        " ".join([name, *(f"{key}={value}" for key, value in variant.items())]): (
            functools.partial(measure_model, config, folder, name, variant),
            10,
        )
        for name, variant in VARIANTS
    }
    deadline = START + args.budget - 10
    tasks = ["classification"] if args.small else list(INTERRUPTED)
    return {
        "levels": (functools.partial(roi_levels, config), 3),
        **measured["detection"],
        **measured["segmentation"],
        "interruptions": (functools.partial(interruptions, config, folder, tasks, deadline), 75),
        **measured["classification"],
        **variants,
    }


def finite_only(value: object) -> object:
    """JSON has no word for NaN and infinity: they become text."""
    if isinstance(value, dict):
        return {key: finite_only(each) for key, each in value.items()}
    if isinstance(value, list):
        return [finite_only(each) for each in value]
    return value if not isinstance(value, float) or math.isfinite(value) else str(value)


def attempt(call: Callable[[], dict]) -> dict:
    """What a call returns, or what went wrong; the GPU's memory is free again afterwards."""
    try:
        return call()
    except Exception as error:
        last = traceback.format_exception(error, limit=-5)
        return {"error": f"{type(error).__name__}: {error}"[:300], "traceback": "".join(last)[-2000:]}
    finally:
        gc.collect()
        if CUDA:
            torch.cuda.empty_cache()


COLUMNS = [
    *(
        ("batch", "micro_batch"),
        ("x", "accumulation"),
        ("ms", "ms_per_micro_step"),
        ("img/s", "images_per_s"),
    ),
    *(("GiB", "peak_gib"), ("resv", "peak_reserved_gib"), ("waits", "waits_per_micro_step")),
    *(("gemm", "share_of_gemm"), ("load", "loader_share"), ("host", "host_share")),
    *(("val/s", "validation_images_per_s"), ("ms@1", "prediction_ms"), ("fin", "finite")),
    *(("gpu", "gpu_apart"), ("amp", "amp_apart"), ("agree", "agrees"), ("s", "seconds")),
]


def print_table(result: dict) -> None:
    machine, rows = result["machine"], result["rows"]
    print(json.dumps({key: value for key, value in machine.items() if key != "packages"}))
    print(f"{'':36}" + "".join(f"{title:>7}" for title, _ in COLUMNS))
    for name, row in rows.items():
        if "images_per_s" in row:
            flat = row | row.get("same_step", {})
            print(f"{name[:36]:36}" + "".join(f"{cell(flat.get(key)):>7}" for _, key in COLUMNS))
    for name, row in rows.items():
        if "images_per_s" not in row:
            print(f"{name}: {row['error'] if 'error' in row else json.dumps(row)}")
    if result["left_out"]:
        print(f"left out, for want of time: {', '.join(result['left_out'])}")


def cell(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "NO"
    return (
        f"{value:.3g}" if isinstance(value, float) and abs(value) < 1000 else str(value or "-").split(".")[0]
    )


if __name__ == "__main__":
    main()
