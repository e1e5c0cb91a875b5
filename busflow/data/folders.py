"""Data that lies in a folder of the user's own: listed with hashes, copied, and watched for changes."""

import hashlib
import logging
import os
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path

from busflow import files
from busflow.errors import BusflowError

SCHEME = "folder:"
MANIFEST = ".sha256sums"  # what sha256sum writes of the files, and checks: sha256sum -c
JUNK = {"__MACOSX", "Thumbs.db"}
WRITTEN = ("data/archives", "data/raw", "data/index", "results", "runs", "logs")  # below a study's root
CHUNK = 1 << 20

log = logging.getLogger(__name__)


def folder_of(urls: list[str]) -> Path | None:
    """The folder that a source's ``urls`` name, or None: they name archives.

    Raises:
        BusflowError: there are other URLs beside it; which of them is the data could not be said.
    """
    named = [url for url in urls if url.startswith(SCHEME)]
    if not named:
        return None
    if len(urls) > 1:
        raise BusflowError(f"{named[0]} must be the only one of its source's urls: a folder has no mirrors")
    return Path(named[0].removeprefix(SCHEME)).expanduser()


def check_apart(key: str, folder: Path, root: Path | str) -> None:
    """See that a study with this ``root`` writes nothing into a folder that it takes in; ``key`` names it.

    Raises:
        BusflowError: it does, and the folder would be another after every run.
    """
    for place in (Path(root, name).resolve() for name in WRITTEN):
        if place.is_relative_to(folder.resolve()):
            raise BusflowError(
                f"{key}: the study itself writes to {place}, inside {folder.absolute()}, which would change "
                "with every run; name a folder that holds the images alone, or give the study another root"
            )


def folder_state(urls: list[str], manifest: Path | str) -> str | None:
    """A digest of the names, sizes and times of all files, by which a changed folder is noticed without
    reading it.

    A folder that is not there (another machine, a disk that is not connected) has not changed: it has the
    state that ``write_manifest`` noted beside the manifest, or an empty one. None when the source is no
    folder.
    """
    folder = folder_of(urls)
    if folder is None:
        return None
    if folder.is_dir():
        return _digest(_walk(folder))
    noted = _note(Path(manifest))
    return noted.read_text(encoding="utf-8") if noted.is_file() else ""


def write_manifest(folder: Path, manifest: Path, max_bytes: int) -> int:
    """List the SHA-256 of every file below a folder, hidden ones left out; return the bytes of all.

    The folder's state is noted beside the list, for ``folder_state``.

    Raises:
        BusflowError: the folder is missing, empty, not readable, or larger than ``max_bytes``, which is known
            before a file is read; or it holds a name that no list can, a link that leads out of it, a link
            to a folder, or a device.
    """
    _check_present(folder)
    try:
        found = list(_walk(folder))
        for name, status in found:
            _check(folder, name, status)
        total = sum(status.st_size for _, status in found)
        if total > max_bytes:
            raise BusflowError(
                f"{folder} holds {total} bytes, more than max_bytes = {max_bytes}; name the folder of the "
                "images alone, or raise that key of sources.<id>"
            )
        lines = [f"{files.sha256(folder / name)}  {name}\n" for name, _ in found]
    except PermissionError as error:
        raise BusflowError(
            f"{error.filename} may not be read; grant it, or move it out of {folder}"
        ) from error
    if not lines:
        raise BusflowError(f"{folder} holds no file; correct the url")
    files.write_text(manifest, "".join(lines))
    files.write_text(_note(manifest), _digest(found))
    log.info("%s: %d files, %.1f MB, listed in %s", folder, len(lines), total / 1e6, manifest)
    return total


def copy_listed(folder: Path, manifest: Path, target: Path) -> tuple[int, int]:
    """Copy the files of a manifest, each checked while it is copied; return how many files and bytes.

    Raises:
        BusflowError: the folder is missing; or a file is gone, or another than when the list was made.
    """
    _check_present(folder)
    count = size = 0
    for line in manifest.read_text(encoding="utf-8").splitlines():
        expected, _, name = line.partition("  ")
        source, copy, digest = folder / name, files.below(target, name), hashlib.sha256()
        copy.parent.mkdir(parents=True, exist_ok=True)
        try:
            with source.open("rb") as opened, copy.open("xb") as written:
                while data := opened.read(CHUNK):
                    digest.update(data)
                    size += written.write(data)
        except FileNotFoundError:
            digest = None
        if digest is None or digest.hexdigest() != expected:
            raise BusflowError(
                f"{source} has changed since {manifest.name} was written; let the folder rest, then run "
                "the same command again"
            )
        count += 1
    return count, size


def _check_present(folder: Path) -> None:
    if not folder.is_dir():
        raise BusflowError(f"{folder.absolute()} is no folder; correct the url, or connect the disk it is on")


def _note(manifest: Path) -> Path:
    """Where a folder's state is noted; hidden, since times are no part of the data."""
    return manifest.with_name(f".{manifest.name}.state")


def _digest(found: Iterable[tuple[str, os.stat_result]]) -> str:
    digest = hashlib.sha256()
    for path, status in found:
        digest.update(f"{path}\0{status.st_size}\0{status.st_mtime_ns}\n".encode(errors="surrogateescape"))
    return digest.hexdigest()


def _walk(folder: Path) -> Iterator[tuple[str, os.stat_result]]:
    """Names below the folder (with slashes) and their status, sorted; a link's is that of what it leads
    to."""
    found, left = [], [""]
    while left:
        place = left.pop()
        with os.scandir(folder / place) as entries:
            for entry in entries:
                name = f"{place}/{entry.name}".lstrip("/")
                if entry.name.startswith(".") or entry.name in JUNK:
                    continue
                if entry.is_dir(follow_symlinks=False):
                    left.append(name)
                else:
                    try:
                        found.append((name, entry.stat()))
                    except OSError:
                        found.append((name, entry.stat(follow_symlinks=False)))
    yield from sorted(found)


def _check(folder: Path, name: str, status: os.stat_result) -> None:
    path = folder / name
    if not files.is_plain(name) or "\\" in name or files.is_too_long(name):
        fault = "has a name with a control character or backslash, or one that is too long"
    elif path.is_symlink() and not path.resolve().is_relative_to(folder.resolve()):
        fault = "is a link that leads out of the folder"
    elif not stat.S_ISREG(status.st_mode):
        fault = "is no file (a broken link, a link to a folder, or a device)"
    else:
        return
    raise BusflowError(f"{name!r} in {folder} {fault}; replace it, or move it out of the folder")
