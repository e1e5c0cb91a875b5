"""Lists of video frames and their boxes in the COCO-VID schema, as the Lin et al. dataset has them."""

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from busflow.errors import BusflowError

NUMBER = (int, float)
FIELDS = {
    "images": {"id": NUMBER, "file_name": str},
    "annotations": {"id": NUMBER, "image_id": NUMBER, "category_id": NUMBER, "bbox": list},
}


@dataclass(frozen=True)
class Box:
    """A lesion's box: ``xywh`` in pixels as written in the dataset; ``name`` is for messages."""

    label: str
    xywh: tuple[float, float, float, float]
    name: str


@dataclass
class FrameList:
    """What one list holds: every frame's boxes by file name, and (file name or "", reason) of the rest."""

    boxes: dict[str, list[Box]] = field(default_factory=dict)
    problems: list[tuple[str, str]] = field(default_factory=list)


def read_frame_list(path: Path, labels: tuple[str, ...]) -> FrameList:
    """Read a COCO-VID file; a bad record is left out and named in ``problems``.

    Box geometry is not checked here: that needs the frame's size.

    Raises:
        BusflowError: the file as a whole is damaged: not JSON, or without frames, boxes or categories.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise BusflowError(f"{path} is not valid JSON ({error}): unpack its archive again") from None
    records = {key: _list(content, key, path) for key in ("categories", *FIELDS)}
    try:
        categories = {record["id"]: record["name"] for record in records["categories"]}
    except (KeyError, TypeError):
        raise BusflowError(f"{path}: every entry of categories needs an id and a name") from None

    frames = FrameList()
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
            frames.boxes[name] = []

    seen = set()
    for annotation in _well_formed(records, "annotations", path, frames):
        frame = names.get(annotation["image_id"], "")
        box = Box(
            label=categories.get(annotation["category_id"], "none"),
            xywh=tuple(annotation["bbox"]),
            name=f"annotation {annotation['id']} of {path.name}",
        )
        if annotation["id"] in seen:
            frames.problems.append((frame, f"duplicate id: {box.name} is there twice"))
        elif not frame:
            number = annotation["image_id"]
            frames.problems.append(
                ("", f"no such frame: {box.name} is for image id {number}, which names no frame")
            )
        elif box.label not in labels:
            frames.problems.append(
                (frame, f"unknown category: {box.name} has {annotation['category_id']} ({box.label})")
            )
        elif len(box.xywh) != 4 or not all(isinstance(number, NUMBER) for number in box.xywh):
            frames.problems.append(
                (frame, f"broken box: {box.name} is {annotation['bbox']}, not four numbers")
            )
        else:
            frames.boxes[frame].append(box)
        seen.add(annotation["id"])
    return frames


def _list(content: object, key: str, path: Path) -> list:
    records = content.get(key) if isinstance(content, dict) else None
    if not isinstance(records, list) or not records:
        raise BusflowError(f"{path} has no list of {key}: it is not the dataset's COCO-VID file")
    return records


def _well_formed(records: dict, key: str, path: Path, frames: FrameList) -> Iterator[dict]:
    for number, record in enumerate(records[key]):
        values = record if isinstance(record, dict) else {}
        bad = [name for name, kind in FIELDS[key].items() if not isinstance(values.get(name), kind)]
        if bad:
            frames.problems.append(
                ("", f"broken record: {path.name}, {key}[{number}] lacks a proper {', '.join(bad)}")
            )
        else:
            yield record
