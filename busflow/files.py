"""Files that are either whole or not there, and their hashes."""

import contextlib
import errno
import glob
import hashlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import pandas as pd

from busflow.errors import BusflowError

MAX_PATH, MAX_PART = 1000, 255  # bytes of UTF-8 in the name of a member or image, and between its slashes
RANDOM = 8  # characters that tempfile puts between its prefix and suffix


def sha256(path: Path | str) -> str:
    """Hex SHA-256 of a file's bytes."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextlib.contextmanager
def atomic(path: Path | str) -> Iterator[Path]:
    """Yield a temporary path beside ``path``; on success it becomes ``path``, on failure it is gone.

    The file is flushed to disk before it is renamed and the folder after, so that neither a killed
    process nor a power cut leaves a partial file under the final name.
    """
    path = Path(path)
    with temporary_beside(path) as temporary:
        yield temporary
        settle(temporary, path)


@contextlib.contextmanager
def temporary_beside(path: Path) -> Iterator[Path]:
    """Yield a new hidden file in the folder of ``path``; it is removed if it is still there at the end."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=_prefix(path), suffix=path.suffix, dir=path.parent)
    os.close(handle)
    try:
        yield Path(name)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):  # a full disk does not say where it is
            error.filename = str(path)
        raise
    finally:
        Path(name).unlink(missing_ok=True)


def remove_temporaries(*paths: Path) -> None:
    """Remove what killed writers of ``paths`` left beside them; for a job that alone writes these files."""
    for path in paths:
        for left in path.parent.glob(f"{glob.escape(_prefix(path))}{'?' * RANDOM}{glob.escape(path.suffix)}"):
            left.unlink(missing_ok=True)


def below(folder: Path, name: str) -> Path:
    """The path of the file ``name`` (slashes between its parts) in ``folder``.

    Raises:
        BusflowError: the name leads out of the folder or cannot be a file's.
    """
    parts = PurePosixPath(name).parts
    if not parts or not is_plain(name):
        fault = "is empty or holds a control character"
    elif name.startswith("/") or ".." in parts or "\\" in name:
        fault = "may lead out of it (absolute, backslash or '..')"
    elif is_too_long(name):
        fault = f"is too long (at most {MAX_PART} bytes between slashes)"
    else:
        return folder.joinpath(*parts)
    raise BusflowError(f"{name[:MAX_PART]!r} cannot name a file in {folder}: it {fault}")


def is_plain(text: str) -> bool:
    """Whether text has neither control characters nor half a surrogate pair, which no file can hold."""
    return re.search("[\x00-\x1f\x7f\ud800-\udfff]", text) is None


def is_too_long(name: str) -> bool:
    """Whether a name (slashes between its parts) is longer than file systems take."""
    return len(name.encode()) > MAX_PATH or any(len(part.encode()) > MAX_PART for part in name.split("/"))


def _prefix(path: Path) -> str:
    """What names of temporary files for ``path`` begin with; cut, so that they are no longer than its own."""
    room = MAX_PART - RANDOM - len(os.fsencode(path.suffix)) - len("..")
    return f".{os.fsencode(path.name)[:room].decode(errors='ignore')}."


def settle(temporary: Path, path: Path) -> None:
    """Flush a finished temporary file to disk and give it its name."""
    with temporary.open("rb") as file:
        os.fsync(file.fileno())
    temporary.chmod(0o666 & ~_umask())
    temporary.replace(path)
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Make the folder's entries (names just created or renamed in it) durable."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_text(path: Path | str, text: str) -> None:
    """Atomically write UTF-8 text."""
    with atomic(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def link_or_copy(source: Path | str, path: Path | str) -> None:
    """Give a finished file a second name: as a link, or as a copy where file systems differ."""
    with atomic(path) as temporary:
        temporary.unlink()
        try:
            os.link(source, temporary)
        except OSError:
            shutil.copyfile(source, temporary)


def write_json(path: Path | str, value: object) -> None:
    """Atomically write JSON; NaN and infinity are refused (an undefined number is null)."""
    write_text(path, json.dumps(value, indent=2, allow_nan=False) + "\n")


def read_json(path: Path | str) -> object:
    """Read a JSON file; ValueError if it is none."""
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except RecursionError as error:
        raise ValueError(f"{path} is nested too deep") from error


def read_csv(path: Path | str) -> pd.DataFrame:
    """A table as text, cell by cell: nothing is taken for a number or for missing."""
    return pd.read_csv(path, dtype=str, keep_default_na=False)


def write_csv(path: Path | str, table: pd.DataFrame) -> None:
    """Atomically write a table without its index, with Unix line ends."""
    with atomic(path) as temporary:
        table.to_csv(temporary, index=False, lineterminator="\n")


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
