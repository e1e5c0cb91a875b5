"""One file over HTTP, continued where an earlier try stopped (RFC 9110, sections 13 and 14)."""

import hashlib
import re
import time
from pathlib import Path

import requests
from requests.adapters import HTTPAdapter
from tqdm import tqdm
from urllib3.util import Retry

from busflow import files
from busflow.data.progress import progress
from busflow.errors import BusflowError

# Some data repositories (Mendeley) answer only what looks like a browser.
USER_AGENT = "Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0"
TIMEOUT = (15, 60)  # seconds to connect, seconds between two pieces
RETRIES = 5  # in a row without a new byte
BACKOFF = 1.0  # seconds; doubled at each retry
CHUNK = 1 << 17  # what a broken connection may cost
NUMBER = "[0-9]{1,18}"  # of bytes


def download(url: str, part: Path, max_bytes: int) -> str:
    """Download a URL into ``part`` and return the SHA-256 of the whole file.

    When the connection or the process breaks, ``part`` stays, beside a note of what it is a part of. The next
    try asks for the rest; it begins anew when the server does not give it or has another file by now.

    :raises BusflowError: the server cannot be reached, refuses, breaks the connection again and again, or
        sends more than it announced or than ``max_bytes``; of what is too much, nothing is kept.
    """
    partial = _Partial(url, part, max_bytes)
    best, failures = partial.size, 0
    with _session() as session, progress(part.stem) as bar:
        while partial.size != partial.total:
            try:
                _receive(session, partial, bar)
                break
            except _Broken as error:
                failures = 0 if partial.size > best else failures + 1
                best = max(best, partial.size)
                if failures > RETRIES:
                    raise BusflowError(
                        f"the connection breaks again and again, now after {partial.size} of "
                        f"{partial.total} bytes ({error}); they are kept, and the next run continues there"
                    ) from error
                time.sleep(BACKOFF * 2**failures)
    _note(part).unlink(missing_ok=True)
    return partial.digest.hexdigest()


def check_size(size: int, max_bytes: int) -> None:
    """Raise BusflowError when a file of ``size`` bytes, or of as many so far, is larger than may be."""
    if size > max_bytes:
        raise BusflowError(
            f"the file is larger than max_bytes = {max_bytes}; "
            "if it is to be, raise that key of sources.<id> or weights.<name>"
        )


def discard(part: Path) -> None:
    """Remove a partial file and its note."""
    part.unlink(missing_ok=True)
    _note(part).unlink(missing_ok=True)


class _Broken(Exception):
    """A response ended before the file did."""


class _Partial:
    """The bytes received so far, their running hash, and the version of the file that they belong to."""

    def __init__(self, url: str, path: Path, max_bytes: int) -> None:
        self.url, self.path, self.max_bytes = url, path, max_bytes
        note = _read_note(path)
        if note is None or note["url"] != url:
            self.begin()
            return
        check_size(note["total"], max_bytes)
        self.total, self.version = note["total"], note["version"]
        self.size, self.digest = path.stat().st_size, hashlib.sha256()
        with path.open("rb") as file:
            while data := file.read(CHUNK):
                self.digest.update(data)

    def begin(self, total: int | None = None, version: str | None = None) -> None:
        """Forget all bytes; a file of ``total`` bytes is to come (unknown: it cannot be continued)."""
        discard(self.path)
        self.path.touch()
        self.total, self.version, self.size, self.digest = total, version, 0, hashlib.sha256()
        if total is not None:
            files.write_json(_note(self.path), {"url": self.url, "total": total, "version": version})

    def append(self, data: bytes) -> None:
        try:
            if self.total is not None and self.size + len(data) > self.total:
                raise BusflowError(f"the server sends more than the {self.total} bytes it announced")
            check_size(self.size + len(data), self.max_bytes)
        except BusflowError:
            discard(self.path)
            raise
        with self.path.open("ab") as file:
            file.write(data)
        self.digest.update(data)
        self.size += len(data)

    def request(self) -> dict[str, str]:
        """Headers that ask for the bytes still missing."""
        if not self.size:
            return {}
        condition = {"If-Range": self.version} if self.version else {}
        return {"Range": f"bytes={self.size}-", **condition}

    def is_continued_by(self, response: requests.Response) -> bool:
        """Whether a 206 response holds the next bytes of the very same version."""
        told = response.headers.get("Content-Range", "")
        span = re.fullmatch(f"bytes ({NUMBER})-{NUMBER}/({NUMBER})", told)
        if span is None or (int(span[1]), int(span[2])) != (self.size, self.total):
            return False
        return self.version in (None, _version(response))


def _receive(session: requests.Session, partial: _Partial, bar: tqdm) -> None:
    """Take one response; return when the file is whole."""
    try:
        response = session.get(partial.url, headers=partial.request(), stream=True, timeout=TIMEOUT)
    except (requests.RequestException, ValueError) as error:  # ValueError: of some broken URLs
        raise BusflowError(_in_words(error)) from error
    with response:
        encoding = response.headers.get("Content-Encoding", "identity")
        if response.ok and encoding.lower() != "identity":
            # Its size before and after, its hash and its ranges would be of different bytes.
            raise BusflowError(
                f"the server sends the file encoded ({encoding}), though asked for it as it is"
            )
        if response.status_code == 200:
            length = _length(response)
            check_size(length or 0, partial.max_bytes)
            partial.begin(length, _version(response))
        elif response.status_code == 416 or (
            response.status_code == 206 and not partial.is_continued_by(response)
        ):
            partial.begin()
            raise _Broken("the server cannot continue the file; it is asked for all of it")
        elif response.status_code != 206:
            login = "; the site may want a login" if response.status_code in (401, 403) else ""
            raise BusflowError(f"the server says {response.status_code} {response.reason}{login}")
        bar.total, bar.n = partial.total, partial.size
        try:
            for data in response.iter_content(CHUNK):
                partial.append(data)
                bar.update(len(data))
        except requests.RequestException as error:
            raise _Broken(_in_words(error)) from error
    if partial.total not in (None, partial.size):
        raise _Broken("the response ended early")


def _session() -> requests.Session:
    retry = Retry(
        RETRIES,
        backoff_factor=BACKOFF,
        status_forcelist=(429, 500, 502, 503, 504),
        raise_on_status=False,
        retry_after_max=60,
    )
    session = requests.Session()
    session.headers.update({"User-Agent": USER_AGENT, "Accept-Encoding": "identity"})
    # To follow a redirection, requests would read all of the page that comes with it, be it without an end.
    session.hooks["response"].append(lambda response, **_: response.close() if response.is_redirect else None)
    session.mount("http://", HTTPAdapter(max_retries=retry))
    session.mount("https://", HTTPAdapter(max_retries=retry))
    return session


def _note(part: Path) -> Path:
    return part.with_name(f"{part.name}.json")


def _read_note(part: Path) -> dict | None:
    """The note beside a partial file; None when one of the two is missing or damaged: it begins anew then."""
    try:
        note = files.read_json(_note(part))
        size = part.stat().st_size
    except (FileNotFoundError, ValueError):
        return None
    known = isinstance(note, dict) and {"url", "total", "version"} <= note.keys()
    is_sound = known and isinstance(note["total"], int) and _is_header(note["version"])
    return note if is_sound and size <= note["total"] else None


def _is_header(version: object) -> bool:
    return version is None or (isinstance(version, str) and version.isascii() and files.is_plain(version))


def _length(response: requests.Response) -> int | None:
    """Bytes of the file; None when the server does not say."""
    length = response.headers.get("Content-Length", "")
    return int(length) if re.fullmatch(NUMBER, length) else None


def _version(response: requests.Response) -> str | None:
    """The strong validator of the file's version, as If-Range takes it."""
    tag = response.headers.get("ETag", "W/")
    return response.headers.get("Last-Modified") if tag.startswith("W/") else tag


def _in_words(error: Exception) -> str:
    if isinstance(error, requests.exceptions.SSLError):
        return "the site's TLS certificate is not trusted"
    if isinstance(error, requests.Timeout):
        return "no answer in time"
    if isinstance(error, requests.ConnectionError):
        return "the connection cannot be made or broke"
    return str(error)
