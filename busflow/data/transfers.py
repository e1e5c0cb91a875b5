"""Bringing what a URL names to a file: one function for each kind of URL."""

import glob
import hashlib
import importlib.util
import stat
from pathlib import Path
from urllib.parse import unquote, urlsplit

import gdown
import requests

from busflow import files
from busflow.data.download import CHUNK, RETRIES, TIMEOUT, check_size, discard, download
from busflow.data.progress import progress
from busflow.errors import BusflowError

GOOGLE_DRIVE = ("drive.google.com", "docs.google.com")


def transfer(url: str, part: Path, max_bytes: int) -> str:
    """Bring what ``url`` names to ``part`` and return the SHA-256 of its bytes; nothing is checked yet.

    Args:
        url: ``https:``, ``http:``, ``file:`` (absolute, or relative to the working folder;
            percent-encoded), ``gdrive:<id>`` or a link of Google Drive, ``package:<name>/<file in it>`` of an
            installed Python package, or ``phantom:<layout>?...``.
        max_bytes: nothing larger is taken (but phantoms, which their URL defines).

    Raises:
        BusflowError: it cannot be had or is too large, with the reason.
    """
    try:
        scheme, host = urlsplit(url).scheme, urlsplit(url).hostname
    except ValueError as error:
        raise BusflowError(f"it is no URL ({error})") from error
    if scheme in ("http", "https") and host not in GOOGLE_DRIVE:
        return download(url, part, max_bytes)
    discard(part)  # the other kinds do not continue what HTTP left
    if scheme == "gdrive" or host in GOOGLE_DRIVE:
        return _from_google_drive(url, part, max_bytes)
    if scheme == "file":
        return _copy(Path(unquote(urlsplit(url).path)), part, max_bytes)
    if scheme == "package":
        return _copy(_in_package(unquote(urlsplit(url).path)), part, max_bytes)
    if scheme == "phantom":
        return _from_phantoms(url, part)
    raise BusflowError("its kind is unknown; https:, http:, file:, gdrive:, package: and phantom: are known")


def _in_package(name: str) -> Path:
    """The path of a file that a package ships, of whose code nothing is run."""
    package, _, file = name.partition("/")
    found = importlib.util.find_spec(package) if package.isidentifier() else None
    if found is None or not found.submodule_search_locations:
        raise BusflowError(f"the Python package {package!r} is not installed: pip install {package}")
    return files.below(Path(found.submodule_search_locations[0]), file)


def _copy(place: Path, part: Path, max_bytes: int) -> str:
    digest = hashlib.sha256()
    try:
        status = place.stat()
        if not stat.S_ISREG(status.st_mode):  # a pipe would be waited for, and a device has no end
            raise BusflowError(f"{place.absolute()} is no file")
        source = place.open("rb")
    except OSError as error:
        raise BusflowError(f"{place.absolute()} cannot be read: {error.strerror}") from error
    except ValueError as error:  # a NUL, or half a surrogate pair
        raise BusflowError(f"{str(place)!r} cannot be a file's name") from error
    check_size(status.st_size, max_bytes)
    with source, part.open("wb") as target, progress(part.stem, status.st_size) as bar:
        while data := source.read(CHUNK):
            target.write(data)
            digest.update(data)
            bar.update(len(data))
    return digest.hexdigest()


def _from_google_drive(url: str, part: Path, max_bytes: int) -> str:
    """By gdown, which keeps a partial file of its own and continues it at the next try."""
    link = f"https://drive.google.com/uc?id={urlsplit(url).path}" if url.startswith("gdrive:") else url
    digest = hashlib.sha256()
    with progress(part.stem) as bar:

        def show(done: int, total: int | None) -> None:
            try:
                check_size(max(done, total or 0), max_bytes)
            except BusflowError:
                for partial in part.parent.glob(f"{glob.escape(part.name)}*.part"):
                    partial.unlink()
                raise
            bar.total = total
            bar.update(done - bar.n)

        try:
            gdown.download(
                link,
                str(part),
                quiet=True,
                use_cookies=False,
                resume=True,
                progress=show,
                hasher=digest,
                timeout=TIMEOUT,
                retries=RETRIES,
            )
        except (gdown.exceptions.DownloadError, requests.RequestException) as error:
            raise BusflowError(f"Google Drive says: {' '.join(str(error).split())}") from error
    return digest.hexdigest()


def _from_phantoms(url: str, part: Path) -> str:
    from busflow.data.phantom_archives import write_archive  # a study on real data needs none of it

    write_archive(url, part)
    return files.sha256(part)
