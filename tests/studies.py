"""Snakemake, called as a user calls it, and a small study for it."""

import contextlib
import functools
import multiprocessing
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import IO

import yaml
from snakemake.cli import main as snakemake_main
from snakemake.utils import update_config

ROOT = Path(__file__).parents[1]
CLASSIFIER = "convnext_atto"
DETECTOR = "convnext_tiny"
SEGMENTER = "segformer_b0"
PHANTOMS = {
    "lin": "phantom:lin?seed=1&videos=12&frames=2&defects=0",
    "busi": "phantom:busi?seed=2&benign=10&malignant=10&normal=10&defects=0",
    "rodrigues": "phantom:rodrigues?seed=3&benign=15&malignant=15",
}


def run(checkout: Path, *command: str | Path, status: int = 0) -> str:
    """What a command in the checkout prints; its exit status has to be ``status``."""
    outer = {"MAKEFLAGS", "MAKELEVEL", "MFLAGS", "STUDY"}
    env = {name: value for name, value in os.environ.items() if name not in outer}
    env |= {
        "PATH": f"{Path(sys.executable).parent}:{env['PATH']}",
        "PYTHONPATH": str(checkout),
        **{f"GIT_{role}_{item}": "tests" for role in ("AUTHOR", "COMMITTER") for item in ("NAME", "EMAIL")},
    }
    done = subprocess.run(
        [*map(str, command)], cwd=checkout, capture_output=True, text=True, check=False, env=env
    )
    assert done.returncode == status, done.stdout + done.stderr
    return done.stdout + done.stderr


def snakemake_command(*arguments: str | Path) -> list[str]:
    return [sys.executable, "-m", "snakemake", *map(str, arguments)]


def snakemake(*arguments: str | Path, check: bool = True, cwd: Path = ROOT) -> subprocess.CompletedProcess:
    """Run snakemake in the checkout; with ``check``, show its output when it fails."""
    command = snakemake_command(*arguments)
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)
    assert done.returncode == 0 or not check, done.stdout + done.stderr
    return done


def dry_run(*arguments: str | Path, check: bool = True, cwd: Path = ROOT) -> subprocess.CompletedProcess:
    """Plan only, in a fork, which needs no imports. Positional targets come before the options."""
    command = [*map(str, arguments), "--dry-run", "--nolock"]
    lines = functools.partial(tempfile.TemporaryFile, "w+", buffering=1)
    with lines() as output, lines() as errors:
        process = multiprocessing.get_context("fork").Process(
            target=_plan, args=(command, cwd, output, errors)
        )
        process.start()
        process.join()
        printed = []
        for file in (output, errors):
            file.seek(0)
            printed.append(file.read())
    assert process.exitcode == 0 or not check, "".join(printed)
    return subprocess.CompletedProcess(command, process.exitcode, *printed)


def _plan(command: list[str], cwd: Path, output: IO, errors: IO) -> None:
    os.chdir(cwd)
    with contextlib.redirect_stdout(output), contextlib.redirect_stderr(errors):
        snakemake_main(command)


def small_study() -> dict:
    """An overlay: the demo, shrunk to a small model of each task and an epoch."""
    demo = yaml.safe_load((ROOT / "config.yaml").read_text())["models"]
    kept = {
        "classification": {CLASSIFIER: {"epochs": 1, "batch_size": 8}},
        "detection": {DETECTOR: {"backbone": "convnext_atto"}},
        "segmentation": {SEGMENTER: {"epochs": 1}},
    }
    return {
        "sources": {name: {"urls": [url]} for name, url in PHANTOMS.items()},
        "splits": {"balance_tolerance": 0.2},
        "timing": {"iterations": 3, "warmup": 1},
        "models": {task: dict.fromkeys(demo[task]) | models for task, models in kept.items()},
    }


def write_overlay(folder: Path, study: dict) -> Path:
    path = folder / "overlay.yaml"
    path.write_text(yaml.safe_dump(study, sort_keys=False))  # tables are in the order of the config
    return path


def small_config() -> dict:
    """The demo's configuration with the small study laid over it."""
    config = yaml.safe_load((ROOT / "config.yaml").read_text())
    update_config(config, small_study())
    for task, models in config["models"].items():
        config["models"][task] = {name: entry for name, entry in models.items() if entry is not None}
    return config


def copy_checkout(target: Path) -> Path:
    """A copy of the checkout in which nothing was run yet."""
    left_out = {
        # busflow/data is a package; only the data of studies, at the top, is left behind.
        ROOT: {"data", "runs", "logs", "studies", "results", "tests", "dvc.lock"},
        ROOT / ".dvc": {"cache", "tmp", "config.local"},
    }
    hidden = {".dvc", ".dvcignore", ".gitignore"}

    def ignored(folder: str, names: list[str]) -> set[str]:
        ignored = left_out.get(Path(folder), set()) | {"__pycache__"}
        if Path(folder) == ROOT:
            ignored |= {n for n in names if n.endswith(".egg-info") or (n[0] == "." and n not in hidden)}
        return ignored

    shutil.copytree(ROOT, target, ignore=ignored)
    return target


def copy_study(study: Path, target: Path) -> Path:
    """A copy of a checkout with all that was run in it; files that are links to each other stay so."""
    subprocess.run(["cp", "-a", study, target], check=True)
    return target
