"""Snakemake, called as a user calls it, and a small study for it."""

import shutil
import subprocess
import sys
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[1]
CLASSIFIERS = ["convnext_atto", "convnext_femto"]
DETECTOR = "convnext_tiny"
SEGMENTER = "segformer_b0"
PHANTOMS = {
    "lin": "phantom:lin?seed=1&videos=12&frames=2&defects=0",
    "busi": "phantom:busi?seed=2&benign=10&malignant=10&normal=10&defects=0",
    "rodrigues": "phantom:rodrigues?seed=3&benign=15&malignant=15",
}


def snakemake_command(*arguments: str | Path) -> list[str]:
    return [sys.executable, "-m", "snakemake", *map(str, arguments)]


def snakemake(*arguments: str | Path, check: bool = True, cwd: Path = ROOT) -> subprocess.CompletedProcess:
    """Run snakemake in the checkout; with ``check``, show its output when it fails."""
    command = snakemake_command(*arguments)
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)
    assert done.returncode == 0 or not check, done.stdout + done.stderr
    return done


def dry_run(*arguments: str | Path, check: bool = True) -> subprocess.CompletedProcess:
    """Plan only. Positional targets come before the options."""
    return snakemake(*arguments, "--dry-run", "--nolock", check=check)


def small_study() -> dict:
    """An overlay: the demo, shrunk to four small models and an epoch."""
    demo = yaml.safe_load((ROOT / "config.yaml").read_text())["models"]
    kept = {
        "classification": {name: {"epochs": 1, "batch_size": 8} for name in CLASSIFIERS},
        "detection": {DETECTOR: {"backbone": "convnext_atto"}},
        "segmentation": {SEGMENTER: {}},
    }
    return {
        "sources": {name: {"urls": [url]} for name, url in PHANTOMS.items()},
        "splits": {"balance_tolerance": 0.2},
        "timing": {"iterations": 3, "warmup": 1},
        "models": {task: dict.fromkeys(demo[task]) | models for task, models in kept.items()},
    }


def write_overlay(folder: Path, study: dict) -> Path:
    path = folder / "overlay.yaml"
    path.write_text(yaml.safe_dump(study))
    return path


def copy_checkout(target: Path) -> Path:
    """A copy of the checkout in which nothing was run yet."""
    made = {"data", "runs", "logs", "studies", "results", "tests"}
    # busflow/data is a package; only the data of studies, at the top, is left behind.
    shutil.copytree(
        ROOT,
        target,
        ignore=lambda folder, names: [
            name
            for name in names
            if name == "__pycache__"
            or (Path(folder) == ROOT and (name in made or name.startswith(".") or name.endswith(".egg-info")))
        ],
    )
    return target
