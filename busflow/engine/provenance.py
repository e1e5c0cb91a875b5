"""What a result was made from: code, configuration, packages, device and data."""

import hashlib
import importlib.metadata
import json
import platform
import subprocess
from pathlib import Path

import torch

from busflow.engine.timing import device_name
from busflow.files import sha256

PACKAGES = (
    "torch",
    "torchvision",
    "timm",
    "onedl-mmengine",
    "onedl-mmcv",
    "onedl-mmdetection",
    "onedl-mmsegmentation",
    "faster-coco-eval",
    "numpy",
    "pandas",
    "scikit-learn",
    "scipy",
)

METRICS = ("metrics/calibration.py", "metrics/confusion.py")  # what trainings run of them


def describe_inputs(inputs: dict[str, Path]) -> dict[str, dict[str, str]]:
    """``{"path", "sha256"}`` of the files, or folders of PNGs, that a result depends on, by role."""
    return {role: {"path": str(path), "sha256": _contents(path)} for role, path in inputs.items()}


def identity(settings: dict, inputs: dict[str, dict[str, str]]) -> str:
    """Twelve hex digits that stand for a configuration, the contents of its inputs, and the code.

    A training never goes on from the state that another code left. Where the files lie does not matter, nor
    how many images a step takes at once: their gradients are summed up to the same batch. (A network that
    normalises over these images learns with other statistics; the record has how many they were.)
    """
    settings = {key: value for key, value in settings.items() if key != "micro_batch"}
    contents = {role: description["sha256"] for role, description in inputs.items()}
    text = json.dumps([settings, contents, _code(), versions()], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def run_record(
    settings: dict, inputs: dict[str, dict[str, str]], device: torch.device, seconds: float
) -> dict:
    """The content of ``run.json``.

    Args:
        settings: the resolved configuration of the run.
        inputs: from ``describe_inputs``.
        device: that the run used.
        seconds: spent in training, interruptions not counted.
    """
    return {
        "git": git_state(Path(__file__).parent),
        "settings": settings,
        "inputs": inputs,
        "device": device_name(device),
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "packages": versions(),
        "seconds": round(seconds, 3),
    }


def git_state(folder: Path) -> dict:
    """``{"commit", "dirty"}`` of the checkout that holds ``folder``; nulls outside of one."""
    try:
        commit = _git(folder, "rev-parse", "HEAD")
        return {"commit": commit, "dirty": bool(_git(folder, "status", "--porcelain"))}
    except (OSError, subprocess.CalledProcessError):
        return {"commit": None, "dirty": None}


def _code() -> dict[str, str]:
    """Hashes of the library files that a training may run."""
    library = Path(__file__).parents[1]
    return {
        file.relative_to(library).as_posix(): sha256(file)
        for files in ("data/*.py", "engine/*.py", "models/*.py", *METRICS)
        for file in library.glob(files)
    }


def versions() -> dict[str, str]:
    """Of the packages that results depend on."""
    return {name: importlib.metadata.version(name) for name in PACKAGES}


def _contents(path: Path) -> str:
    if not path.is_dir():
        return sha256(path)
    # PNGs alone: a workflow engine may leave files of its own in a folder that it made.
    files = {file.relative_to(path).as_posix(): sha256(file) for file in path.rglob("*.png")}
    return hashlib.sha256(json.dumps(files, sort_keys=True).encode()).hexdigest()


def _git(folder: Path, *arguments: str) -> str:
    return subprocess.run(
        ["git", "-C", str(folder), *arguments], check=True, capture_output=True, text=True
    ).stdout.strip()
