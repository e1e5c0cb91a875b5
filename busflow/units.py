"""What a result file belongs to: read from its path, ordered as in the config."""

import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

from busflow.errors import BusflowError
from busflow.files import read_json
from busflow.paper import facts
from busflow.tasks import TASKS

UNIT = re.compile(
    r"(?:^|/)(?P<protocol>[^/]+)/(?P<task>[^/]+)/(?P<model>[^/]+)/seed(?P<seed>\d+)"
    r"(?:/external/(?P<source>[^/]+))?/[^/]+$"
)
TASK_FILE = re.compile(r"(?:^|/)(?P<protocol>[^/]+)[/_](?P<task>[^/_.]+)\.\w+$")


class Unit(NamedTuple):
    """A unit of study and one of its files; ``source`` is the external one it is about, if any."""

    protocol: str
    task: str
    model: str
    seed: int
    path: Path
    source: str = ""


def units(paths: Iterable[Path], settings: dict) -> list[Unit]:
    """Parse ``.../{protocol}/{task}/{model}/seed{seed}/<file>``; all in the order of the config.

    Before the file may stand ``external/{source}``. Raises BusflowError for another path, and for a
    protocol, model or external source that the config does not know.
    """
    found, tested = [], ["", *settings.get("external", {})]
    for path in paths:
        parts = UNIT.search(Path(path).as_posix())
        if parts is None:
            raise BusflowError(f"{path}: expected a path like <protocol>/<task>/<model>/seed<n>/<file>")
        unit = Unit(
            **(parts.groupdict(default="") | {"seed": int(parts["seed"])}),
            path=Path(path),
        )
        if unit.protocol not in settings["protocols"]:
            raise BusflowError(f"{path}: the config has no protocol {unit.protocol}")
        if unit.model not in settings["models"].get(unit.task, {}):
            raise BusflowError(f"{path}: the config has no {unit.task} model {unit.model}")
        if unit.source not in tested:
            raise BusflowError(f"{path}: the config has no external source {unit.source}")
        found.append(unit)
    protocols = list(settings["protocols"])

    def order(unit: Unit) -> tuple:
        models = list(settings["models"][unit.task])
        return (
            protocols.index(unit.protocol),
            models.index(unit.model),
            tested.index(unit.source),
            unit.seed,
        )

    return sorted(found, key=order)


def by_model(
    paths: Iterable[Path], settings: dict, read: Callable[[Path], dict] = read_json
) -> dict[tuple[str, str], list[dict]]:
    """The contents of the files of all seeds of each (protocol, model), in config order."""
    grouped: dict[tuple[str, str], list[dict]] = {}
    for unit in units(paths, settings):
        grouped.setdefault((unit.protocol, unit.model), []).append(read(unit.path))
    return grouped


def by_protocol(paths: Iterable[Path], settings: dict) -> dict[str, Path]:
    """Files of one task, ``{protocol}/{task}.csv`` or ``{protocol}_{task}.json``, in config order."""
    return {protocol: path for (_, protocol), path in by_task(paths, settings).items()}


def by_task(paths: Iterable[Path], settings: dict) -> dict[tuple[str, str], Path]:
    """Such files of several tasks by (task, protocol), in config order."""
    found = {}
    for path in paths:
        parts = TASK_FILE.search(Path(path).as_posix())
        if parts is None or parts["protocol"] not in settings["protocols"]:
            raise BusflowError(f"{path}: expected <protocol>/<task>.csv with a protocol of the config")
        found[parts["task"], parts["protocol"]] = Path(path)
    order = [(task, protocol) for task in TASKS for protocol in settings["protocols"]]
    return {place: found[place] for place in order if place in found}


def foreign_sources(names: Iterable[str], settings: dict) -> list[str]:
    """Labels of those sources that are not the paper's data: stand-ins, phantoms, absent ones."""
    own = facts()["sources"]
    absent = {name: {"label": f"{own[name]} (absent)"} for name in names}
    labels = {name: (absent | settings["sources"])[name]["label"] for name in names}
    return [label for name, label in labels.items() if label != own[name]]
