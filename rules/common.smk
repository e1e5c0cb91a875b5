# What the rules share: the config of the study, and the functions that choose inputs from it.
import json
import os
import shlex
import sys
from collections import namedtuple
from pathlib import Path

import yaml
from snakemake.utils import validate

CHECKOUT = Path(workflow.basedir).parent
sys.path.insert(0, str(CHECKOUT))

from busflow.cli import told_why
from busflow.config import Text, check, check_files, check_networks, compared, resolve, training_settings
from busflow.data.catalogue import own_sources
from busflow.data.folders import folder_state
from busflow.errors import BusflowError
from busflow.protocols import division, families, sources_left_out, whole
from busflow.tasks import TASKS

try:
    check_files(workflow.configfiles)
    resolved = resolve(config)
    config.clear()
    config.update(resolved)
    validate(config, "../workflow/schemas/config.schema.yaml")
    check(config)
    if workflow.is_main_process:  # its jobs need not ask again
        check_networks(config, Path(".snakemake/known_networks.json"))
except BusflowError as error:
    raise WorkflowError(str(error)) from None

config["study"] = {key: Text(value) if value else value for key, value in config["study"].items()}

# Protocols whose results stand for themselves; those that are folds, by family; those that leave sources out.
WHOLE = whole(config["protocols"])
FOLDS = families(config["protocols"])
LEFT_OUT = [name for family in sources_left_out(config["protocols"]) for name in family]
STUDIED = [task for task in TASKS if task in config["models"]]
# Sources that are trained on, and those that only test.
OWN = own_sources(config)
EXTERNAL = {name: source for name, source in config["sources"].items() if name not in OWN}
UNIT = "<results>/{protocol}/{task}/{model}/seed{seed}"

# Files that trainings, predictions and evaluations read, by the names of busflow/tasks.py. Rooms add theirs.
INPUTS = {
    "images": "<data>/index/images.csv",
    "annotations": "<data>/index/annotations.csv",
    "marks": "<data>/index/marks.csv",
    "packed_images": "<data>/packed/{task}/images.npy",
    "packed_index": "<data>/packed/{task}/index.csv",
    "split": "<data>/splits/{protocol}/{task}.csv",
    "record": f"{UNIT}/run.json",
}

# Where a trained unit is tested: on the test split of its protocol, and on external sources. Under which folder,
# by which files, and what the rules' names begin with.
Test = namedtuple("Test", "folder files prefix")
TESTS = [Test("", INPUTS, "")]

# Library files of each task's own: of its trainings and predictions, and of its evaluations.
CODE = {}
Code = namedtuple("Code", "engine metrics", defaults=[[]])

# What a study presents, by file name: title, function of busflow/tables or busflow/figures, its files by option, the
# caption if it is not of the same name, and library files beyond those of all tables. Rooms add theirs.
TABLES = {}
FIGURES = {}
Product = namedtuple("Product", "title function files caption code", defaults=[None, []])

# Leakage of the protocols as classifiers meet it, where it is measured; and files that nothing else asks for.
LEAKAGE = []
ALSO_WANTED = []


def under_root(folder):
    return os.path.normpath(os.path.join(config["root"], folder))


def one_of(names):
    return "|".join(names)


def code(*rooms):
    """The library files a verb depends on, so that editing them reruns it and nothing else."""
    return sorted(str(path) for room in rooms for path in Path("busflow").glob(room))


def json_text(value):
    """A part of the config as one argument of a script, in the order of the config.

    The report puts arguments into a script element, which the text must not end.
    """
    return json.dumps(value).replace("<", "\\u003c")


def parts(entry, keys):
    """Those keys of an entry that it has."""
    return {key: entry[key] for key in keys if key in entry}


def as_json(value):
    """The same as a parameter; a plain text would be searched for wildcards."""
    return lambda wildcards: json_text(value)


def shown(text):
    """A label in the report, which takes braces for wildcards and puts it into a script element.

    Neither has an escape for it; a space of no width keeps both from seeing what they look for.
    """
    return text.replace("{", "{\u200b").replace("<", "<\u200b")


def sources_of(task, sources=OWN):
    return [name for name, source in sources.items() if task in source["tasks"]]


def units(task, file, **only):
    """One file of every unit of a task that the study compares, or of those of some protocols or models."""
    wanted = {
        "protocol": list(config["protocols"]),
        "model": compared(config["models"][task]),
        "seed": config["seeds"],
    } | only
    return expand(f"{UNIT}/{file}", task=task, **wanted)


def finished_units(task):
    """All files of the units of a task, so that whatever of them is missing is made again."""
    of_training = ["weights.pth", "history.csv", "run.json"]
    of_test = [TASKS[task].predictions, "timing.json", "metrics.json", "resamples.npz", "scores.json"]
    every = {"model": list(config["models"][task])}
    own = [path for name in (*of_training, *of_test) for path in units(task, name, **every)]
    return own + [path for name in of_test for path in tested_outside(task, name, **every)]


def tested_outside(task, file, **only):
    """One file of each external test of each unit of a task that the study compares, or of some."""
    sources = sources_of(task, EXTERNAL)
    return [path for source in sources for path in units(task, f"external/{source}/{file}", **only)]


def units_of(tasks, file):
    return [path for task in tasks for path in units(task, file)]


def read_by_card(tasks):
    """What a card reads of its tasks, by option; what a study lacks is left out."""
    inputs = {
        "metrics": units_of(tasks, "metrics.json"),
        "splits": [path for task in tasks for path in splits(task)],
        "external": [path for task in tasks for path in tested_outside(task, "metrics.json")],
        "leakage": LEAKAGE if "classification" in tasks else [],
    }
    return {name: paths for name, paths in inputs.items() if paths}


def of_task(task, path):
    """A path of a task, for any protocol, model and seed."""
    return path.replace("{task}", task)


def unit_file(task, file, test=TESTS[0]):
    """One file of a unit of a task, of one of its tests."""
    return of_task(task, f"{UNIT}/{test.folder}{file}")


def inputs_of(task, verb, files=INPUTS):
    """What a task reads at a verb (train, predict, evaluate), by option."""
    return {name: of_task(task, files[name]) for name in getattr(TASKS[task], verb)}


def memory_of_training(task):
    """Megabytes of a node's memory: more at each attempt, since a job that is killed for it cannot say so.

    One that ended in words, for want of a GPU's memory for instance, gets no more by asking for more.
    """

    def megabytes(wildcards, attempt):
        unit = f"{wildcards.protocol}/{task}/{wildcards.model}/seed{wildcards.seed}"
        return 16000 * (1 if told_why(Path(under_root(f"logs/{unit}/train.log"))) else attempt)

    return megabytes


def place_in_registry(task):
    return lambda wildcards: list(config["models"][task]).index(wildcards.model)


def splits(task, protocols=config["protocols"]):
    """The split of a task under every protocol, or under some."""
    return expand("<data>/splits/{protocol}/{task}.csv", protocol=protocols, task=task)


def leakage_of(tasks):
    """What is measured of the splits of tasks, under every protocol."""
    return expand("<results>/audit/leakage/{protocol}_{task}.json", protocol=config["protocols"], task=tasks)


def known_of(task, *more):
    """What is known of the images of a task, by option, for any protocol."""
    names = ["images", "annotations", *more, *(["masks"] if task == "segmentation" else [])]
    return {name: of_task(task, INPUTS[name]) for name in names}


def in_protocols(files, protocols):
    """The same for some protocols; what is of no protocol stays one file."""
    return {name: expand(path, protocol=protocols) if "{" in path else path for name, path in files.items()}


def as_options(inputs):
    """Named input files as the options of a script, paths quoted."""

    def options(wildcards, input):
        return " ".join(
            f"--{name.replace('_', '-')} {shlex.join(flatten_paths(input[name]))}" for name in inputs
        )

    return options


def beside(metrics):
    """The resamples that lie beside a metrics.json and are read with it."""
    return metrics.replace("metrics.json", "resamples.npz")


def with_resamples(inputs):
    """Of named input files, the resamples that lie beside those that are metrics."""
    paths = [path for each in inputs.values() for path in flatten_paths(each)]
    return [beside(path) for path in paths if Path(path).name == "metrics.json"]


def flatten_paths(paths):
    return [paths] if isinstance(paths, str) else list(paths)


def settings_of(task):
    """What shapes the weights of a model of a task, as one argument."""
    return lambda wildcards: json_text(training_settings(config, wildcards.protocol, task, wildcards.model))


def origin(task):
    """What a model's weights say of where they come from, on one line each."""

    def words(wildcards):
        protocol = config["protocols"][wildcards.protocol]
        learnt = [name for name in sources_of(task) if name not in protocol.get("leave_out", [])]
        sources = [
            {"name": name, **parts(config["sources"][name], ["licence", "citation"])} for name in learnt
        ]
        study = {"study": config["study"]["name"], "notice": config["study"]["notice"]}
        place = {"protocol": wildcards.protocol, "model": wildcards.model, "seed": int(wildcards.seed)}
        return json_text(on_one_line({**study, **place, "sources": sources}))

    return words


def on_one_line(value):
    """The same with every run of white space in its texts made one space."""
    if isinstance(value, dict):
        return {key: on_one_line(each) for key, each in value.items()}
    if isinstance(value, list):
        return [on_one_line(each) for each in value]
    return " ".join(value.split()) if isinstance(value, str) else value


def starting_weights():
    """Names of the weights that any model starts from."""
    entries = [entry for models in config["models"].values() for entry in models.values()]
    return sorted({entry["pretrained"] for entry in entries if "pretrained" in entry})


def weights_receipt(entry):
    """The receipt of the weights that a model's entry names, if there is one and it names any."""
    weights = entry and entry.get("pretrained")
    return f"<data>/archives/weights/{weights}.json" if weights else []


def weights_file(entry, receipt):
    """The file of these weights, which lies beside the receipt."""
    return str(Path(receipt).with_name(config["weights"][entry["pretrained"]]["file"]))


def pretrained_receipt(task):
    """The receipt of the weights that a model starts from, if it starts from any."""
    return lambda wildcards: weights_receipt(config["models"][task][wildcards.model])


def pretrained_argument(task):
    """The training's argument that names those weights."""

    def argument(wildcards, input):
        entry = config["models"][task][wildcards.model]
        if "pretrained" not in entry:
            return ""
        return f"--pretrained {shlex.quote(weights_file(entry, input.pretrained))}"

    return argument


def weights_source(weights):
    """Pretrained weights in the form in which archives are fetched."""
    return {"archive": weights["file"], "homepage": weights["urls"][0], **weights}
