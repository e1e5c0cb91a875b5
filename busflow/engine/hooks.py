"""Hooks that make a training reproducible, recorded and resumable."""

import logging
import math
import random
import time
from pathlib import Path

import numpy as np
import torch
from mmengine.dist import is_main_process
from mmengine.hooks import Hook, RuntimeInfoHook
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner

from busflow.engine.runs import save_state
from busflow.engine.signals import StopRequest
from busflow.errors import BusflowError, InterruptedRunError

CHECK_EVERY = 50  # batches; looking at a loss makes the CPU wait for the GPU

logger = logging.getLogger(__name__)


class RandomnessHook(Hook):
    """Make all that is random a function of seed and step, and the order of samples one of seed and epoch.

    A training that goes on at any step then draws the same numbers as one that never stopped: no state of a
    random number generator needs to be kept.
    """

    def before_train_epoch(self, runner: Runner) -> None:
        batches = runner.train_dataloader.batch_sampler
        done = (runner.iter - runner.epoch * len(batches)) * batches.batch_size
        batches.sampler.done = done * runner.world_size
        augmentation = _unwrapped(runner).data_preprocessor.augmentation
        if augmentation is not None:
            augmentation.set_epoch(runner.epoch)

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: dict | None = None) -> None:
        entropy = [runner.seed, runner.iter, runner.rank]
        (seed,) = np.random.SeedSequence(entropy).generate_state(1).tolist()
        random.seed(seed)
        np.random.seed(seed)  # noqa: NPY002  (what libraries may draw from)
        torch.manual_seed(seed)


class LoggedInfoHook(RuntimeInfoHook):
    """Pass on the losses of those batches alone that are logged: each look makes the CPU wait for the GPU.

    Args:
        interval: of the log, in batches.
    """

    def __init__(self, interval: int):
        self.interval = interval

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: dict | None = None, outputs: dict | None = None
    ) -> None:
        if self.every_n_inner_iters(batch_idx, self.interval):
            super().after_train_iter(runner, batch_idx, data_batch, outputs)


class HistoryHook(Hook):
    """Keep a row of figures at each validation, and the best weights; stop at a loss that is no number.

    A row's training loss is the mean since the row before.

    Both travel with the state of the run. (mmengine's CheckpointHook saves an epoch before it is validated,
    so that a run killed in between resumes without that epoch's score; and it writes in place.)

    Args:
        metric: key of the validation metrics; greater is better, the first of equals stays. As long
            as it is zero, though, the latest weights are the best: a detector takes a while to find anything.

    Attributes:
        rows: one per validated epoch so far.
        score, weights: of the best epoch.
    """

    priority = "VERY_LOW"

    def __init__(self, metric: str):
        self.metric = metric
        self.rows: list[dict] = []
        self.score, self.weights, self.best_epoch = -math.inf, {}, 0
        self.seconds, self.checked = 0.0, []

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        self._check(runner)
        checkpoint["history"] = {
            "rows": self.rows,
            "score": self.score,
            "weights": self.weights,
            "best_epoch": self.best_epoch,
            "seconds": self._elapsed(),
            "checked": self.checked,
        }

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        vars(self).update(checkpoint["history"])
        self.weights = {name: tensor.cpu() for name, tensor in self.weights.items()}

    def before_train(self, runner: Runner) -> None:
        self.started = time.monotonic() - self.seconds
        self.unchecked: list[tuple[torch.Tensor, torch.Tensor]] = []

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: dict | None = None, outputs: dict | None = None
    ) -> None:
        self.unchecked.append((outputs["loss"].detach(), data_batch["samples"]))
        if len(self.unchecked) == CHECK_EVERY:
            self._check(runner)

    def after_train_epoch(self, runner: Runner) -> None:
        self._check(runner)

    def after_val_epoch(self, runner: Runner, metrics: dict[str, float] | None = None) -> None:
        row = {
            "epoch": runner.epoch,
            "step": runner.iter,
            "seconds": round(self._elapsed(), 3),
            "learning_rate": max(runner.optim_wrapper.get_lr()["lr"]),
            "train_loss": float(np.mean(self.checked)),
            **{f"val_{key}": value for key, value in metrics.items()},
        }
        self.rows.append(row)
        self.checked = []
        if metrics[self.metric] > self.score or self.score <= 0:
            self.score, self.best_epoch = metrics[self.metric], runner.epoch
            state = _unwrapped(runner).network.state_dict()
            # In the plain layout of memory, whichever the training has.
            plain = {"memory_format": torch.contiguous_format}
            self.weights = {name: value.detach().cpu().clone(**plain) for name, value in state.items()}

    def _elapsed(self) -> float:
        return time.monotonic() - self.started

    def _check(self, runner: Runner) -> None:
        if not self.unchecked:
            return
        losses = torch.stack([loss for loss, _ in self.unchecked]).tolist()
        for loss, (_, samples) in zip(losses, self.unchecked, strict=True):
            if not math.isfinite(loss):
                ids = runner.train_dataloader.dataset.image_ids
                images = ", ".join(ids[sample] for sample in samples.tolist())
                raise BusflowError(
                    f"the loss is {loss} in epoch {runner.epoch + 1}, in the batch of {images}; "
                    "look at these images, or lower learning_rate, and train again"
                )
        self.checked = [*self.checked, *losses]
        self.unchecked = []


class StateHook(Hook):
    """Save all that a resume needs, now and then and when asked to stop; then stop.

    A state is that between two steps of the optimiser, so that no gradient is under way. One that was saved
    within an epoch goes on within it; one that was saved during a validation repeats this validation.

    Args:
        folder: of the run; its name is the run's identity.
        interval: seconds from one state to the next.
        accumulation: training batches per step of the optimiser.
        stop: is set when the process is asked to stop.
    """

    priority = "LOWEST"

    def __init__(self, folder: Path, interval: float, accumulation: int, stop: StopRequest):
        self.folder, self.interval, self.accumulation, self.stop = folder, interval, accumulation, stop

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        if checkpoint["meta"]["run"] != self.folder.name:
            raise BusflowError(
                f"{self.folder} holds a state of another run ({checkpoint['meta']['run']}), with other "
                "settings, data or code; delete the folder and run the same command again"
            )
        if checkpoint["meta"]["accumulation"] != self.accumulation:
            _recount(checkpoint, self.accumulation)

    def before_train(self, runner: Runner) -> None:
        self.saved = time.monotonic()

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: dict | None = None, outputs: dict | None = None
    ) -> None:
        if (runner.iter + 1) % self.accumulation == 0:
            self._save_if_due(runner, runner.epoch, runner.iter + 1)

    def after_val_iter(
        self, runner: Runner, batch_idx: int, data_batch: dict | None = None, outputs: list | None = None
    ) -> None:
        if self.stop:
            self._save_if_due(runner, runner.epoch - 1, runner.iter)

    def after_val_epoch(self, runner: Runner, metrics: dict[str, float] | None = None) -> None:
        if runner.epoch < runner.max_epochs:  # else nothing is left to resume
            self._save_if_due(runner, runner.epoch, runner.iter)

    def _save_if_due(self, runner: Runner, epoch: int, step: int) -> None:
        due = self.stop or time.monotonic() - self.saved >= self.interval
        if not due or not is_main_process():
            return
        state = {
            "meta": {
                "run": self.folder.name,
                "epoch": epoch,
                "iter": step,
                "accumulation": self.accumulation,
                "seed": runner.seed,
                "dataset_meta": runner.train_dataloader.dataset.metainfo,
            },
            "state_dict": _unwrapped(runner).state_dict(),
            # mmengine's own history is for its log lines alone, and made of objects that only a file that may
            # run code can hold; the run's is HistoryHook's.
            "message_hub": {"log_scalars": {}, "runtime_info": {}, "resumed_keys": {}},
            "optimizer": runner.optim_wrapper.state_dict(),
            "param_schedulers": [scheduler.state_dict() for scheduler in runner.param_schedulers],
        }
        runner.call_hook("before_save_checkpoint", checkpoint=state)
        # mmengine's own way of saving makes two copies of the state in memory and writes in place.
        save_state(self.folder, step, state)
        self.saved = time.monotonic()
        logger.info("saved the state after %d training batches", step)
        if self.stop:
            raise InterruptedRunError(
                f"asked to stop ({self.stop}); saved the state after {step} training batches in "
                f"{self.folder}; run the same command again to go on"
            )


def _recount(checkpoint: dict, accumulation: int) -> None:
    """Count in training batches of another size, of which so many are a step of the optimiser."""
    before = checkpoint["meta"]["accumulation"]
    checkpoint["meta"]["iter"] = checkpoint["meta"]["iter"] // before * accumulation
    for scheduler in checkpoint["param_schedulers"]:
        done = scheduler["last_step"] // before * accumulation
        kept = {"last_step": done, "_global_step": done + 1, "_last_value": scheduler["_last_value"]}
        scheduler.clear()  # its span and the like are counted in the old size
        scheduler.update(kept)


def _unwrapped(runner: Runner) -> torch.nn.Module:
    return runner.model.module if is_model_wrapper(runner.model) else runner.model
