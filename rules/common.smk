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


MERGED = dict(config)
config.clear()
config.update(without_nulls(MERGED))
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


def splits(task):
    """The split of a task under every protocol."""
    return expand("<data>/splits/{protocol}/{task}.csv", protocol=config["protocols"], task=task)


def as_options(inputs):
    """Named input files as the options of a script, paths quoted."""

    def options(wildcards, input):
        return " ".join(f"--{name} {shlex.join(flatten_paths(input[name]))}" for name in inputs)

    return options


def flatten_paths(paths):
    return [paths] if isinstance(paths, str) else list(paths)


def training_settings(task):
    """Everything that shapes a model's weights, and nothing that does not (labels, mirrors)."""

    def settings(wildcards):
        entry = config["models"][task][wildcards.model]
        shaping = {
            **config["training"][task],
            **{key: value for key, value in entry.items() if key not in ("label", "pretrained")},
            "balance_classes": config["protocols"][wildcards.protocol]["balance_classes"],
        }
        return as_json(dict(sorted(shaping.items())))  # the order of an overlay must not retrain

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
    return {"archive": pretrained["file"], "homepage": pretrained["urls"][0], **pretrained}


# What the presentation depends on: labels and titles, so that a new label redraws and retrains nothing.
PRESENTATION = as_json(
    {
        "study": config["study"],
        "protocols": config["protocols"],
        "sources": {
            name: {key: source[key] for key in ("label", "original_task", "tasks")}
            for name, source in config["sources"].items()
        },
        "models": {
            task: {
                name: {"label": entry["label"], "batch_size": entry["batch_size"]}
                for name, entry in models.items()
            }
            for task, models in config["models"].items()
        },
        "figures": config["figures"],
    }
)

Product = namedtuple("Product", "label command inputs")

TABLES = {
    "table1": Product("Table 1: sources", "table1", {"images": "<data>/index/images.csv"}),
    "table2": Product("Table 2: classification split", "table2", {"splits": splits("classification")}),
    "table3": Product(
        "Table 3: detection split",
        "table3",
        {"splits": splits("detection"), "annotations": "<data>/index/annotations.csv"},
    ),
    "table4": Product("Table 4: segmentation split", "table4", {"splits": splits("segmentation")}),
    "table5": Product(
        "Table 5: classifiers", "table5", {"facts": "<results>/model_facts/classification.json"}
    ),
    "classification": Product(
        "Classification: accuracy and F1",
        "classification",
        {"predictions": units("classification", "predictions.csv"), "splits": splits("classification")},
    ),
    "classification_per_class": Product(
        "Classification: precision, recall and F1 by class",
        "classification_per_class",
        {"metrics": units("classification", "metrics.json")},
    ),
}

LEAKAGE = expand("<results>/audit/leakage/{protocol}_classification.json", protocol=config["protocols"])

FIGURES = {
    "fig2": Product("Figure 2: examples", "fig2", {"images": "<data>/index/images.csv"}),
    "classification_summary": Product(
        "Classification: accuracy and F1 with intervals",
        "summary",
        {"table": "<results>/tables/classification.csv"},
    ),
    "classification_timing": Product(
        "Classification: prediction time", "timing", {"timing": units("classification", "timing.json")}
    ),
    "leakage": Product(
        "Leakage of the splits",
        "leakage",
        {"leakage": LEAKAGE},
    ),
}
for protocol, entry in config["protocols"].items():
    label = entry["label"].lower()
    FIGURES[f"fig3_{protocol}"] = Product(
        f"Figure 3: confusion matrices, {label}",
        "fig3",
        {"metrics": units("classification", "metrics.json", protocol=protocol)},
    )
    FIGURES[f"classification_curves_{protocol}"] = Product(
        f"Classification: training curves, {label}",
        "curves",
        {"history": units("classification", "history.csv", protocol=protocol)},
    )
    FIGURES[f"classification_roc_{protocol}"] = Product(
        f"Classification: ROC, {label}",
        "roc",
        {"predictions": units("classification", "predictions.csv", protocol=protocol)},
    )
    for model, model_entry in config["models"]["classification"].items():
        FIGURES[f"fig3_{protocol}_{model}"] = Product(
            f"Figure 3: {model_entry['label']}, {label}",
            "fig3",
            {"metrics": units("classification", "metrics.json", protocol=protocol, model=model)},
        )
