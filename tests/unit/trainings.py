"""Trainings in tests: whole ones, and ones that a power cut ends."""

from pathlib import Path

import pandas as pd
import pytest

from busflow.engine import training
from busflow.engine.hooks import RandomnessHook

NEVER = 1e9  # seconds
ORIGIN = {
    "study": "test",
    "notice": None,
    "protocol": "paper",
    "model": "small",
    "seed": 0,
    "sources": [{"name": "made", "licence": "CC0-1.0", "citation": "none"}],
}


class PowerCutError(Exception):
    pass


def train(
    task,
    inputs: dict,
    settings: dict,
    folder: Path,
    output: str,
    *,
    seed: int = 0,
    workers: int = 0,
    interval: float = NEVER,
) -> None:
    """Train with the state under ``folder/state/output`` and the results in ``folder/output``."""
    compute = {"workers": workers, "checkpoint_interval": interval}
    states, published = folder / "state" / output, folder / output
    training.train(task, inputs, settings, seed, ORIGIN, compute, states, published)


def power_cut(monkeypatch, step: int, call) -> None:
    """Call what trains; it ends in the middle of this training batch, counted from zero."""

    def cut(hook, runner, batch_idx, data_batch=None, outputs=None):
        if runner.iter == step:
            raise PowerCutError

    with monkeypatch.context() as patch, pytest.raises(PowerCutError):
        patch.setattr(RandomnessHook, "after_train_iter", cut)
        call()


def assert_same(one: Path, other: Path) -> None:
    """Same bytes of the weights, and the same history but for the time that it took."""
    assert (one / "weights.pth").read_bytes() == (other / "weights.pth").read_bytes()
    histories = [pd.read_csv(folder / "history.csv").drop(columns="seconds") for folder in (one, other)]
    assert histories[0].equals(histories[1])
