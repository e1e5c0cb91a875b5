"""The environment is one, pinned, and fit for a server without a screen."""

import re
from pathlib import Path

import cv2
import yaml

ENVS = Path(__file__).parents[2] / "envs"
CARD = {
    "snakemake",
    "torch",
    "timm",
    "onedl-mmdetection",
    "onedl-mmsegmentation",
    "dvc",
    "pandas",
    "pyyaml",
    "seaborn",
}


def pins(name: str) -> list[str]:
    lines = (ENVS / name).read_text().splitlines()
    return [line for line in lines if line and not line.startswith(("#", "-r"))]


def test_every_requirement_is_an_exact_pin():
    for line in pins("requirements.txt") + pins("requirements-dev.txt"):
        assert re.fullmatch(r"[\w.-]+==[\w.]+", line), line


def test_the_packages_that_users_count_on_are_there():
    assert {line.split("==")[0].lower() for line in pins("requirements.txt")} >= CARD


def test_the_conda_environment_has_the_same_pins():
    conda = yaml.safe_load((ENVS / "busflow.yaml").read_text())
    assert next(entry["pip"] for entry in conda["dependencies"] if isinstance(entry, dict)) == pins(
        "requirements.txt"
    )


def test_opencv_is_the_headless_build():
    gui = re.search(r"GUI:\s*(\w+)", cv2.getBuildInformation())
    assert gui is None or gui[1] == "NONE"
