"""One mmengine Runner for every task."""

import math
from pathlib import Path

import torch
from mmengine.evaluator import BaseMetric, Evaluator
from mmengine.model import BaseModel
from mmengine.optim import AmpOptimWrapper, OptimWrapper
from mmengine.runner import Runner
from torch.utils.data import DataLoader

from busflow.engine.hooks import STATE, EpochSeedHook, SnapshotHook


def train(
    model: BaseModel,
    loaders: tuple[DataLoader, DataLoader],
    validation: BaseMetric,
    select_by: str,
    settings: dict,
    parameters: list[dict],
    accumulation: int,
    seed: int,
    folder: Path,
) -> list[dict]:
    """Train to the last epoch, resuming from ``folder`` if a run was interrupted there.

    AdamW, linear warm-up, cosine decay to zero; the learning rate is given for
    ``settings["reference_batch"]`` images and follows the square root of the effective batch size
    (Malladi et al., NeurIPS 2022). Mixed precision on a GPU when ``settings["amp"]``.

    Args:
        model: takes the loaders' batches.
        loaders: training and validation.
        validation: metric whose ``select_by`` value picks the best epoch (greater is better).
        settings: keys epochs, batch_size, learning_rate, reference_batch, warmup_epochs, amp, compile.
        parameters: groups for the optimiser, with their weight decay.
        accumulation: training batches per step of the optimiser.
        seed: of everything random.
        folder: of the run; afterwards it holds ``best.pth``.

    Returns:
        The history: one row per epoch.
    """
    training, evaluation = loaders
    learning_rate = settings["learning_rate"] * math.sqrt(
        settings["batch_size"] / settings["reference_batch"]
    )
    wrapper = AmpOptimWrapper if settings["amp"] and torch.cuda.is_available() else OptimWrapper
    state = folder / STATE
    runner = Runner(
        model=model,
        work_dir=str(folder),
        train_dataloader=training,
        train_cfg={"by_epoch": True, "max_epochs": settings["epochs"]},
        val_dataloader=evaluation,
        val_cfg={},
        val_evaluator=Evaluator(validation),
        optim_wrapper=wrapper(
            optimizer=torch.optim.AdamW(parameters, lr=learning_rate), accumulative_counts=accumulation
        ),
        param_scheduler=_schedule(settings, len(training)),
        default_hooks={
            "logger": {"type": "LoggerHook", "interval": max(1, len(training) // 4)},
            "checkpoint": None,
        },
        custom_hooks=[EpochSeedHook(), SnapshotHook(folder, select_by)],
        load_from=str(state) if state.exists() else None,
        resume=state.exists(),
        randomness={"seed": seed, "deterministic": not torch.cuda.is_available()},
        # SnapshotHook keeps the history; mmengine's own goes into a folder named by the second.
        visualizer={"type": "Visualizer", "vis_backends": []},
        cfg={"compile": settings["compile"]},
        experiment_name=folder.as_posix().replace("/", "_"),
    )
    runner.train()
    return runner.message_hub.get_info("history")


def _schedule(settings: dict, steps_per_epoch: int) -> list[dict]:
    """Linear warm-up, then cosine to zero, counted in steps."""
    total = settings["epochs"] * steps_per_epoch
    warmup = min(round(settings["warmup_epochs"] * steps_per_epoch), total - 1)
    cosine = {"type": "CosineAnnealingLR", "by_epoch": False, "T_max": total - warmup, "begin": warmup}
    linear = {"type": "LinearLR", "by_epoch": False, "start_factor": 0.01, "begin": 0, "end": warmup}
    return [linear, cosine] if warmup else [cosine]
