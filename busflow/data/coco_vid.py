"""Lists of video frames and their boxes in the COCO-VID schema, as the Lin et al. dataset has them."""

import json
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from busflow.errors import BusflowError
from busflow.files import is_plain


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)  # to Python, true is 1


def _is_text(value: object) -> bool:
    return isinstance(value, str) and value != "" and is_plain(value)


def _is_list(value: object) -> bool:
    return isinstance(value, list)


FIELDS = {
    "categories": {"id": _is_number, "name": _is_text},
    "images": {"id": _is_number, "file_name": _is_text},
    "annotations": {
        "id": _is_number,
        "image_id": _is_number,
        "category_id": _is_number,
        "bbox": _is_list,
    },
}


@dataclass(frozen=True)
class Box:
    """A lesion's box: ``xywh`` in pixels as written in the dataset; ``name`` is for messages."""

    label: str
    xywh: tuple[float, float, float, float]
    name: str


@dataclass(frozen=True)
class Outline:
    """A lesion's polygons or run lengths as a COCO file has them; ``name`` is for messages."""

    segmentation: object
    name: str


@dataclass
class FrameList:
    """What one list holds, by file name of the frame: its boxes, and its size in pixels where it is given.

    ``outlines`` are those of the boxes that have one, ``records`` the frames' own entries. ``problems`` are
    (file name or "", reason) of the rest.
    """

    boxes: dict[str, list[Box]] = field(default_factory=dict)
    outlines: dict[str, list[Outline]] = field(default_factory=dict)
    records: dict[str, dict] = field(default_factory=dict)
    sizes: dict[str, tuple[object, object]] = field(default_factory=dict)
    problems: list[tuple[str, str]] = field(default_factory=list)


def read_frame_list(
    path: Path, labels: tuple[str, ...], label_of: Callable[[str], str | None] = str
) -> FrameList:
    """Read a COCO or COCO-VID file; a bad record is left out and named in ``problems``.

    Box geometry is not checked here: that needs the frame's size. ``label_of`` gives the label that a
    category stands for, or None.

    Raises:
        BusflowError: the file as a whole is damaged: not JSON, without frames, boxes or categories, or with
            categories or lists of which there are two.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"), object_pairs_hook=_Object)
    except (ValueError, RecursionError) as error:
        raise BusflowError(f"{path} is not valid JSON ({error}): unpack its archive again") from None
    records = {key: _list(content, key, path) for key in FIELDS}
    frames = FrameList()
    named = _well_formed(records, "categories", path, frames)
    categories = {record["id"]: label_of(record["name"]) or record["name"] for record in named}
    if frames.problems or len(categories) < len(records["categories"]):
        raise BusflowError(f"{path}: every entry of categories needs an id of its own and a name")

    names = _list_frames(records, path, frames)
    seen = set()
    for annotation in _well_formed(records, "annotations", path, frames):
        number = annotation["image_id"]
        frame = names.get(number, "")
        box = Box(
            label=categories.get(annotation["category_id"], "none"),
            xywh=tuple(annotation["bbox"]),
            name=f"annotation {annotation['id']} of {path.name}",
        )
        if annotation["id"] in seen:
            problem = f"duplicate id: {box.name} is there twice"
        elif not frame:
            problem = f"no such frame: {box.name} is for image id {number}, which names no frame"
        else:
            problem = _problem(annotation, box, labels, frames.boxes[frame])
        if problem:
            frames.problems.append((frame, problem))
        else:
            frames.boxes[frame].append(box)
            if annotation.get("segmentation"):
                frames.outlines[frame].append(Outline(annotation["segmentation"], box.name))
        seen.add(annotation["id"])
    return frames


def _list_frames(records: dict, path: Path, frames: FrameList) -> dict[float, str]:
    """Enter the frames that are sound; return their file names by id."""
    names = {}
    images = list(_well_formed(records, "images", path, frames))
    uses = Counter(image["id"] for image in images)
    for image in images:
        name = image["file_name"]
        if uses[image["id"]] > 1:
            frames.problems.append((name, f"duplicate id: {path.name} uses image id {image['id']} twice"))
        elif name in frames.boxes:
            frames.problems.append((name, f"listed twice: {path.name} has it under two image ids"))
        else:
            names[image["id"]] = name
            frames.boxes[name], frames.outlines[name], frames.records[name] = [], [], image
            if "width" in image or "height" in image:
                frames.sizes[name] = (image.get("width"), image.get("height"))
    return names


def _problem(annotation: dict, box: Box, labels: tuple[str, ...], others: list[Box]) -> str:
    """What is wrong with a box that is one of a frame's, whose sound ones are ``others``; empty: nothing."""
    if box.label not in labels:
        return f"unknown category: {box.name} has {annotation['category_id']} ({box.label})"
    if len(box.xywh) != 4 or not all(map(_is_number, box.xywh)):
        return f"broken box: {box.name} is {annotation['bbox']}, not four numbers"
    if box.xywh in [other.xywh for other in others]:
        return f"box twice: {box.name} is {annotation['bbox']}, as another of its frame"
    return ""


class _Object(dict):
    """A JSON object that knows which of its keys were there twice; of those, JSON keeps the last one only."""

    def __init__(self, pairs: list[tuple[str, object]]) -> None:
        super().__init__(pairs)
        self.twice = [key for key, count in Counter(key for key, _ in pairs).items() if count > 1]


def _list(content: object, key: str, path: Path) -> list:
    if isinstance(content, _Object) and key in content.twice:
        raise BusflowError(f"{path} has two lists of {key}, and only one can count: unpack its archive again")
    records = content.get(key) if isinstance(content, dict) else None
    if not isinstance(records, list) or not records:
        raise BusflowError(f"{path} has no list of {key}: it is not the dataset's COCO-VID file")
    return records


def _well_formed(records: dict, key: str, path: Path, frames: FrameList) -> Iterator[dict]:
    for number, record in enumerate(records[key]):
        values = record if isinstance(record, _Object) else _Object([])
        bad = [name for name, is_proper in FIELDS[key].items() if not is_proper(values.get(name))]
        if values.twice:
            frames.problems.append(
                ("", f"broken record: {path.name}, {key}[{number}] has the keys {values.twice} twice")
            )
        elif bad:
            frames.problems.append(
                ("", f"broken record: {path.name}, {key}[{number}] lacks a proper {', '.join(bad)}")
            )
        else:
            yield record
