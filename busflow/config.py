"""The config of a study: read with care, cut to what is asked for, and checked as a whole."""

import json
import re
import subprocess
import sys
from collections.abc import Iterable, Iterator
from importlib.metadata import version
from pathlib import Path
from urllib.parse import unquote, urlsplit

import yaml

from busflow.data.catalogue import check_source, complete, own_sources
from busflow.errors import BusflowError
from busflow.files import write_json
from busflow.protocols import check_protocols, with_labels
from busflow.tasks import TASKS

# YAML 1.1 takes a number with an exponent for text unless it has a point and the exponent a sign.
ALMOST_A_NUMBER = re.compile(r"[-+]?\d+(?:\.\d*)?[eE][-+]?\d+")
# What a model's entry says that shapes no training.
UNSHAPING = ("label", "pretrained", "ablation_of")
# Backbones of an architecture that are not timm's.
SWINS = ("swin_base",)
MIX_TRANSFORMERS = ("b0", "b1", "b2", "b3", "b4")
OWN = {"cascade_rcnn": SWINS, "gfl": SWINS, "segformer": MIX_TRANSFORMERS}
SCHEMA = Path(__file__).parents[1] / "workflow/schemas/config.schema.yaml"
# What reStructuredText would take for markup.
MARKUP = re.compile(r"([^\w\s])")


class Text(str):
    """Words of the config that stand in captions."""

    @property
    def rst(self) -> str:
        """The same words where reStructuredText is expected: on one line, and no markup."""
        return MARKUP.sub(r"\\\1", " ".join(self.split()))


class _StrictLoader(yaml.SafeLoader):
    """Refuses a key that is given twice, and what looks like a number and is none."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
        lines: dict[str, int] = {}
        for key, _ in node.value:
            line = key.start_mark.line + 1
            if key.value in lines:
                raise BusflowError(
                    f"line {line} gives {key.value!r} again, after line {lines[key.value]}; the last would "
                    "win: keep one"
                )
            if isinstance(key.value, str):
                lines[key.value] = line
        return super().construct_mapping(node, deep)

    def construct_scalar(self, node: yaml.ScalarNode) -> str:
        if node.style is None and node.tag.endswith(":str") and ALMOST_A_NUMBER.fullmatch(node.value):
            raise BusflowError(
                f"{node.value} in line {node.start_mark.line + 1} is text in YAML; for the number write "
                f"{float(node.value):.1e}, for the text put it in quotes"
            )
        return super().construct_scalar(node)


def check_files(paths: Iterable[Path | str]) -> None:
    """Read the files of a config strictly; Snakemake's own reading is not.

    Raises:
        BusflowError: a file is no YAML, gives a key twice, or has a number that YAML takes for text.
    """
    for path in paths:
        try:
            yaml.load(Path(path).read_text(encoding="utf-8"), _StrictLoader)
        except (BusflowError, yaml.YAMLError) as error:
            raise BusflowError(f"{path}: {' '.join(str(error).split())}") from error


def read_study(*overlays: Path) -> dict:
    """The config of a study as its workflow has it: merged, without nulls, checked, with all defaults.

    Args:
        overlays: of config.yaml in the working directory, the last wins.

    Raises:
        BusflowError: a file or the whole is wrong; the message names the key.
    """
    # Heavy for a module that every job imports.
    from snakemake.exceptions import WorkflowError
    from snakemake.utils import update_config, validate

    paths = [Path("config.yaml"), *overlays]
    check_files(paths)
    config: dict = {}
    for path in paths:
        update_config(config, yaml.safe_load(path.read_text(encoding="utf-8")))
    config = resolve(config)
    try:
        validate(config, str(SCHEMA))
    except WorkflowError as error:
        raise BusflowError(str(error)) from error
    check(config)
    return config


def training_settings(config: dict, protocol: str, task: str, model: str) -> dict:
    """Everything that shapes a model's weights, and nothing that does not (labels, mirrors), by key."""
    entry = config["models"][task][model]
    shaping = {
        **config["training"][task],
        **{key: value for key, value in entry.items() if key not in UNSHAPING},
        **{key: config["protocols"][protocol][key] for key in TASKS[task].of_protocol},
    }
    return dict(sorted(shaping.items()))  # the order of an overlay must not retrain


def compared(models: dict[str, dict]) -> list[str]:
    """Names of the models of a task that a study compares; ablations stand in a table of their own."""
    return [name for name, entry in models.items() if "ablation_of" not in entry]


def resolve(config: dict) -> dict:
    """A merged config without its nulls, the models that ``only`` leaves out, and sources that nothing needs.

    Protocols without a label are called by their name.

    Raises:
        BusflowError: ``only`` names what the config lacks, a source's file is missing, or nothing is left to
        do.
    """
    config = _without_nulls(config)
    models = _chosen(config.get("models", {}), config.pop("only", None))
    if not models:
        raise BusflowError("the config has no model of any task; name some under models")
    config["models"] = models
    sources = {name: complete(name, source) for name, source in config.get("sources", {}).items()}
    config["protocols"] = with_labels(config.get("protocols", {}))
    sources = {
        name: source | {"tasks": [task for task in source["tasks"] if task in models or task not in TASKS]}
        if isinstance(source, dict) and isinstance(source.get("tasks"), list)
        else source
        for name, source in sources.items()
    }
    config["sources"] = {
        name: source
        for name, source in sources.items()
        if not isinstance(source, dict) or source.get("tasks") != []
    }
    return config


def check(config: dict) -> None:
    """See that the parts of a validated config fit each other.

    Raises:
        BusflowError: a task lacks data or hyperparameters, a source's description cannot be followed, a
            protocol cannot be made, a model's weights are not there, or its rates cannot go by layers.
    """
    for name, source in config["sources"].items():
        check_source(name, source, config["root"])
    own = own_sources(config)
    for task, models in config["models"].items():
        if not any(task in source["tasks"] for source in own.values()):
            raise BusflowError(
                f"no source of the config is there to learn {task} from; add one, or leave the task out "
                f"(models.{task}: null)"
            )
        if task not in config["training"]:
            raise BusflowError(f"models.{task} needs training.{task}, the hyperparameters of the task")
        for name, entry in models.items():
            _check_weights(f"models.{task}.{name}.pretrained", entry.get("pretrained"), config)
            _check_ablation(task, name, models)
            decay = entry.get("layer_decay", config["training"][task].get("layer_decay", 1))
            if decay != 1 and not entry.get("backbone", "").startswith("convnext"):
                raise BusflowError(
                    f"models.{task}.{name}: a layer_decay of {decay} is for ConvNeXts alone, whose layers it "
                    "goes by; set it to 1"
                )
    check_protocols(config)


def check_networks(config: dict, memory: Path) -> None:
    """See that timm has the networks that the models of a validated config are made of.

    Asking timm takes seconds, since torch comes with it: in a process of its own, and once for each network.

    Args:
        config: of the study.
        memory: file of the networks that were asked for already, with the packages' versions.

    Raises:
        BusflowError: a network does not exist or cannot be what the config wants of it.
    """
    known = set(json.loads(memory.read_text(encoding="utf-8"))) if memory.is_file() else set()
    versions = [version(package) for package in ("timm", "torch")]
    asked = {json.dumps([*versions, *network[1:]]): network for network in _networks(config)}
    if not (new := {text: network for text, network in asked.items() if text not in known}):
        return
    script = Path(__file__).parents[1] / "scripts/check_models.py"
    done = subprocess.run(
        [sys.executable, script],
        input=json.dumps(list(new.values())),
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise BusflowError(done.stderr.strip().rsplit("error: ", 1)[-1])
    write_json(memory, sorted(known | set(new)))


def _networks(config: dict) -> Iterator[tuple[str, str, dict | None]]:
    """Those of timm's: the key that names one, its name, and a classifier's arguments (None: a backbone)."""
    for task, models in config["models"].items():
        for name, entry in models.items():
            key, own = f"models.{task}.{name}", OWN.get(entry.get("segmenter", entry.get("detector")), ())
            if "timm" in entry:
                yield f"{key}.timm", entry["timm"], entry.get("network", config["training"][task]["network"])
            elif "backbone" in entry and entry["backbone"] not in own:
                yield f"{key}.backbone", entry["backbone"], None


def _without_nulls(node: object) -> object:
    """An overlay takes a key out by setting it to null."""
    if isinstance(node, dict):
        return {key: _without_nulls(value) for key, value in node.items() if value is not None}
    return node


def _chosen(models: dict, only: object) -> dict:
    """The registry, cut to the models that ``only`` names by task."""
    if only is None:
        return {task: entries for task, entries in models.items() if entries}
    if not isinstance(only, dict) or not all(isinstance(names, list) for names in only.values()):
        raise BusflowError("only: expected a list of models by task, such as {detection: [detr_r50]}")
    for task, names in only.items():
        if unknown := [name for name in names if name not in models.get(task, {})]:
            raise BusflowError(
                f"only.{task} names {unknown[0]}, which is none of the models: "
                f"{', '.join(models.get(task, {})) or f'there are none of {task}'}"
            )
    return {
        task: {name: entry for name, entry in entries.items() if name in only[task]}
        for task, entries in models.items()
        if only.get(task)
    }


def _check_ablation(task: str, name: str, models: dict) -> None:
    for other in models[name].get("ablation_of", []):
        if other not in compared(models):
            raise BusflowError(
                f"models.{task}.{name}.ablation_of names {other}, which is no model that the study compares; "
                "name others of the task, or leave the ablation out"
            )


def _check_weights(key: str, name: str | None, config: dict) -> None:
    if name is None:
        return
    if name not in config["weights"]:
        known = ", ".join(config["weights"]) or "none"
        raise BusflowError(f"{key} names {name}, but the config's weights are {known}")
    entry = config["weights"][name]
    files = [Path(unquote(urlsplit(url).path)) for url in entry["urls"] if url.startswith("file:")]
    places = [Path(config["root"]) / "data/archives/weights" / entry["file"], *files]
    if len(files) == len(entry["urls"]) and not any(place.is_file() for place in places):
        raise BusflowError(f"weights.{name}: {files[0]} does not exist; correct its url")
