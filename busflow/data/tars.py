"""Reading compressed tar archives that nobody vouches for."""

import gzip
import io
import tarfile
from pathlib import Path, PurePosixPath
from typing import BinaryIO

CHUNK = 1 << 20
MAX_HEADER = 1 << 20  # bytes; a longer name or comment is no name


class _Bounded(io.RawIOBase):
    """A stream that gives no more than ``MAX_HEADER`` bytes at once: what tarfile would take for a header."""

    def __init__(self, stream: BinaryIO) -> None:
        self.stream = stream

    def read(self, size: int = -1) -> bytes:
        if not 0 <= size <= MAX_HEADER:
            raise tarfile.ReadError(f"a header of {size} bytes")
        return self.stream.read(size)

    def seek(self, offset: int, whence: int = 0) -> int:
        return self.stream.seek(offset, whence)

    def tell(self) -> int:
        return self.stream.tell()


def extract_tar(archive: Path, tree) -> None:
    """Extract a ``.tar.gz`` into the tree of `busflow.data.archives`, which checks names, kinds and sizes.

    It is decompressed twice: all names are checked before the first byte is written. Owners, modes and times
    are not taken over. tarfile ends at the first block that is no header, damaged or not; so what follows the
    last member must be zeros, as the end of a tar is.

    Raises:
        BusflowError: it holds what the tree does not admit, its end is missing, or something follows it.
    """
    with gzip.open(archive) as stream, tarfile.open(fileobj=_Bounded(stream), mode="r:") as source:
        members, announced = [], 0
        for member in source:
            announced += member.size
            if announced > tree.limit:  # before the next header is looked for, behind these bytes
                tree.refuse(f"it unpacks to more than {tree.limit} bytes, as no archive of images does")
            name = member.name.removeprefix("./")
            if member.isdir() and name in (".", ""):
                continue
            regular = member.isreg() and not member.issparse()
            tree.admit(name, is_folder=member.isdir(), is_regular=regular)
            if regular:
                members.append((str(PurePosixPath(name)), member))
        for name, member in members:
            path = tree.create(name)
            content = source.extractfile(member)
            left = member.size
            while left:
                data = content.read(min(CHUNK, left))
                if not data:
                    raise EOFError(f"{name} is cut off")
                tree.append(path, data)
                left -= len(data)
        stream.seek(source.offset)
        _check_end(stream, tree, tree.limit - announced)


def _check_end(stream: BinaryIO, tree, limit: int) -> None:
    """See that nothing but zeros is left of a tar, at least a block; read them all, as a checksum follows."""
    size = 0
    while data := stream.read(CHUNK):
        if data.strip(b"\0"):
            tree.refuse("after its last readable member comes a damaged header, or something follows its end")
        size += len(data)
        if size > limit:
            tree.refuse(f"it unpacks to more than {tree.limit} bytes, as no archive of images does")
    if size < tarfile.BLOCKSIZE:
        tree.refuse("it is cut off: the zeros that end a tar are missing")
