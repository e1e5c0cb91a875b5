"""Fetching the files that a study starts from, and proving that they are the right ones."""

import errno
import logging
import os
import re
import struct
import zipfile
from dataclasses import asdict, dataclass
from pathlib import Path
from urllib.parse import urlsplit

from filelock import FileLock

from busflow import files
from busflow.data.folders import folder_of, write_manifest
from busflow.data.transfers import transfer
from busflow.errors import BusflowError

SIGNATURES = {".zip": b"PK", ".7z": b"7z\xbc\xaf\x27\x1c", ".gz": b"\x1f\x8b", ".tgz": b"\x1f\x8b"}
WEB_PAGE = re.compile(rb"(\xef\xbb\xbf)?\s*<(!doctype|!--|html|head|body|\?xml)", re.IGNORECASE)
PHANTOM = "phantom:"
BY_HAND = "dropped by hand"
MAX_NAME = 200  # bytes; the files beside an archive have longer names than it
# Published weights: the name ends in the first digits of the file's SHA-256 (torch.hub, timm, OpenMMLab).
NAMED = re.compile(r"-([0-9a-f]{8,64})\.pth$")

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Fetched:
    """A verified file: its hash, its size in bytes and the URL it came from (or "dropped by hand")."""

    sha256: str
    bytes: int
    url: str


class Refused(BusflowError):
    """A file that is not what it should be; ``reason`` is short enough for a file name."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


def fetch_source(source: str, settings: dict, archives: Path | str, receipt: Path | str) -> None:
    """Bring the files of one source to the folder ``archives`` and write their receipt.

    Data in a folder (``folder:``) stay where they are: a list of their hashes takes the archive's place.

    Args:
        settings: the source's part of the config: ``archive`` (file name), ``urls``, ``sha256`` (hex or
            None), ``max_bytes``, ``homepage`` (or None), ``licence``, ``citation``; perhaps ``also``, what
            is needed
            beside the archive: ``{file name: {urls, sha256}}``.

    Raises:
        BusflowError: as ``fetch_file``, or ``archive`` is no plain file name, or the folder is not as it
        should be.
    """
    name, terms = settings["archive"], {key: settings[key] for key in ("licence", "citation")}
    path, folder = _place(source, name, archives), folder_of(settings["urls"])
    upstream, limit = settings["homepage"] or terms["citation"], settings["max_bytes"]
    if folder is None:
        fetched = fetch_file(settings["urls"], path, settings["sha256"], upstream, limit)
    else:
        fetched = _list_folder(folder, settings["urls"][0], path, settings["sha256"], limit)
    written = {"source": source, "file": name, **asdict(fetched), **terms}
    if also := settings.get("also"):
        written["also"] = [
            {"file": file, **asdict(_fetch_also(source, file, entry, archives, upstream, limit))}
            for file, entry in also.items()
        ]
    files.write_json(receipt, written)


def _place(source: str, name: str, archives: Path | str) -> Path:
    if "/" in name or len(name.encode(errors="replace")) > MAX_NAME:
        raise BusflowError(
            f"sources.{source}.archive (or weights.{source}.file) is {name[:MAX_NAME]!r}: "
            f"make it a plain file name without slashes, of at most {MAX_NAME} bytes"
        )
    return files.below(Path(archives), name)


def _fetch_also(
    source: str, name: str, entry: dict, archives: Path | str, upstream: str, limit: int
) -> Fetched:
    path = _place(source, name, archives)
    return fetch_file(entry["urls"], path, entry.get("sha256"), upstream, limit)


def _list_folder(folder: Path, url: str, manifest: Path, sha256: str | None, max_bytes: int) -> Fetched:
    size = write_manifest(folder, manifest, max_bytes)
    found = files.sha256(manifest)
    if sha256 not in (None, found):
        raise BusflowError(
            f"{folder} is not what it was: the sha256 of the list of its files, {manifest}, is {found}, "
            f"the config says {sha256}; put the right files there, or correct sha256"
        )
    return Fetched(found, size, url)


def fetch_file(
    urls: list[str], path: Path | str, sha256: str | None, upstream: str, max_bytes: int
) -> Fetched:
    """Have the right file at ``path``: the one that lies there already, or what the first good URL gives.

    A wrong file goes to the folder ``quarantine`` beside ``path``, and the next URL is tried. What was
    fetched is called ``path`` only after it was verified. Processes that want the same file take turns.

    Args:
        urls: as ``transfers.transfer`` knows them.
        sha256: hex; None records the hash in ``<path>.sha256`` at the first fetch and enforces it after
            (but not of phantoms, which their URL defines). It must then begin with the digits that a URL's
            file name ends in, if any does: ``…-<8 hex digits>.pth``.
        upstream: where a person finds the file; told when no URL works.
        max_bytes: the largest file that is taken from a URL.

    Raises:
        BusflowError: no URL gave the right file; the message says how to put it there by hand. Or what lies
            beside it is damaged or in the way.
    """
    path = Path(path).absolute()
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(path.with_name(f".{path.name}.lock")):
            return _fetch(urls, path, sha256, upstream, max_bytes)
    except OSError as error:
        error.filename = error.filename or str(path)  # a failed write does not say where
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise
        place = error.filename2 or error.filename
        raise BusflowError(
            f"{place} is in the way of fetching {path.name}, or may not be touched ({error.strerror}); "
            "mend or remove it and run the same command again"
        ) from error


def _fetch(urls: list[str], path: Path, sha256: str | None, upstream: str, max_bytes: int) -> Fetched:
    part, record, origin = (path.with_name(path.name + end) for end in (".part", ".sha256", ".origin.json"))
    if path.exists() and not path.is_file():
        raise BusflowError(f"{path} is no file; remove it and run the same command again")
    files.remove_temporaries(part, record, origin)
    expected = sha256.lower() if sha256 else _recorded(record, path.name)
    named = () if sha256 else tuple(match[1] for url in urls if (match := NAMED.search(urlsplit(url).path)))
    attempts, note = [], {}
    if path.exists():
        attempts, note = [(path.as_uri(), path)], _read_origin(origin)
    attempts += [(url, part) for url in urls]
    failures = []
    for url, file in attempts:
        try:
            if file is path:
                found = verify(path, expected)
                _refuse_unlike_its_name(named, found)
                _refuse_other_phantoms(_url(note, found), urls, found)
            else:
                found = transfer(url, part, max_bytes)
                _check(part, path.suffix, expected, found)
                _refuse_unlike_its_name(named, found)
            break
        except Refused as refusal:
            failures.append(f"{url}: {refusal}; it is kept as {_quarantine(file, path, refusal.reason)}")
        except BusflowError as error:
            failures.append(f"{url}: {error}")
        log.warning("%s", failures[-1])
    else:
        raise BusflowError(_advice(path, expected, named, upstream, failures, None if sha256 else record))
    if file is part:
        note = {"sha256": found, "url": url}
        files.write_json(origin, note)
        _publish(part, path)
    fetched = Fetched(found, path.stat().st_size, _url(note, found))
    if expected is None and not fetched.url.startswith(PHANTOM):  # the URL alone decides a phantom's bytes
        files.write_text(record, f"{found}  {path.name}\n")
    log.info("%s: %d bytes, sha256 %s, %s", path, fetched.bytes, fetched.sha256, fetched.url)
    return fetched


def verify(path: Path, expected: str | None) -> str:
    """Return a file's SHA-256 if it is ``expected`` (None: any) and the file is what its suffix says.

    Raises:
        Refused: it is another file, empty, a web page, cut off, or not of its kind.
    """
    found = files.sha256(path)
    _check(path, path.suffix, expected, found)
    return found


def _check(file: Path, suffix: str, expected: str | None, found: str) -> None:
    suffix, size = suffix.lower(), file.stat().st_size
    with file.open("rb") as opened:
        head = opened.read(1024)
    if not head:
        reason, message = "empty", "the file is empty"
    elif WEB_PAGE.match(head):
        reason = "web-page"
        message = "a web page came: the site wants a login, or Google Drive's quota for the file is used up"
    elif not head.startswith(SIGNATURES.get(suffix, b"")):
        reason, message = f"not-{suffix[1:]}", f"the file is no {suffix} archive"
    elif _is_cut_off(file, suffix, head, size):
        reason, message = "cut-off", "the file is cut off: its end is missing"
    elif expected not in (None, found):
        reason, message = "wrong-hash", "it is another file than the expected one"
    else:
        return
    wanted = f", expected {expected}" if expected else ""
    raise Refused(f"{reason}-{found[:8]}", f"{message} ({size} bytes, sha256 {found}{wanted})")


def _refuse_other_phantoms(url: str, urls: list[str], found: str) -> None:
    """Keep the phantoms of one config from being taken for the data of another, real data above all."""
    if url.startswith(PHANTOM) and url not in urls:
        raise Refused(f"phantom-{found[:8]}", f"it holds the phantoms of another config, {url}")


def _refuse_unlike_its_name(named: tuple[str, ...], found: str) -> None:
    if named and not found.startswith(named):
        raise Refused(
            f"wrong-hash-{found[:8]}",
            f"it is another file than the published one: its sha256 is {found} and does not begin with "
            f"{named[0]}, as its name says",
        )


def _is_cut_off(file: Path, suffix: str, head: bytes, size: int) -> bool:
    """Whether an archive lacks its table of contents, which both kinds keep at the end."""
    if suffix == ".zip":
        return not zipfile.is_zipfile(file)
    if suffix == ".7z":
        return size < 32 or 32 + sum(struct.unpack_from("<QQ", head, 12)) > size
    return False


def _publish(part: Path, path: Path) -> None:
    with part.open("rb") as file:
        os.fsync(file.fileno())
    part.replace(path)
    files.sync_folder(path.parent)


def _quarantine(file: Path, path: Path, reason: str) -> Path:
    place = path.parent / "quarantine" / f"{path.name}.{reason}"
    place.parent.mkdir(exist_ok=True)
    return file.replace(place)


def _recorded(record: Path, name: str) -> str | None:
    if not record.exists():
        return None
    text = record.read_text(encoding="utf-8", errors="replace")
    line = re.fullmatch(rf"([0-9a-f]{{64}}) [ *]{re.escape(name)}\s*", text)
    if line is None:
        raise BusflowError(f"{record} is not what sha256sum writes of {name}; correct it, or delete it")
    return line[1]


def _url(note: dict, sha256: str) -> str:
    """Where a file came from: the same answer when it is fetched and when it is found again."""
    return note["url"] if note["sha256"] == sha256 else BY_HAND


def _read_origin(origin: Path) -> dict:
    """The note of the URL that a file came from; without one, of a person."""
    if not origin.exists():
        return {"sha256": None, "url": BY_HAND}
    try:
        note = files.read_json(origin)
        return {key: str(note[key]) for key in ("sha256", "url")}
    except (ValueError, TypeError, KeyError) as error:
        raise BusflowError(
            f"{origin}, which says where the file came from, is damaged; delete both to fetch it anew, "
            "or only that note if you know the file to be the right one"
        ) from error


def _advice(
    path: Path,
    expected: str | None,
    named: tuple[str, ...],
    upstream: str,
    failures: list[str],
    record: Path | None,
) -> str:
    tried = "".join(f"  {failure}\n" for failure in failures or ["no URL is configured"])
    advice = f"Download it by hand ({upstream}), put it at {path} and run the same command again. "
    if expected is None and named:
        advice += f"Its sha256 must begin with {named[0]}."
    elif expected is None:
        advice += "Its sha256 is not known yet and will be recorded."
    elif record is None:
        advice += f"Its sha256 must be {expected}."
    else:
        advice += (
            f"Its sha256 must be {expected}, recorded at the first fetch; to accept another, delete {record}."
        )
    return f"{path.name} could not be fetched:\n{tried}{advice}"
