"""How long a prediction takes: warmed up, synchronised, one image at a time and in batches."""

import platform
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import torch


def device_name(device: torch.device) -> str:
    """The GPU's name, or the processor's."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    try:
        with Path("/proc/cpuinfo").open(encoding="utf-8") as file:
            return next(line.split(":")[1].strip() for line in file if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def seconds(call: Callable[[], object], device: torch.device, warmup: int, iterations: int) -> np.ndarray:
    """Wall seconds [iterations] of each call, with the device idle before and after it."""
    return seconds_of_each(lambda _: call(), range(warmup + iterations), device)[warmup:]


def seconds_of_each(
    call: Callable[[object], object], inputs: Iterable[object], device: torch.device
) -> np.ndarray:
    """Wall seconds of each input's call, with the device idle before and after it; reading is not timed."""
    times = []
    for each in inputs:
        _synchronize(device)
        start = time.perf_counter()
        call(each)
        _synchronize(device)
        times.append(time.perf_counter() - start)
    return np.array(times)


def measure(
    predict: Callable[[int], object], device: torch.device, batch: int, warmup: int, iterations: int
) -> dict:
    """Latency at batch 1 and throughput at ``batch``.

    Args:
        predict: called with a number of images, predicts for that many.
        warmup, iterations: untimed and timed calls of each.

    Returns:
        ``{"warmup", "latency": {"batch": 1, "n", "mean_ms", "p50_ms", "p95_ms", "p99_ms"},
        "throughput": {"batch", "n", "images_per_s"}}``; the throughput is that of the median batch.
    """
    single = seconds(lambda: predict(1), device, warmup, iterations)
    many = seconds(lambda: predict(batch), device, max(1, warmup // 4), max(3, iterations // 4))
    return {
        "warmup": warmup,
        "latency": latency(single),
        "throughput": {"batch": batch, "n": len(many), "images_per_s": float(batch / np.median(many))},
    }


def latency(single: np.ndarray) -> dict:
    """Mean and percentiles of the seconds [n] that single images took."""
    p50, p95, p99 = np.percentile(1e3 * single, [50, 95, 99])
    return {
        "batch": 1,
        "n": len(single),
        "mean_ms": float(1e3 * single.mean()),
        "p50_ms": float(p50),
        "p95_ms": float(p95),
        "p99_ms": float(p99),
    }


def _synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
