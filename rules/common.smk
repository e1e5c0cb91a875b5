# What the rules share: the validated configuration and the functions that choose inputs from it.
import json
import os
import shlex
from collections import namedtuple
from pathlib import Path

import yaml
from snakemake.utils import validate


def without_nulls(node):
    """An overlay takes a key out by setting it to null."""
    if isinstance(node, dict):
        return {key: without_nulls(value) for key, value in node.items() if value is not None}
    return node


merged = dict(config)
config.clear()
config.update(without_nulls(merged))
validate(config, "../workflow/schemas/config.schema.yaml")

CHECKOUT = shlex.quote(str(Path(workflow.basedir).parent))
TASKS = ["classification", "detection", "segmentation"]
UNIT = "<results>/{protocol}/{task}/{model}/seed{seed}"

# What the trainings and predictions of all tasks run, but for the choice of a GPU, which shapes no result.
ENGINE = [
    *(f"engine/{name}.py" for name in ("augmentation", "checkpoints", "datasets", "hooks", "progress")),
    *(f"engine/{name}.py" for name in ("provenance", "runs", "signals", "timing", "training")),
    *("models/weights.py", "models/rules.py", "data/images.py", "data/packing.py"),
]

# Of each task: the input files of its three rules by their option, the name of its predictions, the keys of
# a protocol that shape its trainings and of the timing that its prediction heeds, and the library files of its own.
Unit = namedtuple("Unit", "train predict evaluate predictions of_protocol timing code evaluation_code")
UNITS = {}


def under_root(folder):
    return os.path.normpath(os.path.join(config["root"], folder))


def one_of(names):
    return "|".join(names)


def code(*rooms):
    """The library files a verb depends on, so that editing them reruns it and nothing else."""
    return sorted(str(path) for room in rooms for path in Path("busflow").glob(room))


def as_json(value):
    """A part of the config as one argument of a script, in the order of the config."""
    return json.dumps(value)


def sources_of(task):
    return [name for name, source in config["sources"].items() if task in source["tasks"]]


def units(task, file, **only):
    """One file of every trained unit of a task, or of those of one protocol or model."""
    wanted = {
        "protocol": list(config["protocols"]),
        "model": list(config["models"][task]),
        "seed": config["seeds"],
    } | only
    return expand(f"{UNIT}/{file}", task=task, **wanted)


def finished_units(task):
    """All files of the units of a task, so that whatever of them is missing is made again."""

    def files(wildcards):
        of_training = ["weights.pth", "history.csv", "run.json"]
        of_prediction = [UNITS[task].predictions, "timing.json"]
        names = [*of_training, *of_prediction, "metrics.json", "scores.json"]
        return [path for name in names for path in units(task, name)]

    return files


def unit_file(task, file):
    """One file of a unit of a task, for any protocol, model and seed."""
    return f"{UNIT}/{file}".replace("{task}", task)


def packed(task):
    """The images of a task, as trainings and predictions read them."""
    return {
        "images": "<data>/index/images.csv",
        "packed_images": f"<data>/packed/{task}/images.npy",
        "packed_index": f"<data>/packed/{task}/index.csv",
    }


def place_in_registry(task):
    return lambda wildcards: list(config["models"][task]).index(wildcards.model)


def splits(task):
    """The split of a task under every protocol."""
    return expand("<data>/splits/{protocol}/{task}.csv", protocol=config["protocols"], task=task)


def as_options(inputs):
    """Named input files as the options of a script, paths quoted."""

    def options(wildcards, input):
        return " ".join(
            f"--{name.replace('_', '-')} {shlex.join(flatten_paths(input[name]))}" for name in inputs
        )

    return options


def flatten_paths(paths):
    return [paths] if isinstance(paths, str) else list(paths)


def training_settings(task, of_protocol=()):
    """Everything that shapes a model's weights, and nothing that does not (labels, mirrors)."""

    def settings(wildcards):
        entry = config["models"][task][wildcards.model]
        protocol = config["protocols"][wildcards.protocol]
        shaping = {
            **config["training"][task],
            **{key: value for key, value in entry.items() if key not in ("label", "pretrained")},
            **{key: protocol[key] for key in of_protocol},
        }
        return as_json(dict(sorted(shaping.items())))  # the order of an overlay must not retrain

    return settings


def pretrained_weights(task, model):
    """Name and entry of the weights that a model starts from; None: it starts from scratch."""
    name = config["models"][task][model].get("pretrained")
    if name and name not in config["weights"]:
        raise WorkflowError(
            f"models.{task}.{model}.pretrained names {name}, but the config's weights are "
            f"{', '.join(config['weights']) or 'none'}"
        )
    return (name, config["weights"][name]) if name else None


def starting_weights():
    """Names of the weights that any model starts from."""
    pairs = [(task, model) for task in TASKS for model in config["models"][task]]
    return sorted({weights[0] for pair in pairs if (weights := pretrained_weights(*pair))})


def pretrained_receipt(task):
    """The receipt of the weights that a model starts from, if it starts from any."""

    def receipt(wildcards):
        weights = pretrained_weights(task, wildcards.model)
        return f"<data>/archives/weights/{weights[0]}.json" if weights else []

    return receipt


def pretrained_argument(task):
    """The training's argument that names those weights."""

    def argument(wildcards, input):
        weights = pretrained_weights(task, wildcards.model)
        return f"--pretrained {Path(input.pretrained).with_name(weights[1]['file'])}" if weights else ""

    return argument


def weights_source(weights):
    """Pretrained weights in the form in which archives are fetched."""
    return {"archive": weights["file"], "homepage": weights["urls"][0], **weights}
