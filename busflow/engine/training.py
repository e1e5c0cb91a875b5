"""One mmengine Runner for every task."""

import contextlib
import functools
import gc
import logging
import os
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple, Protocol

import pandas as pd
import torch
from mmengine.device import get_device
from mmengine.dist import get_world_size, init_dist, is_distributed, is_main_process
from mmengine.evaluator import BaseMetric, Evaluator
from mmengine.model import BaseModel, MMDistributedDataParallel
from mmengine.runner import Runner
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.data import DataLoader, Dataset

from busflow.engine import precision, runs
from busflow.engine.datasets import accumulation_steps, evaluation_loader, training_loader
from busflow.engine.hooks import HistoryHook, LoggedInfoHook, RandomnessHook, StateHook
from busflow.engine.memory import first_words, out_of_memory_is
from busflow.engine.meta import describe
from busflow.engine.progress import ProgressHook
from busflow.engine.provenance import describe_inputs, identity, run_record
from busflow.engine.signals import stop_requests
from busflow.errors import InterruptedRunError, is_out_of_memory
from busflow.tasks import TASKS

logger = logging.getLogger(__name__)
# What weight decay leaves alone, as recipes have it: all vectors (biases, normalisation, scales of layers) or
# normalisation by its name, either with the tables of relative positions; or nothing.
UNDECAYED: dict[str, Callable[[str, torch.nn.Parameter], bool]] = {
    "vectors": lambda name, parameter: parameter.ndim <= 1 or "relative_position_bias_table" in name,
    "norms": lambda name, _: any(part in name for part in ("norm", "relative_position_bias_table")),
    "nothing": lambda *_: False,
}
# Images at once at least where a network normalises over them, and with micro_batch: auto on a CPU at most.
NORMALISED_OVER, ON_A_CPU = 8, 8
# Share of the peak learning rate that a warm-up begins with, mmdet's.
WARMUP_START = 0.001


class Setup(NamedTuple):
    """What a task makes of its samples and settings.

    Attributes:
        model: takes the loaders' batches.
        optimizer: of the model's parameters, with the peak learning rate.
        validation: metric; its value that the task is selected by picks the best epoch.
        task: its name in ``busflow.tasks``.
        classes: in the order of the network's outputs.
        settings: of the run, with all that was derived: keys seed, epochs, batch_size, micro_batch,
            warmup_epochs, precision, compile, channels_last; validation_interval (1), milestones, poly_power
            and clip_grad if wanted.
        calibrate: what to learn from the validation images once the best weights are known: takes the model,
            which has them, and batches of all these images; its plain values go into weights.pth and run.json
            as ``calibration``. None: nothing.
    """

    model: BaseModel
    optimizer: torch.optim.Optimizer
    validation: BaseMetric
    task: str
    classes: tuple[str, ...]
    settings: dict
    calibrate: Callable[[BaseModel, Iterable[dict]], dict] | None = None


class Engine(Protocol):
    """What the module ``busflow.engine.<task>`` offers a training."""

    def read(self, inputs: dict[str, Path], name: str) -> Dataset:
        """The samples of a split: train, val or test."""

    def prepare(
        self, samples: Dataset, validation: Dataset, settings: dict, pretrained: Path | None
    ) -> Setup:
        """Everything for a training but its batches.

        Args:
            samples, validation: from ``read``.
            settings: of the model and its training (config/README.md), and its seed.
            pretrained: weights to start from; None: from scratch.
        """


def train(
    task: Engine,
    inputs: dict[str, Path],
    settings: dict,
    seed: int,
    origin: dict,
    compute: dict,
    state: Path,
    output: Path,
) -> None:
    """Train one model and publish weights.pth (those of the best epoch), history.csv and run.json.

    A training that was interrupted goes on from its newest state; one that is finished is published again.
    With the same identity and ``micro_batch`` the published weights have the same bytes on a CPU, whatever
    came in between. Started by torchrun, its processes share every batch.

    Args:
        task: module of the task.
        inputs: files and folders that the training reads, by role: those of ``busflow.tasks`` and, for a
            pretrained start, ``pretrained``.
        settings: of the model and its training (config/README.md).
        seed: of everything random.
        origin: what weights.pth says of where it comes from (``busflow.engine.meta``). Other words, of a
            licence for instance, train nothing again.
        compute: what does not change the result: keys ``workers`` (processes that load batches) and
            ``checkpoint_interval`` (seconds from one state to the next).
        state: folder of the unit's runs, kept apart by their identity: a run with other settings, data or
            code starts afresh.
        output: folder of the published files.

    Raises:
        InterruptedRunError: the process was asked to stop (SIGTERM, SIGINT); its state is saved.
        BusflowError: another process trains the unit, or the loss is no number.
    """
    settings = settings | {"seed": seed}
    described = describe_inputs(inputs)
    folder = state / identity(settings, described)
    if "LOCAL_RANK" in os.environ:  # started by torchrun
        if torch.cuda.is_available():
            init_dist("pytorch")
        else:  # mmengine thinks of GPUs only, here and where its Runner wraps the model
            torch.distributed.init_process_group("gloo")
    with runs.one_writer(state) if is_main_process() else contextlib.nullcontext():
        if not runs.is_finished(folder):
            samples, validation = task.read(inputs, "train"), task.read(inputs, "val")
            prepare = functools.partial(
                task.prepare, samples, validation, pretrained=inputs.get("pretrained")
            )
            setup, history = _fitted(prepare, samples, validation, settings, folder, compute, origin["model"])
            if is_main_process():
                device, seconds = torch.device(get_device()), history.rows[-1]["seconds"]
                calibration = _calibration(setup, history.weights, validation)
                record = run_record(setup.settings, described, device, seconds) | calibration
                record |= {"precision": precision.resolve(settings["precision"])}
                meta = describe(setup.task, setup.settings, setup.classes, samples) | calibration
                meta |= {"epoch": history.best_epoch, "origin": origin}
                runs.finish(folder, history.weights, meta, pd.DataFrame(history.rows), record)
        if is_main_process():
            runs.publish(folder, output, origin)


def _fitted(
    prepare: Callable[[dict], Setup],
    samples: Dataset,
    validation: Dataset,
    settings: dict,
    folder: Path,
    compute: dict,
    model: str,
) -> tuple[Setup, HistoryHook]:
    """Train with ``settings["micro_batch"]`` images at once, and with half as many each time they do not fit.

    ``auto`` begins with the whole batch. A training that runs out of memory goes on from its last state.

    Raises:
        BusflowError: what may not be halved any further does not fit.
    """
    settings = settings | {"compile": settings["compile"] and _compiles()}
    micro = settings["micro_batch"]
    if micro == "auto":
        micro = settings["batch_size"] if torch.cuda.is_available() else min(settings["batch_size"], ON_A_CPU)
    while True:
        torch.manual_seed(settings["seed"])  # of the weights that a network starts from
        setup = prepare(settings=settings | {"micro_batch": micro})
        loaders = _loaders(samples, validation, setup.settings, compute["workers"])
        try:
            return setup, _run(setup, loaders, folder, compute["checkpoint_interval"])
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            micro = loaders[0].batch_sampler.batch_size
            side = settings["image_size"]
            step = f"{model}, a step of {micro} images of {side} x {side} px"
            least = NORMALISED_OVER if _normalises_over_batches(setup.model) else 1
            if micro // 2 < least or is_distributed():
                with out_of_memory_is(step, "lower micro_batch or image_size of the model in the config"):
                    raise
            micro //= 2
            logger.warning("%s does not fit (%s); going on with %d at once", step, first_words(error), micro)
        # Not in the handler, whose traceback holds what filled the memory.
        del setup, loaders
        gc.collect()
        torch.cuda.empty_cache()


def _normalises_over_batches(model: BaseModel) -> bool:
    return any(isinstance(module, _BatchNorm) and module.training for module in model.train().modules())


def _loaders(
    samples: Dataset, validation: Dataset, settings: dict, workers: int
) -> tuple[DataLoader, DataLoader]:
    """Of training and validation; the number of loader processes does not change the result."""
    seed, batch, micro = (settings[key] for key in ("seed", "batch_size", "micro_batch"))
    return training_loader(samples, batch, micro, seed, workers), evaluation_loader(
        validation, micro, workers
    )


def _run(setup: Setup, loaders: tuple[DataLoader, DataLoader], folder: Path, interval: float) -> HistoryHook:
    """Train to the last epoch, from the newest state if there is one.

    Linear warm-up, then decay: to a tenth at each of ``settings["milestones"]`` (epochs), to zero with the
    power ``settings["poly_power"]`` of the steps left, or else to zero along a cosine. Gradients are scaled
    down to the norm ``settings["clip_grad"]`` if there is one.
    """
    settings, (training, evaluation) = setup.settings, loaders
    accumulation = accumulation_steps(settings["batch_size"], settings["micro_batch"])
    computed_in = precision.resolve(settings["precision"])
    logger.info("computes in %s", computed_in)
    model = as_trained(setup)
    if is_distributed() and not torch.cuda.is_available():
        model = MMDistributedDataParallel(model)
    newest = runs.newest_state(folder)
    logged = max(1, len(training) // 4)  # batches
    history = HistoryHook(TASKS[setup.task].select_by)
    progress = ProgressHook(folder, history, training.batch_sampler.batch_size * get_world_size())
    # mmengine's own log repeats what it prints, and an open file stands in the way of removing its folder.
    with stop_requests() as stop, tempfile.TemporaryDirectory() as scratch:
        runner = Runner(
            model=model,
            work_dir=scratch,
            train_dataloader=training,
            train_cfg={
                "by_epoch": True,
                "max_epochs": settings["epochs"],
                "val_interval": settings.get("validation_interval", 1),
            },
            val_dataloader=evaluation,
            val_cfg={"fp16": computed_in != "fp32"},  # mmengine's word for either half precision
            val_evaluator=Evaluator(setup.validation),
            optim_wrapper=precision.wrap(
                computed_in,
                optimizer=setup.optimizer,
                accumulative_counts=accumulation,
                clip_grad=_clip(settings.get("clip_grad")),
            ),
            param_scheduler=_schedule(settings, len(training)),
            default_hooks={
                "runtime_info": LoggedInfoHook(logged),
                "logger": {"type": "LoggerHook", "interval": logged},
                "checkpoint": None,
            },
            custom_hooks=[
                RandomnessHook(),
                history,
                progress,
                StateHook(folder, interval, accumulation, stop),
            ],
            launcher="pytorch" if is_distributed() else "none",
            load_from=f"{runs.SCHEME}{newest}" if newest else None,
            resume=newest is not None,
            randomness={"seed": settings["seed"], "deterministic": not torch.cuda.is_available()},
            # HistoryHook keeps the history; mmengine's own goes into a folder named by the second.
            visualizer={"type": "Visualizer", "vis_backends": []},
            experiment_name=folder.as_posix().replace("/", "_"),
        )
        try:
            runner.train()
        except InterruptedRunError:
            progress.write(runner, "interrupted")
            raise
    return history


def as_trained(setup: Setup) -> BaseModel:
    """The model in the layout of memory that its settings name, compiled if they say so.

    Compiled is what has the same shapes in every batch: a classifier, and the features of other networks.
    What a detector makes its targets with would be compiled again and again.
    """
    model, settings = setup.model, setup.settings
    if settings["channels_last"]:
        model = model.to(memory_format=torch.channels_last)
    if settings["compile"]:
        name = "extract_feat" if hasattr(model.network, "extract_feat") else "forward"
        setattr(model.network, name, torch.compile(getattr(model.network, name)))
    return model


def _compiles() -> bool:
    """Whether torch can compile here, which takes a compiler for the device; says why if it cannot."""
    try:
        torch.compile(lambda x: x + 1)(torch.zeros(1, device=get_device()))
    except Exception as error:  # of any kind: they are the compilers' own
        logger.warning("compile: true is passed over: %s", next(iter(str(error).splitlines()), repr(error)))
        return False
    torch._dynamo.config.suppress_errors = True  # what it cannot compile of a network runs as it is
    return True


def _calibration(setup: Setup, weights: dict[str, torch.Tensor], validation: Dataset) -> dict[str, dict]:
    """``{"calibration": ...}`` of the best weights, which the model has from here on; or nothing."""
    if setup.calibrate is None:
        return {}
    setup.model.network.load_state_dict(weights)
    # By this process alone: the others of a distributed training are done.
    batches = evaluation_loader(validation, setup.settings["micro_batch"], workers=0, shared=False)
    return {"calibration": setup.calibrate(setup.model.eval(), batches)}


def learning_rate(settings: dict, power: float = 0.5) -> float:
    """The learning rate, given for ``reference_batch`` images, at ``batch_size`` images.

    Args:
        settings: keys learning_rate, batch_size, reference_batch.
        power: of the ratio of the two; 0.5 for Adam (Malladi et al., NeurIPS 2022), 1 for SGD (Goyal et
            al., 2017).
    """
    return settings["learning_rate"] * (settings["batch_size"] / settings["reference_batch"]) ** power


def optimizer(
    network: torch.nn.Module, settings: dict, scale: Callable[[str], float] = lambda name: 1.0
) -> torch.optim.Optimizer:
    """AdamW, or SGD with momentum, with the peak learning rate.

    Args:
        network: that is trained.
        settings: keys learning_rate, batch_size, reference_batch, weight_decay; optimizer (adamw or sgd)
            and undecayed (of ``UNDECAYED``) where there is a choice.
        scale: see ``parameter_groups``.
    """
    sgd = settings.get("optimizer") == "sgd"
    rate = learning_rate(settings, power=1 if sgd else 0.5)
    groups = parameter_groups(
        network, rate, settings["weight_decay"], scale, settings.get("undecayed", "vectors")
    )
    if sgd:
        # Never fused: where the loss scaler skips a step for an overflow, fused SGD spoils its momentum.
        return torch.optim.SGD(groups, lr=rate, momentum=0.9)
    # Fused: one pass over the weights instead of ten; some of the networks have 200 million.
    return torch.optim.AdamW(groups, lr=rate, fused=True)


def parameter_groups(
    network: torch.nn.Module,
    rate: float,
    weight_decay: float,
    scale: Callable[[str], float] = lambda name: 1.0,
    undecayed: str = "vectors",
) -> list[dict]:
    """Trainable parameters by learning rate and weight decay.

    Args:
        network: its parameters' names are what ``scale`` sees.
        rate: learning rate where the scale is 1.
        weight_decay: of the weights.
        scale: factor on the learning rate of the parameter of this name.
        undecayed: what has no weight decay, of ``UNDECAYED``.
    """
    is_undecayed = UNDECAYED[undecayed]
    groups: dict[tuple[float, float], list[torch.nn.Parameter]] = {}
    for name, parameter in network.named_parameters():
        if parameter.requires_grad:
            decay = 0.0 if is_undecayed(name, parameter) else weight_decay
            groups.setdefault((rate * scale(name), decay), []).append(parameter)
    return [{"params": params, "lr": lr, "weight_decay": decay} for (lr, decay), params in groups.items()]


def _clip(norm: float | None) -> dict | None:
    return {"max_norm": norm} if norm else None


def _schedule(settings: dict, steps_per_epoch: int) -> list[dict]:
    """Linear warm-up, then the decay that ``train`` describes, counted in training batches."""
    total = settings["epochs"] * steps_per_epoch
    warmup = min(round(settings["warmup_epochs"] * steps_per_epoch), total - 1)
    linear = {"type": "LinearLR", "by_epoch": False, "start_factor": WARMUP_START, "begin": 0, "end": warmup}
    if settings.get("milestones"):
        steps = [epoch * steps_per_epoch for epoch in settings["milestones"]]
        decay = {"type": "MultiStepLR", "by_epoch": False, "milestones": steps}
    elif settings.get("poly_power"):
        # mmengine is at zero one step before the end; that step would be wasted.
        span = {"begin": warmup, "end": total + 1}
        decay = {"type": "PolyLR", "by_epoch": False, "power": settings["poly_power"], **span}
    else:
        decay = {"type": "CosineAnnealingLR", "by_epoch": False, "T_max": total - warmup, "begin": warmup}
    return [linear, decay] if warmup else [decay]
