"""Since which Git commit each path on record has been recorded as it is now."""

import os
import subprocess
from collections import Counter
from collections.abc import Collection, Iterator
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

import pandas as pd
import yaml

from busflow.recording.checks import kind_of, printable
from busflow.recording.study import Study

# Libyaml's, which is many times faster, where PyYAML was built with it. Both read plain data only.
Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class Commit(NamedTuple):
    """A commit that changed the record; ``age`` counts from the newest, 1, back."""

    age: int
    name: str
    day: str
    message: str


UNCOMMITTED = Commit(0, "none", "", "(not committed)")


def recorded_since(study: Study, paths: Collection[Path]) -> dict[Path, Commit]:
    """The commit since which ``dvc.lock`` has had the present hash of each of these paths, without a break.

    Paths are relative to the checkout: outputs, and the code and data they were made from. Of merged branches
    the merge counts, which brought their hashes to the branch that is checked out.
    """
    lock = study.ledger.with_suffix(".lock")
    hashes = _hashes(lock.read_text(encoding="utf-8"), study)
    present = {path: md5 for path, md5 in hashes.items() if path in paths}
    since = dict.fromkeys(present, UNCOMMITTED)
    for commit in _commits(lock):
        recorded = _hashes(_git("show", f"{commit.name}:./{lock}"), study)
        present = {path: md5 for path, md5 in present.items() if recorded.get(path) == md5}
        if not present:
            break
        since |= dict.fromkeys(present, commit)
    return since


def later_than_weights(since: dict[Path, Commit]) -> list[Path]:
    """Predictions that were recorded anew after the weights they were made with."""
    predictions = [path for path in since if path.stem == "predictions"]
    return [p for p in predictions if since[p].age < since.get(_weights_of(p), since[p]).age]


def _weights_of(predictions: Path) -> Path:
    """The weights that predictions of a unit, or of an external test of it, were made with."""
    folder = predictions.parent
    return (folder.parents[1] if folder.parent.name == "external" else folder) / "weights.pth"


def as_rows(since: dict[Path, Commit], study: Study) -> pd.DataFrame:
    """Every path with its kind and its commit, from the oldest commit to the newest."""
    paths = sorted(since, key=lambda path: (-since[path].age, path))
    columns = ["commit", "day", "message", "kind", "path"]
    rows = [(*since[p][1:], kind_of(p) if study.makes(p) else "code", p.as_posix()) for p in paths]
    return pd.DataFrame(rows, columns=columns)


def as_summary(since: dict[Path, Commit], study: Study) -> str:
    """A line for each commit, with what has been on record since; and the predictions that need a look."""
    lines = []
    for commit, group in groupby(as_rows(since, study).itertuples(), key=lambda row: row[1:4]):
        kinds = Counter(row.kind for row in group)
        lines.append((*commit, "; ".join(f"{number} {kind}" for kind, number in kinds.items())))
    table = pd.DataFrame(lines, columns=["commit", "day", "message", "on record since, unchanged"])
    notes = [
        f"recorded later than its weights: {path} ({since[path].name}, "
        f"weights {since[_weights_of(path)].name})"
        for path in later_than_weights(since)
    ]
    if _git("rev-parse", "--is-shallow-repository").strip() == "true":
        notes.append("This clone is shallow: its oldest commit stands for all before it.")
    return "\n".join([table.to_markdown(index=False), *notes])


def changed_files(path: Path, commit: Commit) -> list[str]:
    """The files at a path that are not as they were in a commit; the path itself where Git cannot tell."""
    if commit == UNCOMMITTED:
        return [str(path)]
    tracked = _git("diff", "--relative", "--name-only", commit.name, "--", path)
    new = _git("ls-files", "--others", "--exclude-standard", "--", path)
    return (tracked + new).splitlines() or [str(path)]


def _commits(lock: Path) -> Iterator[Commit]:
    listed = _git("log", "--first-parent", "--format=%h%x09%cs%x09%s", "--", lock)
    for age, line in enumerate(listed.splitlines(), 1):
        name, day, message = line.split("\t", 2)
        yield Commit(age, name, day, printable(message))


def _hashes(text: str, study: Study) -> dict[Path, str]:
    """The hash of every path in a ``dvc.lock``; of what one stage makes and another reads, the maker's."""
    try:
        stages = (yaml.load(text, Loader=Loader) or {}).get("stages", {}).values()
    except yaml.YAMLError:  # an unsolved merge, committed as it was: nothing was on record
        return {}
    entries = [entry for kind in ("deps", "outs") for stage in stages for entry in stage.get(kind, [])]
    return {Path(os.path.normpath(study.root / entry["path"])): entry["md5"] for entry in entries}


def _git(*arguments: str | Path) -> str:
    """What Git prints; nothing where it fails: a commit without the file, a folder that is no repository."""
    command = ["git", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout
