"""A small file that says how far a run is, for whoever watches the study (scripts/status.py)."""

import os
import socket
import time
from datetime import UTC, datetime
from pathlib import Path

import torch
from mmengine.device import get_device
from mmengine.dist import is_main_process
from mmengine.hooks import Hook
from mmengine.runner import Runner

from busflow.engine.hooks import HistoryHook
from busflow.engine.timing import device_name
from busflow.files import write_json

EVERY = 10.0  # seconds


class ProgressHook(Hook):
    """Write ``progress.json`` into the folder of the run, every ten seconds and after each epoch.

    Args:
        folder: of the run.
        history: of the run; names the metric and the best score.
        batch_size: images per training batch, of all processes.
    """

    priority = "LOWEST"

    def __init__(self, folder: Path, history: HistoryHook, batch_size: int):
        self.folder, self.history, self.batch_size = folder, history, batch_size

    def before_train(self, runner: Runner) -> None:
        self.written, self.step, self.seconds_per_step = time.monotonic(), runner.iter, None
        self.write(runner)

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: dict | None = None, outputs: dict | None = None
    ) -> None:
        elapsed = time.monotonic() - self.written
        if elapsed >= EVERY:
            step = runner.iter + 1
            self.seconds_per_step = elapsed / (step - self.step)
            self.written, self.step = time.monotonic(), step
            self.write(runner)

    def before_val_epoch(self, runner: Runner) -> None:
        self.validation = time.monotonic()

    def after_val_epoch(self, runner: Runner, metrics: dict[str, float] | None = None) -> None:
        self.written += time.monotonic() - self.validation  # speed is that of training
        self.write(runner)

    def write(self, runner: Runner, state: str = "training") -> None:
        """Write the file; ``state`` is "training" or "interrupted"."""
        if not is_main_process():
            return
        seconds = self.seconds_per_step
        write_json(
            self.folder / "progress.json",
            {
                "state": state,
                "epoch": runner.epoch,
                "epochs": runner.max_epochs,
                "step": runner.iter,
                "steps": runner.max_iters,
                "seconds_per_step": seconds,
                "images_per_second": self.batch_size / seconds if seconds else None,
                "metric": self.history.metric,
                "best": self.history.score if self.history.rows else None,
                "device": device_name(torch.device(get_device())),
                "host": os.environ.get("SLURMD_NODENAME", socket.gethostname()),
                "pid": os.getpid(),
                "job": os.environ.get("SLURM_JOB_ID"),
                "updated": datetime.now(UTC).isoformat(timespec="seconds"),
            },
        )
