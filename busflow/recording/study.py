"""Where a study and its record lie, and the two programs that work on it."""

import csv
import re
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import yaml

from busflow.errors import BusflowError

LEDGER = "dvc.yaml"
DEMO = "demo"
# What shapes a study besides its config. Profiles fit a workflow to a machine, and are left to its owner.
CODE = (
    "Makefile",
    "busflow",
    "envs/busflow.yaml",
    "envs/requirements.txt",
    "rules",
    "scripts",
    "workflow/Snakefile",
    "workflow/report",
    "workflow/schemas",
)


class Study(NamedTuple):
    """``overlay``: what Snakemake is given; ``root``: of the study's files, its ``dvc.yaml`` among them."""

    name: str
    overlay: Path
    root: Path

    @property
    def ledger(self) -> Path:
        return self.root / LEDGER

    @property
    def rooms(self) -> tuple[Path, Path]:
        """The folders that hold all that the study makes and keeps."""
        return self.root / "data", self.root / "results"

    def makes(self, path: Path) -> bool:
        """Whether a path, relative to the checkout, is a result of the study and none of its causes."""
        return any(path.is_relative_to(room) for room in self.rooms)


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


def made_by(study: Study, cwd: Path = Path()) -> dict[Path, str]:
    """Every file and folder that Snakemake makes in a study, and the rule that makes it.

    Raises BusflowError when Snakemake cannot tell.
    """
    listed = snakemake("--summary", "--nolock", "--configfile", study.overlay, cwd=cwd)
    if listed.returncode:
        raise BusflowError(f"Snakemake has no plan of study {study.name}: {listed.stderr.strip()}")
    rows = csv.DictReader(listed.stdout.splitlines(), delimiter="\t")
    return {Path(row["output_file"]): row["rule"] for row in rows}


def number_of_jobs(study: Study, cwd: Path = Path()) -> int:
    """Jobs of the whole study, whatever of it is done.

    Raises BusflowError when Snakemake cannot tell.
    """
    planned = snakemake(
        *("--dry-run", "--forceall", "--nolock", "--quiet", "rules"), "--configfile", study.overlay, cwd=cwd
    )
    total = re.search(r"^total +(\d+)$", planned.stdout, re.MULTILINE)
    if planned.returncode or not total:
        raise BusflowError(f"Snakemake has no plan of study {study.name}: {planned.stderr.strip()}")
    return int(total[1])


def snakemake(*arguments: str | Path, cwd: Path = Path()) -> subprocess.CompletedProcess:
    """Run Snakemake; what it prints is captured, and its exit status is the caller's to judge."""
    return _run("snakemake", *arguments, cwd=cwd, capture_output=True, text=True)


def dvc(*arguments: str | Path) -> None:
    """Run DVC; raises BusflowError when it fails (it has said why)."""
    if _run("dvc", *arguments).returncode:
        raise BusflowError(f"dvc {arguments[0]} failed; its message is above")


def _run(program: str, *arguments: str | Path, **options) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, "-m", program, *map(str, arguments)], check=False, **options)
