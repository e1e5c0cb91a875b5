"""Killed at any point, trainings and packings end with the same bits."""

import os
import re
import subprocess
import sys

import pytest

from studies import ROOT

KILLS = 5


@pytest.mark.slow
def test_no_kill_leaves_a_trace():
    command = [sys.executable, ROOT / "tests/unit/chaos.py", "--kills", str(KILLS)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    print(done.stdout)
    assert done.returncode == 0, done.stdout + done.stderr
    kills, mismatches = re.search(r"(\d+) kills, (\d+) mismatches", done.stdout).groups()
    assert int(kills) >= KILLS and mismatches == "0"
