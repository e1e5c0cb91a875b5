"""Shared by all tests."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import yaml
from filelock import FileLock
from hypothesis import settings

import busflow.models  # noqa: F401  (makes torchvision importable before a test imports it)
from busflow.models.classifier import build_network
from studies import CLASSIFIER, copy_checkout, run, small_config

torch.set_num_threads(1)
# How long an example takes says something of the machine and nothing of the code.
settings.register_profile("any machine", deadline=None)
settings.load_profile("any machine")

LONGEST = ("slurm", "integration")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What takes longest starts first, so that all processes end at about the same time."""
    items.sort(key=lambda item: [item.path.parent.name != folder for folder in LONGEST])


@pytest.fixture
def traced(monkeypatch) -> Iterator[list]:
    """What torch compiles, though no further than it traces: its C++ compiler takes minutes."""
    compile, asked = torch.compile, []

    def trace(function):
        asked.append(getattr(function, "__name__", ""))
        return compile(function, backend="eager")

    monkeypatch.setattr(torch, "compile", trace)
    with torch._dynamo.config.patch(suppress_errors=False):  # what a training changes is undone
        yield asked


@pytest.fixture(scope="session")
def finished_study(tmp_path_factory, worker_id) -> Path:
    """A Git repository in which the small study is finished. It is shared: to change it, copy it."""
    base = tmp_path_factory.getbasetemp()
    folder = (base if worker_id == "master" else base.parent) / "finished_study"
    checkout, finished = folder / "busflow", folder / "finished"
    # The first process that asks for it makes it, for the others too.
    with FileLock(f"{folder}.lock"):
        if not finished.exists():
            shutil.rmtree(folder, ignore_errors=True)  # what a process that failed left
            _finish_study(checkout)
            finished.touch()
    return checkout


def _finish_study(checkout: Path) -> None:
    """Its classifier starts from pretrained weights, fetched like an archive."""
    copy_checkout(checkout)
    donor = checkout.with_name("donor.pth")
    torch.save(build_network(CLASSIFIER, num_classes=1000).state_dict(), donor)
    config = small_config()
    config["models"]["classification"][CLASSIFIER]["pretrained"] = "donor"
    config["weights"] = {"donor": {"file": "donor.pth", "urls": [donor.as_uri()]}}
    (checkout / "config.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
    run(checkout, "git", "init", "--quiet")
    run(checkout, "git", "add", ".")
    run(checkout, "git", "commit", "--quiet", "--message", "A study")
    run(checkout, "snakemake")
