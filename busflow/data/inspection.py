"""A look into every file that a reader found: decode, check, fingerprint, or give a reason why not."""

import hashlib
import logging
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import repeat
from pathlib import Path

import numpy as np
import pandas as pd

from busflow.data.coco_vid import Box
from busflow.data.images import (
    THUMBNAIL_SIDE,
    UnusableImage,
    check_contrast,
    decode,
    pixel_sha256,
    thumbnail,
)
from busflow.data.layout import QUARANTINE_COLUMNS, WITH_IMAGE, ImageFile, Layout, MaskRule
from busflow.data.lesions import lesions_of
from busflow.data.readers import read_layout
from busflow.files import atomic, write_csv

IMAGE_COLUMNS = [
    "image_id",
    "source",
    "label",
    "path",
    "width",
    "height",
    "sha256",
    "pixel_sha256",
    "unit",
    "upstream_split",
]
ANNOTATION_COLUMNS = ["annotation_id", "image_id", "label", "x", "y", "w", "h", "area", "mask_path"]
MAX_COORDINATE = 1e6

logger = logging.getLogger(__name__)


@dataclass
class _Findings:
    """Of one image file: table rows and the thumbnail, or the problems that keep them out."""

    image: dict | None = None
    thumbnail: np.ndarray | None = None
    annotations: list[dict] = field(default_factory=list)
    problems: list[tuple[Path, str, str]] = field(default_factory=list)


def read_source(source: str, settings: dict, raw: Path, output: Path, threads: int) -> None:
    """Write a source's ``images.csv, annotations.csv, quarantine.csv, thumbnails.npy`` into ``output``.

    Masks in colours, with a threshold or as outlines are written to ``output``'s folder ``masks`` as binary
    PNG.

    ``thumbnails.npy`` is uint8 [N, 64, 64], row i belonging to row i of ``images.csv`` (sorted by
    image_id). A quarantine row has an image_id when that image is left out; without one it tells of
    something smaller: a stray file, a single box.

    Args:
        source: id, the first part of every image_id.
        settings: the config's ``sources.<id>``; ``reader`` is used.
        raw: folder of the unpacked archive; paths in the tables begin with it.

    Raises:
        BusflowError: unknown reader, or not the dataset's layout.
    """
    layout = read_layout(f"sources.{source}.reader", settings["reader"], raw)
    images, problems = _with_ids(source, layout)
    masks = [output / "masks" / image_id.partition("/")[2] for image_id in images]
    with ThreadPoolExecutor(threads) as pool:
        findings = list(pool.map(_inspect, images.values(), images, masks, repeat(layout.mask_rule)))
    for found in findings:
        problems += found.problems
    usable = sorted((found for found in findings if found.image), key=lambda found: found.image["image_id"])

    table = pd.DataFrame([found.image for found in usable], columns=IMAGE_COLUMNS).assign(source=source)
    table["unit"] = source + "/" + table["unit"]
    annotations = pd.DataFrame(
        [row for found in usable for row in found.annotations], columns=ANNOTATION_COLUMNS
    )
    quarantine = pd.DataFrame(
        [(source, path.as_posix(), image_id, reason, "all") for path, image_id, reason in problems],
        columns=QUARANTINE_COLUMNS,
    ).sort_values(["path", "reason"])
    with atomic(output / "thumbnails.npy") as path:
        np.save(
            path, np.array([found.thumbnail for found in usable], np.uint8).reshape(-1, *[THUMBNAIL_SIDE] * 2)
        )
    write_csv(output / "annotations.csv", annotations)
    write_csv(output / "quarantine.csv", quarantine)
    write_csv(output / "images.csv", table)
    counts = ", ".join(f"{count} {label}" for label, count in sorted(Counter(table["label"]).items()))
    logger.info("%s: %d images (%s), %d annotations", source, len(table), counts, len(annotations))
    logger.info("%s: %d rows in %s", source, len(quarantine), output / "quarantine.csv")


def _with_ids(source: str, layout: Layout) -> tuple[dict[str, ImageFile], list[tuple[Path, str, str]]]:
    """Images by id, and the problems known before any file is opened."""
    images, problems = {}, []

    def id_of(path: Path) -> str:
        return f"{source}/{path.relative_to(layout.root).with_suffix('').as_posix()}"

    for image in layout.images:
        image_id = id_of(image.path)
        if image_id in images:
            twin = images[image_id].path.name
            problems.append((image.path, image_id, f"duplicate id: {image_id} is {twin} already"))
        else:
            images[image_id] = image
    problems += [(path, "", reason) for path, reason in layout.problems]
    problems += [(path, id_of(path), reason) for path, reason in layout.left_out]
    return images, problems


def _inspect(image: ImageFile, image_id: str, masks: Path, rule: MaskRule | None) -> _Findings:
    data = image.path.read_bytes()
    try:
        grey = decode(data, image.path.suffix)
        check_contrast(grey)
        label, lesions = image.label, []
        if image.masks is not None:
            label, lesions = lesions_of(image, grey.shape, rule, masks)
    except UnusableImage as problem:
        problems = [(image.path, image_id, str(problem))]
        own = [path for path in image.masks or [] if isinstance(path, Path)]
        problems += [(path, image_id, f"{WITH_IMAGE}: {problem}") for path in own]
        return _Findings(problems=problems)

    height, width = grey.shape
    found = _Findings(thumbnail=thumbnail(grey))
    for box in image.boxes if image.masks is None else []:
        try:
            _check_belongs(box, image, width, height)
            x, y, w, h = clipped(box, width, height)
            lesions.append(
                {"label": box.label, "x": x, "y": y, "w": w, "h": h, "area": w * h, "mask_path": ""}
            )
        except UnusableImage as problem:
            found.problems.append((image.path, "", str(problem)))
    found.annotations = [
        {"annotation_id": f"{image_id}#{number}", "image_id": image_id, **lesion}
        for number, lesion in enumerate(lesions, start=1)
    ]
    found.image = {
        "image_id": image_id,
        "label": label,
        "path": image.path.as_posix(),
        "width": width,
        "height": height,
        "sha256": hashlib.sha256(data).hexdigest(),
        "pixel_sha256": pixel_sha256(grey),
        "unit": image.unit,
        "upstream_split": image.upstream_split,
    }
    return found


def _check_belongs(box: Box, image: ImageFile, width: int, height: int) -> None:
    """Refuse a box that was drawn for another picture than this one."""
    if image.listed_size not in (None, (width, height)):
        listed = " × ".join(map(str, image.listed_size))
        raise UnusableImage(
            f"size of another frame: {box.name} is for {listed} px, the frame is {width} × {height} px"
        )
    if box.label != image.label:
        raise UnusableImage(
            f"contradictory label: {box.name} is {box.label}, its frame lies among the {image.label}"
        )


def clipped(box: Box, width: int, height: int) -> tuple[float, float, float, float]:
    """The part of a box inside the frame as (x, y, w, h); UnusableImage when there is none."""
    x, y, w, h = box.xywh
    if not all(abs(number) < MAX_COORDINATE for number in box.xywh):  # false for NaN, too
        raise UnusableImage(f"box without bounds: {box.name} is {list(box.xywh)}")
    if w <= 0 or h <= 0:
        raise UnusableImage(f"box without area: {box.name} is {w} × {h} px")
    left, top, right, bottom = max(x, 0), max(y, 0), min(x + w, width), min(y + h, height)
    if left >= right or top >= bottom:
        raise UnusableImage(f"box outside: {box.name} is {list(box.xywh)}, the frame {width} × {height} px")
    return left, top, right - left, bottom - top
