"""A full disk: one clear error, nothing half-written, and success once there is space."""

import functools
import os
import subprocess
import zipfile
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
import torch
from PIL import Image
from test_segmentation_engine import picture
from test_training import SETTINGS, write_inputs
from trainings import ORIGIN

from busflow.cli import run
from busflow.data.images import pixel_sha256
from busflow.data.packing import PackedImages, pack
from busflow.data.sources import fetch_source
from busflow.engine import classification, training
from busflow.files import sha256

pytestmark = pytest.mark.slow


@pytest.fixture
def disk(tmp_path):
    """Mounts a small disk of so many kB, or makes it larger; gives its folder."""
    folder = tmp_path / "disk"
    folder.mkdir()

    def size(kilobytes: int) -> Path:
        options = f"{'remount,' if folder.is_mount() else ''}size={kilobytes}k"
        command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", folder]
        mounted = subprocess.run(command, capture_output=True, text=True, check=False)
        if mounted.returncode:
            pytest.skip(f"mounting a small disk needs root's rights: {mounted.stderr.strip()}")
        return folder

    yield size
    if folder.is_mount():
        subprocess.run(["umount", "--lazy", folder], check=True)


def error_of(call: Callable[[], None]) -> str:
    with pytest.raises(SystemExit) as exit_info:
        run(call)
    return str(exit_info.value)


def files(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def test_fetching(disk, tmp_path):
    with zipfile.ZipFile(tmp_path / "set.zip", "w") as archive:
        archive.writestr("noise", os.urandom(3_000_000))
    folder = disk(1000)
    settings = {
        "archive": "set.zip",
        "urls": [(tmp_path / "set.zip").as_uri()],
        "sha256": sha256(tmp_path / "set.zip"),
        "max_bytes": 10_000_000,
        "homepage": "https://example.org",
        "licence": "none",
        "citation": "none",
    }
    fetch = functools.partial(fetch_source, "busi", settings, folder / "archives", folder / "busi.json")
    assert f"no space left on the disk that holds {folder}" in error_of(fetch)
    assert not files(folder) & {"archives/set.zip", "busi.json"}
    disk(10_000)
    fetch()
    assert sha256(folder / "archives/set.zip") == settings["sha256"]


def test_packing(disk, tmp_path):
    rows = []
    for k in range(12):
        image = picture(k)[0]
        Image.fromarray(image).save(tmp_path / f"{k}.png")
        rows.append({"path": str(tmp_path / f"{k}.png"), "pixel_sha256": pixel_sha256(image)})
    folder = disk(32)
    packed = folder / "images.npy", folder / "index.csv"
    call = functools.partial(pack, pd.DataFrame(rows), 64, 1, *packed)
    assert f"no space left on the disk that holds {packed[0]}" in error_of(call)
    assert files(folder) == set()
    disk(1000)
    call()
    assert len(PackedImages(*packed).images) == 12


def trained(tmp_path: Path, state: Path, output: Path) -> Callable[[], None]:
    torch.set_num_threads(1)
    compute = {"workers": 0, "checkpoint_interval": 0}
    settings = SETTINGS | {"epochs": 1}
    inputs = write_inputs(tmp_path)
    return functools.partial(
        training.train, classification, inputs, settings, 0, ORIGIN, compute, state, output
    )


def test_saving_the_state_of_a_training(disk, tmp_path):
    folder = disk(60_000)  # enough for one state and not for two
    call = trained(tmp_path, folder / "state", tmp_path / "out")
    assert f"no space left on the disk that holds {folder / 'state'}" in error_of(call)
    assert len([name for name in files(folder) if "state-" in name]) == 1
    assert not [name for name in files(folder) if "/." in name] and not (tmp_path / "out").exists()
    disk(400_000)
    call()
    assert files(tmp_path / "out") == {"weights.pth", "history.csv", "run.json"}


def test_publishing(disk, tmp_path, monkeypatch):
    folder = disk(1000)
    call = trained(tmp_path, tmp_path / "state", folder / "out")
    assert f"no space left on the disk that holds {folder / 'out/weights.pth'}" in error_of(call)
    assert files(folder) == set()
    disk(100_000)
    monkeypatch.setattr(classification.Classifier, "train_step", None)  # nothing is trained again
    call()
    assert files(folder / "out") == {"weights.pth", "history.csv", "run.json"}
