"""Hooks that make a training reproducible, recorded and resumable."""

import math
import os
import time
from pathlib import Path

import torch
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner

from busflow.engine.checkpoints import save_weights
from busflow.errors import BusflowError
from busflow.files import atomic

STATE, BEST = "state.pth", "best.pth"


class EpochSeedHook(Hook):
    """Make all randomness of an epoch (augmentation, dropped paths) a function of (seed, epoch).

    A training that resumes at an epoch's border then draws the same numbers as one that never stopped.
    """

    def before_train_epoch(self, runner: Runner) -> None:
        # A prime stride keeps (seed, epoch) pairs apart.
        torch.manual_seed(runner.seed * 1_000_003 + runner.epoch)
        augmentation = _unwrapped(runner).data_preprocessor.augmentation
        if augmentation is not None:
            augmentation.set_epoch(runner.epoch)


class SnapshotHook(Hook):
    """After each validation: extend the history, keep the best weights, and save all that a resume needs.

    mmengine's CheckpointHook saves an epoch before it is validated, so that a run killed in between
    resumes without that epoch's score; and it writes in place. Here history and best score travel in the
    message hub, which is part of the state, and files appear by renaming.

    Args:
        folder: of the run; holds ``state.pth`` and ``best.pth``.
        metric: key of the validation metrics; greater is better, the first of equals stays. As long
            as it is zero, though, the latest weights are the best: a detector takes a while to find anything.
        meta: plain values to keep beside the best weights.
    """

    priority = "VERY_LOW"

    def __init__(self, folder: Path, metric: str, meta: dict):
        self.folder, self.metric, self.meta = folder, metric, meta

    def before_train(self, runner: Runner) -> None:
        hub = runner.message_hub
        if runner.iter == 0:  # not resumed; the hub may be that of a run in the same second
            hub.update_info("history", [], resumed=True)
            hub.update_info("best_score", float("-inf"), resumed=True)
        self.started = time.monotonic() - _seconds(hub.get_info("history"))

    def before_train_epoch(self, runner: Runner) -> None:
        self.losses: list[torch.Tensor] = []

    def after_train_iter(self, runner: Runner, batch_idx: int, data_batch=None, outputs=None) -> None:
        self.losses.append(outputs["loss"].detach())

    def after_train_epoch(self, runner: Runner) -> None:
        self.loss = torch.stack(self.losses).mean().item()
        if not math.isfinite(self.loss):
            raise BusflowError(
                f"the loss is {self.loss} in epoch {runner.epoch + 1}; lower learning_rate and train again"
            )

    def after_val_epoch(self, runner: Runner, metrics: dict[str, float] | None = None) -> None:
        hub = runner.message_hub
        row = {
            "epoch": runner.epoch,
            "step": runner.iter,
            "seconds": round(time.monotonic() - self.started, 3),
            "learning_rate": max(runner.optim_wrapper.get_lr()["lr"]),
            "train_loss": self.loss,
            **{f"val_{key}": value for key, value in metrics.items()},
        }
        hub.update_info("history", [*hub.get_info("history"), row], resumed=True)
        if metrics[self.metric] > hub.get_info("best_score") or hub.get_info("best_score") <= 0:
            hub.update_info("best_score", metrics[self.metric], resumed=True)
            # Before the state: a run killed in between repeats the epoch and finds the same best.
            meta = {**self.meta, "epoch": runner.epoch}
            save_weights(self.folder / BEST, _unwrapped(runner).network, meta)
        # After the last epoch nothing is left to resume, and the state is three times the weights.
        if runner.epoch < runner.max_epochs:
            with atomic(self.folder / STATE) as temporary:
                runner.save_checkpoint(
                    os.fspath(temporary.parent),
                    temporary.name,
                    meta={"epoch": runner.epoch, "iter": runner.iter},
                )


def _seconds(history: list[dict]) -> float:
    return history[-1]["seconds"] if history else 0.0


def _unwrapped(runner: Runner) -> torch.nn.Module:
    return runner.model.module if is_model_wrapper(runner.model) else runner.model
