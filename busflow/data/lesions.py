"""The lesions that masks and outlines show."""

from pathlib import Path

import numpy as np
from PIL import Image

from busflow.data.coco_vid import Outline
from busflow.data.images import UnusableImage, check_lesion, decode_colour, decode_mask
from busflow.data.layout import ImageFile, MaskRule
from busflow.files import atomic


def lesions_of(
    image: ImageFile, shape: tuple[int, int], rule: MaskRule | None, derived: Path
) -> tuple[str, list[dict]]:
    """An image's label, and its lesions as rows of ``annotations.csv`` (``label, x, y, w, h, area,
    mask_path``).

    A mask file shows one lesion (stray specks of a pixel or two must not become lesions of their own), a
    coloured one at most one of each label, and an outline one.

    Args:
        image: with masks; without a label when their colours tell it.
        shape: its height and width.
        rule: how the masks are read; None: they are binary, and stand for themselves.
        derived: where binary masks are written that stand for all others: ``<derived>_<number>.png``.

    Raises:
        UnusableImage: a mask is missing, of another size, not of the colours that it should be, swapped, or
        at odds
            with the label or the other masks.
    """
    found = [
        (*shown, each) for each in image.masks for shown in _shown(each, image.label, shape, rule)
    ]  # label, mask, and what shows it
    label = image.label or _label_of({name for name, *_ in found}, image.masks)
    if label != "normal" and not found:
        raise UnusableImage("missing mask: a lesion needs at least one")
    lesions = []
    for name, mask, shown_by in found:
        if label == "normal" and mask.any():
            raise UnusableImage(f"lesion in a normal: {shown_by.name} is not empty")
        if label != "normal" and not mask.any():
            raise UnusableImage(f"empty mask: {shown_by.name} shows no lesion")
        if name != label:
            raise UnusableImage(
                f"contradictory label: {shown_by.name} shows a {name} lesion, the image is {label}"
            )
        if label != "normal":
            lesions.append((mask, shown_by if rule is None and isinstance(shown_by, Path) else None))
    return label, [
        {"label": label, **_bounds(mask), "mask_path": (path or _write(derived, number, mask)).as_posix()}
        for number, (mask, path) in enumerate(lesions, start=1)
    ]


def _shown(
    each: Path | Outline, label: str, shape: tuple[int, int], rule: MaskRule | None
) -> list[tuple[str, np.ndarray]]:
    """The lesions of one mask or outline, with their labels; an empty mask is one of the image's label."""
    if isinstance(each, Outline):
        return [(label, outlined(each, shape))]
    if rule is None:
        return [(label, decode_mask(each, shape))]
    if not rule.colours:
        return [(label, light(each, shape, rule.threshold))]
    shown = list(coloured(each, shape, rule).items())
    return shown or ([(label, np.zeros(shape, bool))] if label else [])


def coloured(path: Path, shape: tuple[int, int], rule: MaskRule) -> dict[str, np.ndarray]:
    """The lesions of a coloured mask that are there: bool arrays [height, width], by label.

    Raises:
        UnusableImage: a colour is neither black nor one of the rule's; or as
        `busflow.data.images.decode_mask`.
    """
    pixels = _pixels(path, shape, rule.threshold)
    shown = {label: (pixels == colour).all(axis=2) for label, colour in rule.colours.items()}
    others = pixels.any(axis=2) & ~np.any(list(shown.values()), axis=0)
    if others.any():
        first = "#" + "".join(f"{channel:02x}" for channel in pixels[others][0])
        raise UnusableImage(
            f"unknown colour: {path.name} has {first} in {others.sum()} pixels, for which no label is given"
        )
    for mask in shown.values():
        check_lesion(path.name, mask)
    return {label: mask for label, mask in shown.items() if mask.any()}


def light(path: Path, shape: tuple[int, int], threshold: int) -> np.ndarray:
    """What is at least as light as ``threshold`` in any channel of a mask; bool [height, width]."""
    lesion = _pixels(path, shape, threshold).any(axis=2)
    check_lesion(path.name, lesion)
    return lesion


def outlined(outline: Outline, shape: tuple[int, int]) -> np.ndarray:
    """The inside of a COCO ``segmentation``, polygons or run lengths, by pycocotools; bool [height,
    width]."""
    from pycocotools import mask as coco

    try:
        encoded = outline.segmentation
        encoded = dict(encoded) if isinstance(encoded, dict) else encoded  # pycocotools takes no subclass
        if not (
            isinstance(encoded, dict) and isinstance(encoded["counts"], str)
        ):  # else it is encoded already
            encoded = coco.frPyObjects(encoded, *shape)
        encoded = coco.merge(encoded) if isinstance(encoded, list) else encoded
        if tuple(encoded["size"]) != shape:
            raise UnusableImage(f"mask of another size: {outline.name} is for {encoded['size'][::-1]} px")
        lesion = coco.decode(encoded).astype(bool)
    except UnusableImage:
        raise
    except Exception as error:  # whatever stands there
        raise UnusableImage(f"broken outline: {outline.name} is neither polygons nor run lengths") from error
    check_lesion(outline.name, lesion)
    return lesion


def _pixels(path: Path, shape: tuple[int, int], threshold: int | None) -> np.ndarray:
    try:
        pixels = decode_colour(path.read_bytes(), path.suffix)
    except UnusableImage as problem:
        raise UnusableImage(f"unusable mask: {path.name} is {problem}") from problem
    if pixels.shape[:2] != shape:
        sizes = f"{pixels.shape[1]} × {pixels.shape[0]} px, the image {shape[1]} × {shape[0]} px"
        raise UnusableImage(f"mask of another size: {path.name} is {sizes}")
    return pixels if threshold is None else np.where(pixels >= threshold, np.uint8(255), np.uint8(0))


def _label_of(shown: set[str], masks: list) -> str:
    """The label that the colours of an image's masks tell."""
    if not masks:
        raise UnusableImage("missing mask: its colours would tell the label")
    if len(shown) > 1:
        raise UnusableImage(f"two labels: its masks show {' and '.join(sorted(shown))} lesions")
    return next(iter(shown), "normal")


def _write(derived: Path, number: int, mask: np.ndarray) -> Path:
    path = derived.with_name(f"{derived.name}_{number}.png")
    with atomic(path) as temporary:
        Image.fromarray(mask).save(temporary, "PNG")
    return path


def _bounds(mask: np.ndarray) -> dict:
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return {
        "x": columns[0],
        "y": rows[0],
        "w": columns[-1] - columns[0] + 1,
        "h": rows[-1] - rows[0] + 1,
        "area": np.count_nonzero(mask),
    }
