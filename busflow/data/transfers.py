"""Bringing what a URL names to a file: one function for each kind of URL."""

import hashlib
import os
from pathlib import Path
from urllib.parse import unquote, urlsplit

import gdown
import requests

from busflow import files
from busflow.data.download import CHUNK, RETRIES, TIMEOUT, discard, download
from busflow.data.progress import progress
from busflow.errors import BusflowError

GOOGLE_DRIVE = ("drive.google.com", "docs.google.com")


def transfer(url: str, part: Path) -> str:
    """Bring what ``url`` names to ``part`` and return the SHA-256 of its bytes; nothing is checked yet.

    Args:
        url: ``https:``, ``http:``, ``file:`` (absolute, or relative to the working folder;
            percent-encoded), ``gdrive:<id>`` or a link of Google Drive, or ``phantom:<layout>?...``.

    Raises:
        BusflowError: it cannot be had, with the reason.
    """
    scheme, host = urlsplit(url).scheme, urlsplit(url).hostname
    if scheme in ("http", "https") and host not in GOOGLE_DRIVE:
        return download(url, part)
    discard(part)  # the other kinds do not continue what HTTP left
    if scheme == "gdrive" or host in GOOGLE_DRIVE:
        return _from_google_drive(url, part)
    if scheme == "file":
        return _from_file(url, part)
    if scheme == "phantom":
        return _from_phantoms(url, part)
    raise BusflowError("its kind is unknown; https:, http:, file:, gdrive: and phantom: are known")


def _from_file(url: str, part: Path) -> str:
    place, digest = Path(unquote(urlsplit(url).path)), hashlib.sha256()
    try:
        source = place.open("rb")
    except OSError as error:
        raise BusflowError(f"{place.absolute()} cannot be read: {error.strerror}") from error
    with source, part.open("wb") as target, progress(part.stem, os.fstat(source.fileno()).st_size) as bar:
        while data := source.read(CHUNK):
            target.write(data)
            digest.update(data)
            bar.update(len(data))
    return digest.hexdigest()


def _from_google_drive(url: str, part: Path) -> str:
    """By gdown, which keeps a partial file of its own and continues it at the next try."""
    link = f"https://drive.google.com/uc?id={urlsplit(url).path}" if url.startswith("gdrive:") else url
    digest = hashlib.sha256()
    with progress(part.stem) as bar:

        def show(done: int, total: int | None) -> None:
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
