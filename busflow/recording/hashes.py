"""The hashes in a record, compared with the files: every byte is read again, whatever DVC remembers of it."""

import hashlib
import json
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from dvc.dependency.base import Dependency
from dvc.dependency.param import ParamsDependency
from dvc.fs import localfs
from dvc.repo import Repo

from busflow.errors import BusflowError
from busflow.recording.checks import Check, kind_of
from busflow.recording.history import UNCOMMITTED, Commit, changed_files
from busflow.recording.study import Study


def recorded_stages(repo: Repo, study: Study) -> list:
    """The stages of a study. Raises BusflowError when one of them was never recorded."""
    ledger = str(study.ledger.absolute())
    stages = [stage for stage in repo.index.stages if stage.path == ledger]
    unknown = [out for stage in stages for out in stage.outs if not out.hash_info]
    if unknown or not stages:
        what = unknown[0] if unknown else study.ledger
        raise BusflowError(f"{what} is not on record: make record STUDY={study.name} records it")
    return stages


def check_hashes(study: Study, since: dict[Path, Commit]) -> list[Check]:
    """Compare every recorded output, code file and setting with what is there.

    With the commit that recorded it, in ``since``, Git compares a folder of code, which no cache holds.
    """
    with Repo() as repo, ThreadPoolExecutor(os.cpu_count()) as pool:
        stages = recorded_stages(repo, study)
        outs = [out for stage in stages for out in stage.outs]
        deps = [dep for stage in stages for dep in stage.deps]
        settings = [dep for dep in deps if isinstance(dep, ParamsDependency)]
        files = [dep for dep in deps if not isinstance(dep, ParamsDependency)]
        # Stages share code; of one that alone ran again, it may be another version.
        code = {(dep.fs_path, dep.hash_info.value): dep for dep in files if not study.makes(_shown(dep))}
        entries = [*outs, *code.values()]
        found = list(pool.map(lambda entry: _compare(entry, repo, since), entries))
        changed = {key for dep in settings for keys in dep.status().values() for key in keys}
    by_kind: dict[str, tuple[set[str], set[str]]] = {}
    for entry, (names, differing) in zip(entries, found, strict=True):
        kind = kind_of(_shown(entry)) if study.makes(_shown(entry)) else "code"
        all_names, all_differing = by_kind.setdefault(kind, (set(), set()))
        all_names.update(names, differing)
        all_differing.update(differing)
    checks = [Check(f"recorded {kind}", len(names), sorted(bad)) for kind, (names, bad) in by_kind.items()]
    keys = {key for dep in settings for key in dep.params}
    return [*checks, Check("recorded settings", len(keys), sorted(changed))]


def _compare(entry, repo: Repo, since: dict[Path, Commit]) -> tuple[list[str], list[str]]:
    """Names of the files of an entry, and of those that differ from the record."""
    path, recorded = _shown(entry), entry.hash_info.value
    if not path.exists():
        return [], [f"{path} (missing)"]
    if not path.is_dir():
        return [str(path)], [str(path)] if _md5(path) != recorded else []
    files = {Path(file).relative_to(path.absolute()).as_posix(): _md5(file) for file in _files(path, repo)}
    listing = [{"md5": md5, "relpath": name} for name, md5 in sorted(files.items())]
    tree = hashlib.md5(json.dumps(listing, sort_keys=True).encode()).hexdigest()
    shown = [str(path / name) for name in files]
    if f"{tree}.dir" == recorded:
        return shown, []
    if isinstance(entry, Dependency):
        return shown, changed_files(path, since.get(path, UNCOMMITTED))
    known = Path(entry.cache.oid_to_path(recorded))
    if not known.is_file():
        return shown, [f"{path} (which file is in the cache alone: dvc fetch)"]
    before = {file["relpath"]: file["md5"] for file in json.loads(known.read_text())}
    names = sorted(name for name in files.keys() | before.keys() if files.get(name) != before.get(name))
    return shown, [str(path / name) for name in names]


def _files(folder: Path, repo: Repo) -> Iterator[str]:
    return repo.dvcignore.find(localfs, str(folder.absolute()))


def _md5(path: Path | str) -> str:
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "md5").hexdigest()


def _shown(entry) -> Path:
    """Path of an entry, relative to the checkout."""
    return Path(entry.fs_path).relative_to(Path.cwd())
