"""Snakemake itself is killed, or started twice: what the README says then is enough."""

import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest

from studies import copy_checkout, small_study, snakemake, snakemake_command, write_overlay

WEIGHTS = "results/paper/classification/convnext_atto/seed0/weights.pth"
DEADLINE = 300  # seconds


def start(checkout: Path, config: Path) -> subprocess.Popen:
    """Snakemake and its jobs, in a process group of their own."""
    return subprocess.Popen(
        snakemake_command(WEIGHTS, "--configfile", config),
        cwd=checkout,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


def wait_for(folder: Path, pattern: str) -> None:
    deadline = time.monotonic() + DEADLINE
    while not list(folder.glob(pattern)):
        assert time.monotonic() < deadline, f"{pattern} did not appear"
        time.sleep(0.05)


@pytest.mark.slow
def test_a_study_survives_a_power_cut_and_a_second_snakemake(tmp_path):
    checkout = copy_checkout(tmp_path / "busflow")
    config = write_overlay(checkout, small_study())
    first = start(checkout, config)
    wait_for(checkout, ".snakemake/locks/*")
    second = snakemake(WEIGHTS, "--configfile", config, check=False, cwd=checkout)
    assert second.returncode and "locked" in second.stdout + second.stderr

    wait_for(checkout, "runs/paper/classification/convnext_atto/seed0/*/progress.json")
    os.killpg(first.pid, signal.SIGKILL)
    first.wait()
    snakemake("--unlock", "--configfile", config, cwd=checkout)
    snakemake(WEIGHTS, "--configfile", config, cwd=checkout)
    planned = snakemake(WEIGHTS, "--configfile", config, "--dry-run", cwd=checkout)
    assert "Nothing to be done" in planned.stdout + planned.stderr
    weights = (checkout / WEIGHTS).read_bytes()
    shutil.rmtree(checkout / "runs")  # else the finished run would be published again
    snakemake(WEIGHTS, "--configfile", config, "--forcerun", "train_classification", cwd=checkout)
    assert (checkout / WEIGHTS).read_bytes() == weights
