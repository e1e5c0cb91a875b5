"""Seconds of RoIAlign and NMS in plain torch, and of what else there is, on the same boxes of one run.

Compared are torchvision's compiled operators where they run on the CPU; RoIAlign as a grid_sample followed by
avg_pool2d (with a fixed number of samples, the only way that it can); and NMS one box after the other.
Rounds alternate between the forms, so that a busy machine slows all. One thread.
"""

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from torch.nn import functional

from busflow.models.nms import nms
from busflow.models.ops import torchvision_runs_on
from busflow.models.roi_align import roi_align, roi_align_backward

SIZE, SCALE = (7, 7), 1 / 4  # the finest level of a feature pyramid, as detectors pool it
SAMPLES = 2


def random_boxes(n: int, extent: float, largest: float, generator: torch.Generator) -> torch.Tensor:
    sides = 8 + torch.rand(n, 2, generator=generator) * (largest - 8)
    corners = torch.rand(n, 2, generator=generator) * (extent - sides)
    return torch.cat([corners, corners + sides], 1)


def grid_sample_roi_align(features: torch.Tensor, rois: torch.Tensor) -> torch.Tensor:
    """RoIAlign (aligned) of one image's RoIs within its borders."""
    height, width = features.shape[2:]
    x1, y1, x2, y2 = (rois[:, 1:] * SCALE).T[..., None]
    x = x1 + (x2 - x1) * (torch.arange(SIZE[1] * SAMPLES) + 0.5) / (SIZE[1] * SAMPLES)
    y = y1 + (y2 - y1) * (torch.arange(SIZE[0] * SAMPLES) + 0.5) / (SIZE[0] * SAMPLES)
    shape = (len(rois), y.shape[1], x.shape[1])
    grid = torch.stack(
        [(x * 2 / width - 1)[:, None].expand(shape), (y * 2 / height - 1)[..., None].expand(shape)], -1
    )
    samples = functional.grid_sample(
        features, grid.flatten(0, 1)[None], padding_mode="border", align_corners=False
    )
    return functional.avg_pool2d(samples, SAMPLES).unflatten(2, (-1, SIZE[0]))[0].transpose(0, 1)


def nms_one_by_one(boxes: torch.Tensor, scores: torch.Tensor, threshold: float) -> torch.Tensor:
    areas = (boxes[:, 2:] - boxes[:, :2]).prod(1)
    rest, kept = scores.argsort(descending=True, stable=True), []
    while len(rest):
        best, rest = rest[0], rest[1:]
        kept.append(best)
        sides = torch.minimum(boxes[best, 2:], boxes[rest, 2:]) - torch.maximum(
            boxes[best, :2], boxes[rest, :2]
        )
        shared = sides.clamp(min=0).prod(1)
        rest = rest[shared / (areas[best] + areas[rest] - shared) <= threshold]
    return torch.stack(kept)


def milliseconds(forms: dict[str, Callable], rounds: int) -> dict[str, float]:
    times = {name: [] for name in forms}
    for _ in range(rounds + 1):  # the first warms up
        for name, form in forms.items():
            start = time.perf_counter()
            form()
            times[name].append((time.perf_counter() - start) * 1000)
    return {name: statistics.median(values[1:]) for name, values in times.items()}


def report(title: str, times: dict[str, float]) -> None:
    plain = times.pop("plain torch")
    others = "; ".join(f"{name} {ms:.1f} ms, ÷ plain {ms / plain:.2f}" for name, ms in times.items())
    print(f"{title}: plain torch {plain:.1f} ms; {others}")


def benchmark_roi_align(side: int, n: int, rounds: int) -> None:
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(1, 256, side, side, generator=generator)
    extent = side / SCALE
    boxes = random_boxes(n, extent, min(extent, 112), generator)  # pyramids pool larger RoIs at other levels
    rois = torch.cat([torch.zeros(n, 1), boxes], 1)
    gradient = torch.randn(n, 256, *SIZE, generator=generator)
    options = (SCALE, SAMPLES, True)
    assert torch.allclose(
        roi_align(features, rois, SIZE, *options), grid_sample_roi_align(features, rois), atol=1e-4
    )

    def plain() -> None:
        roi_align(features, rois, SIZE, *options)
        roi_align_backward(gradient, rois, features.shape, *options)

    def grid_sample() -> None:
        inputs = features.clone().requires_grad_()
        grid_sample_roi_align(inputs, rois).backward(gradient)

    def compiled() -> None:
        torch.ops.torchvision.roi_align(features, rois, SCALE, *SIZE, SAMPLES, True)
        torch.ops.torchvision._roi_align_backward(
            gradient, rois, SCALE, *SIZE, *features.shape, SAMPLES, True
        )

    forms = {"plain torch": plain, "grid_sample": grid_sample}
    if torchvision_runs_on("cpu"):
        forms["torchvision"] = compiled
    report(f"RoIAlign and its gradient, {n} RoIs on 256 x {side} x {side}", milliseconds(forms, rounds))


def benchmark_nms(n: int, rounds: int) -> None:
    generator = torch.Generator().manual_seed(0)
    boxes = random_boxes(n, 300, 100, generator)
    scores = torch.rand(n, generator=generator)
    forms = {
        "plain torch": lambda: nms(boxes, scores, 0.7),
        "one by one": lambda: nms_one_by_one(boxes, scores, 0.7),
    }
    if torchvision_runs_on("cpu"):
        forms["torchvision"] = lambda: torch.ops.torchvision.nms(boxes, scores, 0.7)
    kept = [form() for form in forms.values()]
    assert all(torch.equal(kept[0], other) for other in kept)
    report(f"NMS, {n} boxes of which {len(kept[0])} stay", milliseconds(forms, rounds))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    args = parser.parse_args()
    torch.set_num_threads(1)
    benchmark_roi_align(24, 64, args.rounds)
    benchmark_roi_align(24, 512, args.rounds)
    benchmark_roi_align(200, 512, args.rounds)
    for n in (1000, 2000, 8000):
        benchmark_nms(n, args.rounds)


if __name__ == "__main__":
    main()
