"""Images from wherever a user has them: found, and opened in the background."""

import glob
import hashlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import cv2
import numpy as np
from torch.utils.data import DataLoader, Dataset

from busflow.data import archives
from busflow.data.appearance import measure, remarks
from busflow.data.images import SUFFIXES, UnusableImage, decode_both
from busflow.data.packing import letterbox
from busflow.errors import BusflowError


class Picture(NamedTuple):
    """A file that should hold an image, and how the output calls it: a path with ``/``, without ``..``."""

    name: str
    path: Path


class Opened(NamedTuple):
    """An image as it is predicted.

    Attributes:
        name: of its picture.
        sha256: of its file.
        grey: uint8 [H, W].
        packed: by side, uint8 [side, side] from ``letterbox``.
        measures: by side, of ``busflow.data.appearance``.
        remarks: why it may be no ultrasound at all.
    """

    name: str
    sha256: str
    grey: np.ndarray
    packed: dict[int, np.ndarray]
    measures: dict[int, dict[str, float]]
    remarks: list[str]


class Problem(NamedTuple):
    """An image that is not predicted, and why."""

    image: str
    problem: str


def stem(name: str) -> str:
    """A picture's name without its suffix, as which masks and overlays are written."""
    return str(PurePosixPath(name).with_suffix(""))


def find_pictures(places: list[str], scratch: Path) -> list[Picture]:
    """Images in files, folders, archives, and what matches a pattern, in the order of the places.

    A file is called by its name; what is in a folder or an archive by its path there, the folder's or
    archive's own name in front. What in a name is no UTF-8 is written as ``\\xff``. Of folders
    and archives only files with a suffix of images are taken.

    Args:
        places: paths or glob patterns (``**`` for any depth).
        scratch: empty folder that archives are unpacked into.

    Raises:
        BusflowError: a place does not exist, matches nothing or holds no image; an archive is damaged or
            unsafe; or two images would be called the same.
    """
    found = dict.fromkeys(picture for place in places for picture in _in(place, scratch))
    by_stem: dict[str, Path] = {}
    for picture in found:
        first = by_stem.setdefault(stem(picture.name), picture.path)
        if first != picture.path:
            raise BusflowError(
                f"{first} and {picture.path} would both be called {stem(picture.name)}; name one, or a "
                "folder above both, or take them one after the other"
            )
    return list(found)


def _in(place: str, scratch: Path) -> Iterator[Picture]:
    path = Path(place)
    if path.is_dir():
        yield from _below(path, path.resolve().name)
    elif path.name.lower().endswith(archives.SUFFIXES) and path.is_file():
        folder = Path(tempfile.mkdtemp(dir=scratch))
        archives.extract(path, folder)
        yield from _below(folder, path.name)
    elif path.exists():
        yield Picture(_text(path.name), path)
    else:
        matches = glob.glob(place, recursive=True)  # noqa: PTH207  (it may be absolute)
        files = [match for match in sorted(matches) if Path(match).is_file()]
        if not files:
            raise BusflowError(f"{place} does not exist; name files, folders, archives or a pattern of files")
        for file in files:
            yield from _in(file, scratch)


def _text(name: str) -> str:
    return os.fsencode(name).decode("utf-8", "backslashreplace")


def _below(folder: Path, name: str) -> Iterator[Picture]:
    paths = sorted(
        Path(parent, file)
        for parent, _, files in os.walk(folder)
        for file in files
        if file.lower().endswith(SUFFIXES)
    )
    if not paths:
        raise BusflowError(f"{name} holds no image; those that are read end in {', '.join(SUFFIXES)}")
    for path in paths:
        yield Picture(_text(f"{name}/{path.relative_to(folder).as_posix()}").lstrip("/"), path)


class PictureDataset(Dataset):
    """Pictures, opened one at a time; one that cannot be is a ``Problem``.

    Args:
        pictures: from ``find_pictures``.
        sides: of the packed images that are wanted, in pixels.
    """

    def __init__(self, pictures: list[Picture], sides: set[int]):
        self.pictures, self.sides = pictures, sides

    def __len__(self) -> int:
        return len(self.pictures)

    def __getitem__(self, k: int) -> Opened | Problem:
        name, path = self.pictures[k]
        try:
            data = path.read_bytes()
            grey, colours = decode_both(data, path.suffix)
        except (OSError, UnusableImage) as error:
            return Problem(name, " ".join(str(error).split()))
        height, width = grey.shape
        packed = {side: letterbox(grey, side) for side in self.sides}
        return Opened(
            name,
            hashlib.sha256(data).hexdigest(),
            grey,
            packed,
            {side: measure(each, width, height) for side, each in packed.items()},
            remarks(grey, colours),
        )


def batches(pictures: list[Picture], sides: set[int], batch: int) -> DataLoader:
    """Lists of up to ``batch`` opened pictures, read by another process while the caller computes."""
    dataset = PictureDataset(pictures, sides)
    return DataLoader(
        dataset, batch, collate_fn=list, num_workers=1, worker_init_fn=lambda worker: cv2.setNumThreads(1)
    )
