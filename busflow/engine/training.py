"""One mmengine Runner for every task."""

from collections.abc import Callable
from pathlib import Path

import torch
from mmengine.evaluator import BaseMetric, Evaluator
from mmengine.model import BaseModel
from mmengine.optim import AmpOptimWrapper, OptimWrapper
from mmengine.runner import Runner
from torch.utils.data import DataLoader

from busflow.engine.hooks import BEST, STATE, EpochSeedHook, SnapshotHook


def train(
    model: BaseModel,
    loaders: tuple[DataLoader, DataLoader],
    validation: BaseMetric,
    select_by: str,
    settings: dict,
    optimizer: torch.optim.Optimizer,
    accumulation: int,
    seed: int,
    folder: Path,
    meta: dict,
) -> list[dict]:
    """Train to the last epoch, resuming from ``folder`` if a run was interrupted there.

    Linear warm-up, then cosine decay to zero or, at ``settings["milestones"]`` (epochs), to a tenth each
    time. Mixed precision on a GPU when ``settings["amp"]``. Gradients are scaled down to the norm
    ``settings["clip_grad"]`` if there is one.

    Args:
        model: takes the loaders' batches.
        loaders: training and validation.
        validation: metric whose ``select_by`` value picks the best epoch (greater is better).
        settings: keys epochs, warmup_epochs, amp, compile; milestones and clip_grad if wanted.
        optimizer: of the model's parameters, with the peak learning rate.
        accumulation: training batches per step of the optimiser.
        seed: of everything random.
        folder: of the run; afterwards it holds ``best.pth``, the weights of the best epoch.
        meta: plain values that go into that file beside the weights and the epoch.

    Returns:
        The history: one row per epoch.
    """
    training, evaluation = loaders
    wrapper = AmpOptimWrapper if settings["amp"] and torch.cuda.is_available() else OptimWrapper
    state = folder / STATE
    resume = state.exists() and (folder / BEST).exists()
    runner = Runner(
        model=model,
        work_dir=str(folder),
        train_dataloader=training,
        train_cfg={"by_epoch": True, "max_epochs": settings["epochs"]},
        val_dataloader=evaluation,
        val_cfg={},
        val_evaluator=Evaluator(validation),
        optim_wrapper=wrapper(
            optimizer=optimizer, accumulative_counts=accumulation, clip_grad=_clip(settings.get("clip_grad"))
        ),
        param_scheduler=_schedule(settings, len(training)),
        default_hooks={
            "logger": {"type": "LoggerHook", "interval": max(1, len(training) // 4)},
            "checkpoint": None,
        },
        custom_hooks=[EpochSeedHook(), SnapshotHook(folder, select_by, meta)],
        load_from=str(state) if resume else None,
        resume=resume,
        randomness={"seed": seed, "deterministic": not torch.cuda.is_available()},
        # SnapshotHook keeps the history; mmengine's own goes into a folder named by the second.
        visualizer={"type": "Visualizer", "vis_backends": []},
        cfg={"compile": settings["compile"]},
        experiment_name=folder.as_posix().replace("/", "_"),
    )
    runner.train()
    return runner.message_hub.get_info("history")


def learning_rate(settings: dict, power: float = 0.5) -> float:
    """The learning rate, given for ``reference_batch`` images, at ``batch_size`` images.

    Args:
        settings: keys learning_rate, batch_size, reference_batch.
        power: of the ratio of the two; 0.5 for Adam (Malladi et al., NeurIPS 2022), 1 for SGD (Goyal et
            al., 2017).
    """
    return settings["learning_rate"] * (settings["batch_size"] / settings["reference_batch"]) ** power


def parameter_groups(
    network: torch.nn.Module,
    rate: float,
    weight_decay: float,
    scale: Callable[[str], float] = lambda name: 1.0,
) -> list[dict]:
    """Trainable parameters by learning rate and weight decay.

    Biases, normalisation and tables of relative positions are not decayed.

    Args:
        network: its parameters' names are what ``scale`` sees.
        rate: learning rate where the scale is 1.
        weight_decay: of the weights.
        scale: factor on the learning rate of the parameter of this name.
    """
    groups: dict[tuple[float, float], list[torch.nn.Parameter]] = {}
    for name, parameter in network.named_parameters():
        if parameter.requires_grad:
            decayed = parameter.ndim > 1 and not name.endswith("relative_position_bias_table")
            groups.setdefault((rate * scale(name), weight_decay * decayed), []).append(parameter)
    return [{"params": params, "lr": lr, "weight_decay": decay} for (lr, decay), params in groups.items()]


def _clip(norm: float | None) -> dict | None:
    return {"max_norm": norm} if norm else None


def _schedule(settings: dict, steps_per_epoch: int) -> list[dict]:
    """Linear warm-up, then cosine to zero or steps to a tenth, counted in training batches."""
    total = settings["epochs"] * steps_per_epoch
    warmup = min(round(settings["warmup_epochs"] * steps_per_epoch), total - 1)
    linear = {"type": "LinearLR", "by_epoch": False, "start_factor": 0.01, "begin": 0, "end": warmup}
    if settings.get("milestones"):
        steps = [epoch * steps_per_epoch for epoch in settings["milestones"]]
        decay = {"type": "MultiStepLR", "by_epoch": False, "milestones": steps}
    else:
        decay = {"type": "CosineAnnealingLR", "by_epoch": False, "T_max": total - warmup, "begin": warmup}
    return [linear, decay] if warmup else [decay]
