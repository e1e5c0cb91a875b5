"""The hashes in a record, compared with the files: every byte is read again, whatever DVC remembers of it."""

import hashlib
import json
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from dvc.dependency.param import ParamsDependency
from dvc.fs import localfs
from dvc.repo import Repo

from busflow.errors import BusflowError
from busflow.recording.checks import Check, kind_of
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


def check_hashes(study: Study) -> list[Check]:
    """Compare every recorded output, code file and setting with what is there."""
    with Repo() as repo, ThreadPoolExecutor(os.cpu_count()) as pool:
        stages = recorded_stages(repo, study)
        outs = {out.fs_path: out for stage in stages for out in stage.outs}
        code = {
            dep.fs_path: dep
            for stage in stages
            for dep in stage.deps
            if not isinstance(dep, ParamsDependency) and not _is_made(dep.fs_path, study)
        }
        entries = list((outs | code).values())
        found = list(pool.map(lambda entry: _compare(entry, repo), entries))
        settings = [dep for stage in stages for dep in stage.deps if isinstance(dep, ParamsDependency)]
        changed = {key for dep in settings for keys in dep.status().values() for key in keys}
    by_kind: dict[str, Check] = {}
    for entry, (number, differing) in zip(entries, found, strict=True):
        kind = "code" if entry.fs_path in code else kind_of(_shown(Path(entry.fs_path)))
        by_kind.setdefault(kind, Check(f"recorded {kind}")).add(number, differing)
    names = {key for dep in settings for key in dep.params}
    return [*by_kind.values(), Check("recorded settings", len(names), sorted(changed))]


def _is_made(path: str, study: Study) -> bool:
    return any(Path(path).is_relative_to((study.root / room).absolute()) for room in ("data", "results"))


def _compare(entry, repo: Repo) -> tuple[int, list[str]]:
    """Number of files of an entry, and those that differ from the record."""
    path, recorded = Path(entry.fs_path), entry.hash_info.value
    if not path.exists():
        return 1, [f"{_shown(path)} (missing)"]
    if not path.is_dir():
        return 1, [_shown(path)] if _md5(path) != recorded else []
    files = {Path(file).relative_to(path).as_posix(): _md5(file) for file in _files(path, repo)}
    listing = [{"md5": md5, "relpath": name} for name, md5 in sorted(files.items())]
    tree = hashlib.md5(json.dumps(listing, sort_keys=True).encode()).hexdigest()
    if f"{tree}.dir" == recorded:
        return len(files), []
    known = Path(entry.cache.oid_to_path(recorded))
    if not known.is_file():
        return len(files), [f"{_shown(path)} (which file is in the cache alone: dvc fetch)"]
    before = {file["relpath"]: file["md5"] for file in json.loads(known.read_text())}
    names = sorted(name for name in files.keys() | before.keys() if files.get(name) != before.get(name))
    return len(before), [_shown(path / name) for name in names]


def _files(folder: Path, repo: Repo) -> Iterator[str]:
    return repo.dvcignore.find(localfs, str(folder))


def _md5(path: Path | str) -> str:
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "md5").hexdigest()


def _shown(path: Path) -> str:
    return str(path.relative_to(Path.cwd()))
