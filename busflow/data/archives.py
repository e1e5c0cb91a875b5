"""Unpacking archives that nobody vouches for: all of it, in its own folder, or nothing."""

import errno
import logging
import os
import re
import shutil
import stat
import struct
import unicodedata
import zipfile
from pathlib import Path, PurePosixPath
from typing import NoReturn

import py7zr
from py7zr.io import Py7zIO, WriterFactory

from busflow import files
from busflow.data.folders import copy_listed, folder_of
from busflow.data.progress import progress
from busflow.data.tars import extract_tar
from busflow.data.zip_extent import ambiguity
from busflow.errors import BusflowError

# Limits against decompression bombs. The largest real archive (Lin et al.) holds about 4 GB in 26,000 images,
# and images hardly shrink. Small archives may shrink a lot, so the ratio counts from RATIO_FLOOR bytes on.
MAX_BYTES = 16 << 30
MAX_MEMBERS = 100_000
MAX_RATIO = 50
RATIO_FLOOR = 1 << 20

CHUNK = 1 << 20
JUNK = {"__MACOSX", ".DS_Store", "Thumbs.db"}

log = logging.getLogger(__name__)

SUFFIXES = (".zip", ".7z", ".tar.gz", ".tgz")


def unpack(archive: Path | str, receipt: Path | str, folder: Path | str) -> None:
    """Unpack a fetched archive into a folder that does not exist yet.

    Args:
        archive: a ``.zip``, ``.7z`` or ``.tar.gz`` file; or the list of the files of a ``folder:``, which
            are copied.
        receipt: the JSON that was written when it was fetched; its ``sha256`` must be the archive's. Files
            that it names under ``also`` lie beside the archive and are copied into ``folder``.
        folder: where the archive's tree goes, top folder included. It appears in one rename, when all of
            it is on the disk; while it is being filled it is called ``.<name>.partial`` and lies beside.

    Raises:
        BusflowError: the archive is not the one of the receipt, is damaged or encrypted, or holds a
            member that could leave the folder, hide another or fill the disk; or ``folder`` is not empty.
    """
    archive, folder = Path(archive), Path(folder).resolve()
    fetched = _read_receipt(receipt)
    _check_fetched(archive, fetched["sha256"], receipt)
    if folder.exists() and any(folder.iterdir()):
        raise BusflowError(f"{folder} is not empty; remove it, then unpack again")
    partial = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)  # what a killed run left
    partial.mkdir(parents=True)
    try:
        if (source := folder_of([fetched.get("url", "")])) is not None:
            count, size = copy_listed(source, archive, partial)
        else:
            count, size = extract(archive, partial)
        for also in fetched.get("also", []):
            beside, target = archive.with_name(also["file"]), partial / also["file"]
            _check_fetched(beside, also["sha256"], receipt)
            if target.exists():
                raise BusflowError(
                    f"{archive} holds {also['file']} already; take it out of the source's also"
                )
            shutil.copyfile(beside, target)
        os.sync()  # one call instead of an fsync for each of thousands of files
        partial.rename(folder)
        files.sync_folder(folder.parent)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    log.info("%s: %d files, %.1f MB unpacked into %s", archive.name, count, size / 1e6, folder)


def _check_fetched(file: Path, expected: str, receipt: Path | str) -> None:
    if (found := files.sha256(file)) != expected:
        raise BusflowError(
            f"{file} is not the file that was fetched (its sha256 is {found}, {receipt} says {expected}); "
            "fetch it again"
        )


def _read_receipt(receipt: Path | str) -> dict:
    try:
        fetched = files.read_json(receipt)
        return fetched | {"sha256": fetched["sha256"]}
    except (ValueError, TypeError, KeyError) as error:
        raise BusflowError(
            f"{receipt} is no receipt of a fetched archive; delete it and fetch it again"
        ) from error


def extract(archive: Path, folder: Path) -> tuple[int, int]:
    """Extract an archive into an empty folder (absolute); return how many files and bytes were written.

    All names are checked before the first byte is written, and sizes while bytes are written: what the
    archive's own headers say about sizes is not trusted.
    """
    extractors = dict(zip(SUFFIXES, (_extract_zip, _extract_7z, extract_tar, extract_tar), strict=True))
    fitting = [each for suffix, each in extractors.items() if archive.name.lower().endswith(suffix)]
    if not fitting:
        raise BusflowError(f"{archive} is neither a .zip nor a .7z nor a .tar.gz; repack it as one of them")
    tree = _Tree(archive, folder)
    try:
        with tree.bar:
            fitting[0](archive, tree)
    except BusflowError:
        raise
    except Exception as error:
        # Parsers of hostile bytes fail in many ways. Only an error of the system (disk full, no permission)
        # is not the archive's fault; seeking to a nonsensical offset is.
        if isinstance(error, OSError) and error.errno not in (None, errno.EINVAL):
            error.filename = error.filename or str(folder)  # a failed write does not say where
            raise
        raise BusflowError(
            f"{archive} is damaged ({type(error).__name__}: {error}); delete it and fetch it again"
        ) from error
    if not tree.files:
        tree.refuse("it holds no file")
    return tree.files, tree.size


class _Tree:
    """What an archive may write into a folder: the members that were admitted, and bytes up to a limit."""

    def __init__(self, archive: Path, folder: Path) -> None:
        self.archive, self.folder = archive, folder
        self.limit = min(MAX_BYTES, MAX_RATIO * max(archive.stat().st_size, RATIO_FLOOR))
        self.members = self.files = self.size = 0
        self.paths: dict[str, Path | None] = {}  # where each file goes; None is junk, which is not written
        self.claims: dict[str, tuple[str, str]] = {}  # path as the least discerning file system sees it
        self.bar = progress(archive.name)

    def refuse(self, why: str) -> NoReturn:
        raise BusflowError(f"{self.archive} is refused: {why}; nothing was unpacked, get a sound copy of it")

    def admit(self, name: str, is_folder: bool, is_regular: bool) -> None:
        """Check a member's name and kind and keep its place; a folder is made at once."""
        self.members += 1
        if self.members > MAX_MEMBERS:
            self.refuse(f"it has more than {MAX_MEMBERS} members")
        path = PurePosixPath(name)
        if not path.parts or not files.is_plain(name):
            self.refuse(f"the name {name!r} is empty or holds a control character")
        if "\\" in name or path.is_absolute() or ".." in path.parts or re.match("[A-Za-z]:", name):
            self.refuse(f"{name!r} may lead out of its folder (absolute, drive letter, backslash or '..')")
        if files.is_too_long(name):
            self.refuse(f"the name {name[:40]!r}... is too long")
        if not (is_folder or is_regular):
            self.refuse(f"{name!r} is a link or a device, not a file")
        self._claim(path, "folder" if is_folder else "file")
        if JUNK.intersection(path.parts):
            self.paths[str(path)] = None
        elif is_folder:
            (self.folder / path).mkdir(parents=True, exist_ok=True)
        else:
            self.paths[str(path)] = self.folder / path

    def _claim(self, path: PurePosixPath, kind: str) -> None:
        """Refuse a member that some file system would put in the place of another."""
        entries = [(str(parent), "folder") for parent in path.parents[:-1]] + [(str(path), kind)]
        for entry in entries:
            key = unicodedata.normalize("NFC", unicodedata.normalize("NFC", entry[0]).casefold())
            claim = self.claims.get(key)
            if claim is not None and (claim != entry or entry[1] == "file"):
                self.refuse(
                    f"{claim[0]!r} and {entry[0]!r} take the same place (duplicates, or different only "
                    "by case or Unicode form)"
                )
            self.claims[key] = entry

    def create(self, name: str) -> Path | None:
        """Make the empty file of an admitted member."""
        path = self.paths[name]
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch(exist_ok=False)
            self.files += 1
        return path

    def append(self, path: Path | None, data: bytes) -> None:
        """Write to a created file, unless the archive outgrows its limit; junk counts but is not written."""
        self.size += len(data)
        if self.size > self.limit:
            self.refuse(f"it unpacks to more than {self.limit} bytes, as no archive of images does")
        if path is not None:
            with path.open("ab") as file:
                file.write(data)
        self.bar.update(len(data))


def _extract_zip(archive: Path, tree: _Tree) -> None:
    with zipfile.ZipFile(archive) as source:
        if why := ambiguity(archive, source):
            tree.refuse(why)
        members = source.infolist()
        for member in members:
            name = member.orig_filename  # zipfile cuts .filename at a NUL
            if member.flag_bits & 1:
                tree.refuse(f"{name!r} is encrypted")
            kind = stat.S_IFMT(member.external_attr >> 16)
            tree.admit(name, is_folder=name.endswith("/"), is_regular=kind in (0, stat.S_IFREG))
        for member in members:
            if not member.is_dir():
                path = tree.create(str(PurePosixPath(member.filename)))
                with source.open(member) as stream:
                    while data := stream.read(CHUNK):
                        tree.append(path, data)


def _extract_7z(archive: Path, tree: _Tree) -> None:
    # Given an open file, py7zr decompresses in one thread: in order, and the first refusal stops it.
    try:
        with archive.open("rb") as file, py7zr.SevenZipFile(file) as source:
            file.seek(12)  # where the place and size of its table of contents stand, which is at the end
            if 32 + sum(struct.unpack("<QQ", file.read(16))) != archive.stat().st_size:
                tree.refuse("something follows its end")
            for member in source.list():
                tree.admit(member.filename, is_folder=member.is_directory, is_regular=member.is_file)
            source.extractall(tree.folder, factory=_SevenZipWriters(tree))
    except py7zr.PasswordRequired:
        tree.refuse("it is encrypted")


class _SevenZipWriters(WriterFactory):
    def __init__(self, tree: _Tree) -> None:
        self.tree = tree

    def create(self, filename: str) -> Py7zIO:
        name = Path(filename).relative_to(self.tree.folder).as_posix()
        return _SevenZipWriter(self.tree, self.tree.create(name))


class _SevenZipWriter(Py7zIO):
    """A file as py7zr wants it; of the whole interface it calls only ``write`` while it extracts."""

    def __init__(self, tree: _Tree, path: Path | None) -> None:
        self.tree, self.path = tree, path

    def write(self, s: bytes | bytearray) -> int:
        self.tree.append(self.path, s)
        return len(s)

    def read(self, size: int | None = None) -> bytes:
        return b""

    def seek(self, offset: int, whence: int = 0) -> int:
        return offset

    def flush(self) -> None:
        pass

    def size(self) -> int:
        return 0
