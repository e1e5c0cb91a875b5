"""Where a study and its record lie, and the two programs that work on it."""

import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import yaml

from busflow.errors import BusflowError

LEDGER = "dvc.yaml"
DEMO = "demo"


class Study(NamedTuple):
    """``overlay``: what Snakemake is given; ``root``: of the study's files, its ``dvc.yaml`` among them."""

    name: str
    overlay: Path
    root: Path

    @property
    def ledger(self) -> Path:
        return self.root / LEDGER


def find_study(name: str) -> Study:
    """The study ``demo`` (config.yaml), or that of ``config/<name>.yaml`` under ``studies/<name>``.

    Paths are relative to the checkout, which has to be the working directory.
    Raises BusflowError when there is no such overlay, or when it names another root.
    """
    if name == DEMO:
        return Study(name, Path("config.yaml"), Path())
    study = Study(name, Path(f"config/{name}.yaml"), Path(f"studies/{name}"))
    if not study.overlay.is_file():
        raise BusflowError(f"{study.overlay} does not exist: STUDY names an overlay in config/, or {DEMO}")
    root = (yaml.safe_load(study.overlay.read_text()) or {}).get("root")
    if root is None or Path(root) != study.root:
        raise BusflowError(f"{study.overlay}: a study that is recorded has root: {study.root}, not {root}")
    return study


def snakemake(*arguments: str | Path, cwd: Path = Path()) -> subprocess.CompletedProcess:
    """Run Snakemake; what it prints is captured, and its exit status is the caller's to judge."""
    return _run("snakemake", *arguments, cwd=cwd, capture_output=True, text=True)


def dvc(*arguments: str | Path) -> None:
    """Run DVC; raises BusflowError when it fails (it has said why)."""
    if _run("dvc", *arguments).returncode:
        raise BusflowError(f"dvc {arguments[0]} failed; its message is above")


def _run(program: str, *arguments: str | Path, **options) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, "-m", program, *map(str, arguments)], check=False, **options)
