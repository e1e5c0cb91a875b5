"""What a protocol is: an entry of the config's ``protocols`` that says who is trained on and who is tested.

``split: paper`` follows the paper. ``split: grouped`` keeps independent units together; with
``fold: [k, of]`` it tests on one of several folds, with ``leave_out: [source]`` on a source that is never
trained on.
"""

import json
from collections.abc import Iterable
from typing import NamedTuple

from busflow.data.catalogue import own_sources
from busflow.errors import BusflowError

PAPER, GROUPED = RULES = ("paper", "grouped")
# Folders that stand beside those of the protocols.
TAKEN = ("audit", "cards", "failures", "figures", "model_facts", "pooled", "tables")


class Protocol(NamedTuple):
    """How a protocol divides images.

    Attributes:
        name: its key in the config.
        split: one of ``RULES``.
        fold: ``(k, of)``, it tests on the k-th of so many folds (1 ... of); None: on no fold.
        leave_out: sources that it tests on and never trains on.
    """

    name: str
    split: str
    fold: tuple[int, int] | None = None
    leave_out: tuple[str, ...] = ()

    @property
    def is_plain(self) -> bool:
        """Whether it has neither folds nor sources left out."""
        return not self.fold and not self.leave_out


def division(entry: dict) -> dict:
    """What of a protocol's entry divides images; its label and its loss do not."""
    return {key: entry[key] for key in ("split", "fold", "leave_out") if key in entry}


def protocols(entries: dict[str, dict]) -> dict[str, Protocol]:
    """The config's ``protocols``, by name."""
    return {name: Protocol(name, **division(entry)) for name, entry in entries.items()}


def plain(entries: dict[str, dict], split: str) -> str | None:
    """The first protocol of this split that has neither folds nor sources left out, if there is one."""
    found = (each.name for each in protocols(entries).values() if each.split == split and each.is_plain)
    return next(found, None)


def whole(entries: dict[str, dict]) -> list[str]:
    """The protocols whose results stand for themselves: all but folds."""
    return [each.name for each in protocols(entries).values() if not each.fold]


def families(entries: dict[str, dict]) -> list[list[str]]:
    """The folds of each division into folds, in order: protocols that differ in k alone."""
    found = _alike((each for each in protocols(entries).values() if each.fold), entries)
    return [[each.name for each in sorted(family, key=lambda each: each.fold)] for family in found]


def sources_left_out(entries: dict[str, dict]) -> list[list[str]]:
    """The protocols that leave sources out: in each list those that differ in these sources alone."""
    found = _alike((each for each in protocols(entries).values() if each.leave_out), entries)
    return [[each.name for each in family] for family in found]


def _alike(found: Iterable[Protocol], entries: dict[str, dict]) -> list[list[Protocol]]:
    """Protocols that differ in the fold or in the sources left out alone."""
    families: dict[tuple, list[Protocol]] = {}
    for each in found:
        key = (each.split, each.fold and each.fold[1], entries[each.name].get("balance_classes", False))
        families.setdefault(key, []).append(each)
    return [*families.values()]


def with_labels(entries: object) -> object:
    """Protocols without a label are called by their name: ``fold_2`` is Fold 2."""
    if not isinstance(entries, dict):
        return entries
    return {
        name: {"label": name.replace("_", " ").capitalize()} | entry if isinstance(entry, dict) else entry
        for name, entry in entries.items()
    }


def check_protocols(config: dict) -> None:
    """See that each protocol of a validated config can be made of its sources.

    Raises:
        BusflowError: names the protocol. Its name is taken; it has folds or leaves sources out of the paper's
            split, or both at once; there is no such fold or source; a task has nothing left to train on or
            to test on; or it is there twice.
    """
    seen: dict[str, str] = {}
    for name, protocol in protocols(config["protocols"]).items():
        key = f"protocols.{name}"
        if name in TAKEN:
            raise BusflowError(f"{key}: results/{name} is something else; call the protocol by another name")
        if protocol.split == PAPER and not protocol.is_plain:
            raise BusflowError(
                f"{key}: the paper's split has no {'fold' if protocol.fold else 'leave_out'}; "
                "take split: grouped"
            )
        if protocol.fold and protocol.leave_out:
            raise BusflowError(f"{key} has both fold and leave_out; make a protocol of each")
        if protocol.fold:
            k, of = protocol.fold
            if of < 2 or not 1 <= k <= of:
                raise BusflowError(
                    f"{key}.fold is [{k}, {of}]; expected [k, of], k from 1 to of, of 2 or more"
                )
        _check_left_out(f"{key}.leave_out", protocol.leave_out, config)
        entry = {field: value for field, value in config["protocols"][name].items() if field != "label"}
        other = seen.setdefault(json.dumps(entry, sort_keys=True), name)
        if other != name:
            raise BusflowError(f"{key} is the same as protocols.{other}; take one out")


def _check_left_out(key: str, left_out: Iterable[str], config: dict) -> None:
    if not left_out:
        return
    own = own_sources(config)
    for source in left_out:
        if source not in own:
            raise BusflowError(f"{key} names {source}; the study's own sources are {', '.join(own)}")
        if not set(own[source]["tasks"]) & set(config["models"]):
            raise BusflowError(
                f"{key} names {source}, which no task of the study ({', '.join(config['models'])}) is tested "
                f"on; take it out of the list, or add a task to sources.{source}.tasks"
            )
    for task in config["models"]:
        of_task = [name for name, source in own.items() if task in source["tasks"]]
        for what, sources in (
            ("test on", set(of_task) & set(left_out)),
            ("train on", set(of_task) - set(left_out)),
        ):
            if not sources:
                raise BusflowError(
                    f"{key} {json.dumps(list(left_out))} leaves {task} no source to {what}, of "
                    f"{', '.join(of_task)}; change it, or leave the task out (models.{task}: null)"
                )
