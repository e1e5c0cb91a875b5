# What the rules share: the validated configuration and the functions that choose inputs from it.
import json
import os
import shlex
from pathlib import Path

from snakemake.utils import validate

validate(config, "../workflow/schemas/config.schema.yaml")

CHECKOUT = shlex.quote(str(Path(workflow.basedir).parent))
TASKS = ["classification", "detection", "segmentation"]
UNIT = "<results>/{protocol}/{task}/{model}/seed{seed}"


def under_root(folder):
    return os.path.normpath(os.path.join(config["root"], folder))


def one_of(names):
    return "|".join(names)


def code(*rooms):
    """The library files a verb depends on, so that editing them reruns it and nothing else."""
    return sorted(str(path) for room in rooms for path in Path("busflow").glob(room))


def as_json(value):
    """A part of the config as one argument of a script."""
    return json.dumps(value, sort_keys=True)


def sources_of(task):
    return [name for name, source in config["sources"].items() if task in source["tasks"]]


def units(task, file):
    """One file of every trained unit of a task."""
    return expand(
        f"{UNIT}/{file}",
        protocol=config["protocols"],
        task=task,
        model=config["models"][task],
        seed=config["seeds"],
    )


def training_settings(task):
    """Everything that shapes a model's weights, and nothing that does not (labels, mirrors)."""

    def settings(wildcards):
        entry = config["models"][task][wildcards.model]
        return as_json(
            {
                **config["training"][task],
                **{key: value for key, value in entry.items() if key not in ("label", "pretrained")},
                "balance_classes": config["protocols"][wildcards.protocol]["balance_classes"],
                "workers": config["compute"]["workers"],
            }
        )

    return settings


def pretrained_receipt(task):
    """The receipt of the weights that a model starts from, if it starts from any."""

    def receipt(wildcards):
        entry = config["models"][task][wildcards.model]
        return f"<data>/weights/{task}/{wildcards.model}.json" if entry.get("pretrained") else []

    return receipt


def pretrained_argument(task):
    """The training's argument that names those weights."""

    def argument(wildcards, input):
        pretrained = config["models"][task][wildcards.model].get("pretrained")
        return f"--pretrained {Path(input.pretrained).with_name(pretrained['file'])}" if pretrained else ""

    return argument


def pretrained_source(task, model):
    """A model's pretrained weights in the form in which archives are fetched."""
    pretrained = config["models"][task][model]["pretrained"]
    return {"archive": pretrained["file"], "urls": pretrained["urls"], "sha256": pretrained["sha256"]}
