"""make says in one line what is missing before it sets anything up."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture
def checkout(tmp_path) -> Path:
    """A checkout in which nothing is set up."""
    shutil.copy(ROOT / "Makefile", tmp_path)
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    shutil.copytree(ROOT / "envs", tmp_path / "envs")
    return tmp_path


def make(checkout: Path, *arguments: str) -> tuple[int, list[str]]:
    # These tests may themselves run under make, which passes its state on to a make below it.
    outer = {"MAKEFLAGS", "MAKELEVEL", "MFLAGS", "PYTHON", "DATA", "ROOT"}
    done = subprocess.run(
        ["make", *arguments],
        cwd=checkout,
        capture_output=True,
        text=True,
        check=False,
        env={name: value for name, value in os.environ.items() if name not in outer},
    )
    lines = (done.stdout + done.stderr).splitlines()
    return done.returncode, [line for line in lines if not line.startswith("make: ***")]


@pytest.mark.parametrize("goal", ["demo", "test", "lint", "setup"])
def test_a_missing_python_is_one_line(checkout, goal):
    code, lines = make(checkout, goal, "PYTHON=python-that-is-not-here")
    assert code == 2
    assert lines == [
        "busflow needs Python 3.11 or newer, and 'python-that-is-not-here' is not here: "
        "install it, or name one with make PYTHON=..."
    ]


def test_an_old_python_is_one_line(checkout):
    old = checkout / "python3.9"
    old.write_text('#!/bin/sh\n[ "$1" = -V ] && echo "Python 3.9.1" && exit 0\nexit 1\n')
    old.chmod(0o755)
    code, lines = make(checkout, "demo", f"PYTHON={old}")
    assert code == 2
    assert lines == [
        f"busflow needs Python 3.11 or newer, and '{old}' is Python 3.9.1: name another with make PYTHON=..."
    ]


def test_a_full_disk_is_one_line(checkout):
    code, lines = make(checkout, "demo", "DISK_GB=1000000000")
    assert code == 2
    assert lines == [
        f"busflow needs 1000000000 GB of free disk under {checkout} for its packages: free some space"
    ]


def test_what_is_set_up_is_not_set_up_again(checkout):
    (checkout / ".venv").mkdir()
    for stamp in (".ready", ".ready-dev"):
        (checkout / ".venv" / stamp).touch()
    code, lines = make(checkout, "setup", "PYTHON=python-that-is-not-here")
    assert code == 0 and lines == ["make: Nothing to be done for 'setup'."]


def test_real_asks_for_the_folder_of_the_archives(checkout):
    (checkout / ".venv").mkdir()
    (checkout / ".venv/.ready").touch()
    code, lines = make(checkout, "real")
    assert code == 2
    assert lines == ["make real: name the folder that holds the archives: make real DATA=<folder>"]
    code, lines = make(checkout, "real", f"DATA={checkout}")
    assert code == 2 and lines == [f"make real: {checkout}/Dataset_BUSI.zip does not exist"]


def test_status_sets_nothing_up(checkout):
    code, lines = make(checkout, "status")
    assert code == 2 and lines == ["make status: nothing is set up here: make setup"]
    assert not (checkout / ".venv").exists()


@pytest.mark.parametrize(
    ("arguments", "root"), [((), "."), (("ROOT=studies/the paper",), "studies/the paper")]
)
def test_status_shows_the_study_that_root_names(checkout, arguments, root):
    python = checkout / ".venv/bin/python"
    python.parent.mkdir(parents=True)
    (checkout / ".venv/.ready").touch()
    python.write_text("#!/bin/sh\nprintf '%s\\n' \"$@\"\n")
    python.chmod(0o755)
    assert make(checkout, "status", *arguments) == (0, ["scripts/status.py", "--root", root])
