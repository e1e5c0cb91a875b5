"""How the runs of a study stand, told from the files that lie there.

Everything here only reads, and other machines go on writing meanwhile: a file may vanish or be replaced after
it was listed. Files count as they lie; whether they are up to date is for ``snakemake --dry-run`` to say.
"""

import csv
import glob
import json
import re
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from itertools import groupby, product
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from tabulate import tabulate

from busflow.errors import BusflowError
from busflow.tasks import TASKS

STATES = ("waiting", "training", "interrupted", "silent", "unreadable", "trained", "predicted", "evaluated")
SILENT_AFTER = timedelta(minutes=2)
CONFIG = "results/config.yaml"
TRAINED = {"weights.pth", "history.csv", "run.json"}
UNIT = re.compile(rf"([^/]+)/({'|'.join(TASKS)})/([^/]+)/seed(\d+)(?:/|$)")


class Unit(NamedTuple):
    """One model under one protocol and seed."""

    protocol: str
    task: str
    model: str
    seed: int


class Run(NamedTuple):
    """How a unit stands; None where something is not known or does not apply.

    ``epoch`` counts the completed ones. ``seconds_left`` is what the steps to do will take at the present
    speed, ``seconds_quiet`` the age of the last sign of life of a training that stopped, and
    ``seconds_taken`` the length of a finished one.
    """

    state: str
    epoch: int | None = None
    epochs: int | None = None
    best: float | None = None
    images_per_second: float | None = None
    seconds_left: float | None = None
    seconds_quiet: float | None = None
    seconds_taken: float | None = None
    device: str | None = None
    job_or_host: str | None = None


class Status(NamedTuple):
    """The runs of a study in the order of its config, and what is to be said about them."""

    runs: dict[Unit, Run]
    notes: list[str]


def read_status(root: Path, now: datetime) -> Status:
    """Look at every unit of the study under ``root``; ``now`` has a time zone.

    Raises BusflowError when ``root`` is no folder or holds no study.
    """
    if not root.is_dir():
        raise BusflowError(f"{root} is no folder; name that of a study with --root")
    notes: list[str] = []
    config = _read(root / CONFIG, _parse_config, notes)
    # Before the results: a training publishes those first and removes its progress then.
    trainings = _trainings(root, now, notes)
    found = {*trainings, *(unit for unit, _ in _listed(root / "results", "*/*/*/seed*"))}
    if not (config or found or notes):
        raise BusflowError(f"{root} holds no study, neither {CONFIG} nor any run; name another with --root")

    protocols, models, seeds = config or ([], {}, [])
    planned = {Unit(p, task, m, s) for task in models for p, m, s in product(protocols, models[task], seeds)}

    def place(unit: Unit) -> tuple:
        return (
            _place(unit.protocol, protocols),
            _place(unit.task, list(TASKS)),
            _place(unit.model, models.get(unit.task, [])),
            unit.seed,
        )

    units = sorted(planned | found, key=place)
    runs = {unit: _run(root, unit, trainings.get(unit), notes) for unit in units}
    if config is None:
        notes.append(f"Without {CONFIG}, the list of the study's runs, only those on disk are shown.")
    elif found - planned:
        notes.append(f"Not in {CONFIG}, but found on disk: {len(found - planned)} of these runs.")
    if any(run.state == "silent" for run in runs.values()):
        notes.append(
            f"silent: no word for {SILENT_AFTER.seconds // 60} minutes; the training was killed, or one step "
            "or a validation takes that long."
        )
    return Status(runs, notes)


def as_text(status: Status) -> str:
    """The table, the notes, and a line that counts the states."""
    rows: list[tuple[str, ...]] = []
    for (protocol, task), group in groupby(status.runs.items(), lambda item: item[0][:2]):
        names = ("seed", "state", "epoch", TASKS[task].select_by, "img/s", "time", "device", "job/host")
        rows += [("",) * 9, (f"{protocol}/{task}", *names)]
        rows += [(unit.model, str(unit.seed), *_cells(run)) for unit, run in group]
    alignment = ("left", "right", "left", "right", "right", "right", "right", "left", "left")
    table = tabulate(rows[1:], tablefmt="plain", disable_numparse=True, colalign=alignment) if rows else ""
    lines = [line.rstrip() for line in table.splitlines()]
    counts = Counter(run.state for run in status.runs.values())
    counted = ", ".join(f"{counts[state]} {state}" for state in STATES if counts[state])
    return "\n".join([*lines, "", *status.notes, f"{len(status.runs)} runs: {counted or 'none found'}"])


def _trainings(root: Path, now: datetime, notes: list[str]) -> dict[Unit, Run]:
    """The latest news of each unit under ``runs/``; an earlier form of the study may have left older ones."""
    latest: dict[Unit, tuple[datetime, Run]] = {}
    unreadable = (datetime.min.replace(tzinfo=UTC), Run("unreadable"))
    for unit, path in _listed(root / "runs", "*/*/*/seed*/*/progress.json"):
        if news := _read(path, _parse_progress, notes, unreadable):
            latest[unit] = max(news, latest.get(unit, news), key=lambda news: news[0])
    return {unit: _as_of(now, *news) for unit, news in latest.items()}


def _as_of(now: datetime, updated: datetime, run: Run) -> Run:
    quiet = now - updated
    if run.state == "training" and quiet > SILENT_AFTER:
        run = run._replace(state="silent")
    if run.state in ("silent", "interrupted"):
        run = run._replace(images_per_second=None, seconds_left=None, seconds_quiet=quiet.total_seconds())
    return run


def _listed(folder: Path, pattern: str) -> Iterator[tuple[Unit, Path]]:
    # Path.glob fails where a folder vanishes meanwhile.
    for name in glob.glob(pattern, root_dir=folder):  # noqa: PTH207
        if parts := UNIT.match(name):
            yield Unit(*parts.group(1, 2, 3), int(parts[4])), folder / name


def _run(root: Path, unit: Unit, training: Run | None, notes: list[str]) -> Run:
    protocol, task, model, seed = unit
    folder = root / "results" / protocol / task / model / f"seed{seed}"
    files = _read(folder, lambda folder: {file.name for file in folder.iterdir()}, notes) or set()
    if training and not files >= TRAINED:
        return training
    if "timing.json" in files and files & {"predictions.csv", "predictions.json"}:
        state = "evaluated" if "metrics.json" in files else "predicted"
    elif files >= TRAINED:
        state = "trained"
    else:
        return Run("waiting")
    history = _read(folder / "history.csv", lambda path: _parse_history(path, task), notes) or {}
    record = _read(folder / "run.json", _parse_record, notes) or {}
    return Run(state, **history, **record)


def _read(path: Path, parse: Callable[[Path], Any], notes: list[str], unreadable: Any = None) -> Any:
    """What ``parse`` makes of a path; None when nothing is there, ``unreadable`` and a note when it fails."""
    for _ in range(2):  # what another machine replaces during the first reading is whole at the second
        try:
            return parse(path)
        except FileNotFoundError:
            return None
        except (OSError, ValueError, LookupError, TypeError, AttributeError, yaml.YAMLError) as error:
            reason = f"{type(error).__name__}: {' '.join(str(error).split())}"
    notes.append(f"{path} is unreadable ({reason})")
    return unreadable


def _parse_config(path: Path) -> tuple[list[str], dict[str, list[str]], list[int]]:
    """Protocols, models by task, and seeds. An overlay takes an entry out by setting it to null."""

    def names(entries: dict) -> list[str]:
        return [name for name, entry in entries.items() if entry is not None]

    config = yaml.safe_load(path.read_text(encoding="utf-8"))
    return (
        names(config["protocols"]),
        {task: names(config["models"].get(task, {})) for task in TASKS},
        list(map(int, config["seeds"])),
    )


def _parse_progress(path: Path) -> tuple[datetime, Run]:
    news = json.loads(path.read_text(encoding="utf-8"))
    if news["state"] not in ("training", "interrupted"):
        raise ValueError(f"its state is {news['state']}")
    pace = _number(news["seconds_per_step"])
    return datetime.fromisoformat(news["updated"]).astimezone(UTC), Run(
        state=news["state"],
        epoch=int(news["epoch"]),
        epochs=int(news["epochs"]),
        best=_number(news["best"]),
        images_per_second=_number(news["images_per_second"]),
        seconds_left=None if pace is None else pace * (int(news["steps"]) - int(news["step"])),
        device=str(news["device"]),
        job_or_host=str(news["job"] or news["host"]),
    )


def _parse_history(path: Path, task: str) -> dict:
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    last = int(rows[-1]["epoch"])
    best = max(float(row[f"val_{TASKS[task].select_by}"]) for row in rows)
    return {"epoch": last, "epochs": last, "best": best}


def _parse_record(path: Path) -> dict:
    record = json.loads(path.read_text(encoding="utf-8"))
    return {"seconds_taken": float(record["seconds"]), "device": str(record["device"])}


def _place(name: str, names: list[str]) -> tuple[int, str]:
    """Listed names in the order of the list, the others after them by alphabet."""
    return (names.index(name) if name in names else len(names), name)


def _number(value: float | None) -> float | None:
    return None if value is None else float(value)


def _cells(run: Run) -> tuple[str, ...]:
    times = {"left": run.seconds_left, "ago": run.seconds_quiet, "taken": run.seconds_taken}
    return (
        run.state,
        "" if run.epoch is None else f"{run.epoch}/{run.epochs}",
        "" if run.best is None else f"{run.best:.3f}",
        "" if run.images_per_second is None else f"{run.images_per_second:.1f}",
        "".join(f"{_duration(seconds)} {word}" for word, seconds in times.items() if seconds is not None),
        _cut(run.device or "", 21),
        _cut(run.job_or_host or "", 10),
    )


def _duration(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{seconds:02}"


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else f"{text[: width - 1]}…"
