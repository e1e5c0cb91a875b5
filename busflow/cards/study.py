"""A finished study as the cards see it: its files, and the best model of each task."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import yaml

from busflow.files import read_csv, read_json
from busflow.metrics.inputs import read_split
from busflow.metrics.resamples import read_metrics
from busflow.protocols import GROUPED, Protocol, protocols
from busflow.tasks import TASKS
from busflow.units import by_protocol, units

RUN, HISTORY, METRICS = UNIT_FILES = ("run.json", "history.csv", "metrics.json")
QUARANTINE = "data/index/quarantine.csv"
CONFIG = "results/config.yaml"


class Trained(NamedTuple):
    """A model under a protocol. Of each of its seeds the lists hold an entry.

    Attributes:
        runs, histories, metrics: contents of ``run.json``, ``history.csv`` and ``metrics.json``.
        external: metrics of its external tests, by source.
    """

    protocol: str
    task: str
    model: str
    seeds: list[int]
    runs: list[dict]
    histories: list[pd.DataFrame]
    metrics: list[dict]
    external: dict[str, list[dict]]

    @property
    def best_epochs(self) -> list[float]:
        """Of each seed the validation score of the best epoch, whose weights are kept."""
        return [history[f"val_{TASKS[self.task].select_by}"].max() for history in self.histories]

    @property
    def validation(self) -> float:
        """Mean of the seeds' best epochs; NaN if the score is undefined in one."""
        return float(np.mean(self.best_epochs))

    def path(self, name: str, seeds: list[int] | None = None) -> str:
        """Where a file of some seeds, or of all, lies below the study's root; ``seed*`` means several."""
        seeds = seeds or self.seeds
        folder = f"seed{seeds[0] if len(seeds) == 1 else '*'}"
        return f"results/{self.protocol}/{self.task}/{self.model}/{folder}/{name}"


class Study(NamedTuple):
    """``config``: as resolved, with the external sources under ``external`` too.

    ``splits`` and ``excluded`` are by protocol and task, ``leakage`` (of classification) is by protocol.
    """

    config: dict
    trained: list[Trained]
    splits: dict[tuple[str, str], pd.DataFrame]
    excluded: dict[tuple[str, str], pd.DataFrame]
    quarantine: pd.DataFrame
    leakage: dict[str, dict]

    @property
    def tasks(self) -> list[str]:
        return list(dict.fromkeys(each.task for each in self.trained))

    def of_task(self, task: str) -> list[Trained]:
        return [each for each in self.trained if each.task == task]

    def candidates(self, task: str) -> list[Trained]:
        """The models of a task under the protocol of its card, the best by validation first."""
        name = chosen_protocol(self.config["protocols"]).name
        found = [each for each in self.of_task(task) if each.protocol == name]
        return sorted(found, key=lambda each: np.nan_to_num(each.validation, nan=-1), reverse=True)

    def best(self, task: str) -> Trained:
        return self.candidates(task)[0]

    def sources_of(self, task: str, external: bool = False) -> dict[str, dict]:
        """The sources that a task is trained on, or those that only test it."""
        return {
            name: source
            for name, source in self.config["sources"].items()
            if task in source["tasks"] and (name in self.config["external"]) == external
        }

    def label(self, trained: Trained) -> str:
        return self.config["models"][trained.task][trained.model]["label"]


def read_study(
    config: Path,
    metrics: list[Path],
    splits: list[Path],
    quarantine: Path,
    external: Iterable[Path] = (),
    leakage: Iterable[Path] = (),
) -> Study:
    """Read the files of some tasks of a study.

    Args:
        config: ``results/config.yaml``.
        metrics: ``metrics.json`` of every unit; beside each lie ``resamples.npz``, ``run.json`` and
            ``history.csv``.
        splits: ``<protocol>/<task>.csv``; ``<task>.excluded.csv`` lies beside each.
        quarantine: ``data/index/quarantine.csv``.
        external: ``metrics.json`` of the external tests, with their ``resamples.npz``.
        leakage: ``<protocol>_classification.json``.

    Raises BusflowError when a path is none of the study's.
    """
    settings = yaml.safe_load(config.read_text(encoding="utf-8"))
    outside = {
        name: source for name, source in settings["sources"].items() if source.get("use") == "external"
    }
    settings["external"] = outside
    places = {path: (path.parent.name, path.stem) for path in splits}
    return Study(
        settings,
        list(_trained(metrics, external, settings)),
        {place: _with_source(read_split(path)) for path, place in places.items()},
        {place: read_csv(path.with_suffix(".excluded.csv")) for path, place in places.items()},
        read_csv(quarantine),
        {protocol: read_json(path) for protocol, path in by_protocol(leakage, settings).items()},
    )


def chosen_protocol(entries: dict[str, dict]) -> Protocol:
    """The protocol whose models have cards: the first of those that are the fairest.

    Results of all images go before those of a fold, then splits that keep related images together, then
    those that leave no source out.
    """
    return min(
        protocols(entries).values(),
        key=lambda each: (bool(each.fold), each.split != GROUPED, bool(each.leave_out)),
    )


def straddling(split: pd.DataFrame) -> int:
    """How many groups of a split are in more than one of train, val and test."""
    return int((split.groupby("group")["split"].nunique() > 1).sum())


def _trained(metrics: list[Path], external: Iterable[Path], settings: dict) -> Iterator[Trained]:
    outside: dict[tuple, dict[str, list[dict]]] = {}
    for unit in units(external, settings):
        of_model = outside.setdefault(unit[:3], {})
        of_model.setdefault(unit.source, []).append(read_metrics(unit.path))
    seeds: dict[tuple, list] = {}
    for unit in units(metrics, settings):
        seeds.setdefault(unit[:3], []).append(unit)
    for (protocol, task, model), found in seeds.items():
        yield Trained(
            protocol,
            task,
            model,
            [unit.seed for unit in found],
            [read_json(unit.path.with_name(RUN)) for unit in found],
            [pd.read_csv(unit.path.with_name(HISTORY)) for unit in found],
            [read_metrics(unit.path) for unit in found],
            outside.get((protocol, task, model), {}),
        )


def _with_source(split: pd.DataFrame) -> pd.DataFrame:
    return split.assign(source=split["image_id"].str.partition("/")[0])
