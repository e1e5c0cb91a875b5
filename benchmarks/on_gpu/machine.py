"""The machine, its peak rate, and a fault of half precision that it may have."""

import contextlib
import subprocess
import sys

import torch
from mmdet.registry import MODELS
from mmengine.registry import DefaultScope

from busflow.engine import provenance, timing
from busflow.models.detectors import detector_config
from busflow.models.ops import MMCV_EXTENSION, torchvision_runs_on

from .inputs import CUDA, DEVICE, GIB, settings_of


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
