"""Readers look at a dataset's folders and say what is there; they decode nothing.

Most datasets need no code: the config describes them for one of the readers in ``DESCRIBED``. Those of the
paper are read by a function each, which knows all that can be wrong with them.
"""

import re
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

from busflow.data.coco import read_coco
from busflow.data.coco_vid import read_frame_list
from busflow.data.layout import ImageFile, Layout
from busflow.data.named import read_named
from busflow.data.table import read_table
from busflow.errors import BusflowError
from busflow.labels import LABELS

LIN_LISTS = {"train": "imagenet_vid_train_15frames.json", "val": "imagenet_vid_val.json"}
BUSI_MASK = re.compile(r"(?P<image>.+)_mask(_\d+)?")
RODRIGUES_IMAGE = re.compile(r"us(?P<number>[1-9]\d*)")
RODRIGUES_SERIES = 5


def lin(raw: Path) -> Layout:
    """Lin et al. (MICCAI 2022): ``rawframes/{benign,malignant}/<video>/<frame>.png``, two COCO-VID lists.

    Every frame on disk is an image (the paper's Table 1 counts those); a video is a unit.
    """
    root = _find(raw, "rawframes/benign", "rawframes/malignant") / "rawframes"
    layout = Layout(root)
    frames = {}
    for label in ("benign", "malignant"):
        videos = [path for path in _entries(root / label) if path.is_dir()]
        strays = [path for path in _entries(root / label) if not path.is_dir()]
        layout.problems += [(path, "unexpected file: it lies outside the video folders") for path in strays]
        if not videos:
            raise BusflowError(f"{root / label} holds no video folder: unpack the archive again")
        for video in videos:
            unit = f"{label}/{video.name}"
            for path in _files(video, ".png", layout):
                frames[f"{unit}/{path.name}"] = ImageFile(path, label, unit)
    layout.images = list(frames.values())

    for split, name in LIN_LISTS.items():
        path = _find(raw, name) / name
        listed = read_frame_list(path, LABELS)
        layout.problems += [(root / frame if frame else path, reason) for frame, reason in listed.problems]
        for frame, boxes in listed.boxes.items():
            if frame not in frames:
                layout.problems.append(
                    (root / frame, f"missing image: {name} lists it, but it is not on disk")
                )
            elif frames[frame].upstream_split:
                layout.problems.append(
                    (root / frame, f"listed twice: {name} repeats a frame of another list")
                )
            else:
                frames[frame].upstream_split = split
                frames[frame].boxes = boxes
                frames[frame].listed_size = listed.sizes.get(frame)
    return layout


def busi(raw: Path) -> Layout:
    """Al-Dhabyani et al. (2020): ``{label}/<name>.png``, masks ``<name>_mask.png, <name>_mask_1.png`` ...

    Nothing says which images are of one patient, so each is a unit.
    """
    root = _find(raw, *LABELS)
    layout = Layout(root)
    for label in LABELS:
        images, masks = [], defaultdict(list)
        for path in _files(root / label, ".png", layout):
            match = BUSI_MASK.fullmatch(path.stem)
            if match:
                masks[match["image"]].append(path)
            else:
                images.append(path)
        if not images:
            raise BusflowError(f"{root / label} holds masks but no image: unpack the archive again")
        for path in images:
            layout.images.append(
                ImageFile(path, label, f"{label}/{path.stem}", masks=masks.pop(path.stem, []))
            )
        for orphans in masks.values():
            layout.problems += [(path, "orphan mask: the image it belongs to is missing") for path in orphans]
    return layout


def rodrigues(raw: Path) -> Layout:
    """Rodrigues (2017): ``{benign,malignant}/us<number>.bmp``.

    Five files with consecutive numbers (1–5, 6–10 ...) show one lesion: they are a unit.
    """
    root = _find(raw, "benign", "malignant")
    layout = Layout(root)
    for label in ("benign", "malignant"):
        for path in _files(root / label, ".bmp", layout):
            match = RODRIGUES_IMAGE.fullmatch(path.stem)
            if not match:
                layout.problems.append(
                    (path, "unexpected name: not us<number>.bmp, so its series is unknown")
                )
                continue
            first = (int(match["number"]) - 1) // RODRIGUES_SERIES * RODRIGUES_SERIES + 1
            layout.images.append(
                ImageFile(path, label, f"{label}/us{first}-us{first + RODRIGUES_SERIES - 1}")
            )
    return layout


READERS: dict[str, Callable[[Path], Layout]] = {"lin": lin, "busi": busi, "rodrigues": rodrigues}


def read_layout(key: str, reader: str | dict, raw: Path) -> Layout:
    """What a dataset holds.

    Args:
        key: where the config names the reader, for messages.
        reader: one of ``READERS``, or ``{kind: description}`` with one of ``DESCRIBED``.
        raw: folder of the unpacked archive.

    Raises:
        BusflowError: unknown reader, or not the dataset's layout.
    """
    if isinstance(reader, dict):
        kind, spec = next(iter(reader.items()))
        return DESCRIBED[kind](raw, spec, f"{key}.{kind}")
    if reader not in READERS:
        raise BusflowError(
            f"{key} is {reader!r}, which is not known; known are {', '.join(READERS)}, "
            f"and descriptions of {', '.join(DESCRIBED)}"
        )
    return READERS[reader](raw)


def _with_find(read: Callable) -> Callable[[Path, dict, str], Layout]:
    return lambda raw, spec, key: read(raw, spec, key, _find)


DESCRIBED: dict[str, Callable[[Path, dict, str], Layout]] = {
    "table": _with_find(read_table),
    "folders": read_named,
    "pairs": read_named,
    "coco": _with_find(read_coco),
}


def _find(raw: Path, *names: str) -> Path:
    """The one folder at or below ``raw`` that holds all ``names``: archives differ in their top folder."""
    holders = {
        path.parents[names[0].count("/")] for path in raw.rglob(names[0]) if "__MACOSX" not in path.parts
    }
    fitting = sorted(holder for holder in holders if all((holder / name).exists() for name in names))
    if len(fitting) != 1:
        found = " and ".join(map(str, fitting)) or "none"
        raise BusflowError(
            f"{raw} should have one folder with {', '.join(names)}, but has {found}: "
            "it is not this dataset's layout; check sources.<id>.reader and the archive"
        )
    return fitting[0]


def _entries(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if not path.name.startswith("."))


def _files(folder: Path, suffix: str, layout: Layout) -> list[Path]:
    """The files with ``suffix``, by name; whatever else is there becomes a problem."""
    files = []
    for path in _entries(folder):
        if path.is_file() and path.suffix.lower() == suffix:
            files.append(path)
        else:
            layout.problems.append((path, f"unexpected file: not {suffix}"))
    if not files:
        raise BusflowError(f"{folder} holds no {suffix} file: unpack the archive again")
    return files
