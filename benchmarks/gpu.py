"""What each model of the paper's study costs on this machine's GPU, and whether it computes what a CPU does.

For each, at the paper's sizes and from random weights: training steps as the engine takes them, with loader,
augmentation, mixed precision and accumulation (images/s, memory, waits for the GPU, share of the measured
peak of matrix products, share of the time spent waiting for the loader); validation; predictions of one
image; the loss of one small step on the CPU, on the GPU and in mixed precision. Then trainings that are
stopped, killed and go on, and variants that may be faster. gpu.json is written after each, and tells a
failure beside the rest. Without a GPU: --small, which takes the demonstration's sizes.
"""

import argparse
import functools
import json
import logging
import math
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path

from mmengine.logging import MMLogger
from on_gpu.attempts import attempt
from on_gpu.inputs import CUDA, ENGINES
from on_gpu.interruptions import INTERRUPTED, interruptions
from on_gpu.machine import describe_machine, roi_levels
from on_gpu.models import measure_model

from busflow.config import read_study
from busflow.files import write_json

START = time.monotonic()
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
