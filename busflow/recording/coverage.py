"""What is not on record at all, and what lies among the results though no rule makes it."""

import os
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path

from busflow.recording.checks import Check
from busflow.recording.study import CODE, Study


def not_on_record(paths: Iterable[Path], recorded: Collection[Path]) -> list[Path]:
    """Those of the paths that are neither recorded nor in a recorded folder."""
    recorded = set(recorded)
    return sorted(path for path in paths if recorded.isdisjoint((path, *path.parents)))


def check_coverage(study: Study, made: Collection[Path], recorded: Collection[Path]) -> list[Check]:
    """Compare what Snakemake ``made`` with the ``recorded`` paths and with the files that lie there.

    A ``dvc.yaml`` may have been edited: what it says is not asked what the study consists of.
    """
    results = {path for path in recorded if study.makes(path)}
    holding = {folder for path in made for folder in (path, *path.parents)}
    lying = list(_lying(study, set(made)))
    unmade = sorted({*(results - holding), *lying})
    code = {study.overlay, Path("config.yaml"), *(file for name in CODE for file in _files(Path(name)))}
    return [
        Check(
            "made files on record",
            len({*made, *unmade}),
            [f"{path} (no stage records it)" for path in not_on_record(made, results)]
            + [f"{path} (no rule makes it)" for path in unmade],
        ),
        Check(
            "code files on record",
            len(code),
            [f"{path} (no stage records it)" for path in not_on_record(code, set(recorded) - results)],
        ),
    ]


def _lying(study: Study, made: set[Path]) -> Iterator[Path]:
    """Files that are not made and in no folder that is. Archives are no outputs; their receipts are."""
    archives = study.root / "data/archives"
    for room in study.rooms:
        for folder, folders, files in os.walk(room):
            paths = {name: Path(folder, name) for name in (*folders, *files) if not name.startswith(".")}
            folders[:] = [name for name in folders if name in paths and paths[name] not in {*made, archives}]
            yield from (paths[name] for name in files if name in paths and paths[name] not in made)


def _files(path: Path) -> Iterator[Path]:
    """A file, or those in a folder but for what Python leaves there."""
    if not path.is_dir():
        yield path
    for file in path.rglob("*"):
        if file.is_file() and file.parent.name != "__pycache__":
            yield file
