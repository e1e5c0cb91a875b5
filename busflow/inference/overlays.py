"""Pictures of what was found: the image with boxes, outlines and words."""

import textwrap
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from busflow.files import atomic
from busflow.labels import CLASS_COLOURS, LABELS

PLAIN = "#6c757d"  # of words without a label


class Overlay(NamedTuple):
    """What is drawn.

    Attributes:
        captions: label, or None, and words.
        boxes: label, ``[x, y, w, h]`` in pixels, and words.
        mask: uint8 [H, W], 0 or 1 + the position of a label.
    """

    captions: list[tuple[str | None, str]]
    boxes: list[tuple[str, list[float], str]] = []  # noqa: RUF012  (never changed)
    mask: np.ndarray | None = None


def draw(grey: np.ndarray, overlay: Overlay, notice: str) -> Image.Image:
    """The image [H, W] in grey, the overlay in colour, and below it what was found and what it is for."""
    height, width = grey.shape
    size = max(12, min(width, height) // 28)  # of letters and, by tenths, lines, in pixels
    stroke, font = max(1, size // 8), ImageFont.load_default(size)
    letters = max(1, int((width - size) / font.getlength("n")))  # in a line
    words = [
        (label, line)
        for label, text in [*overlay.captions, (None, notice)]
        for line in textwrap.wrap(text, letters)
    ]
    footer = round(1.4 * size * len(words)) + size // 2
    picture = Image.new("RGB", (width, height + footer), "white")
    picture.paste(Image.fromarray(_outlined(grey, overlay.mask, stroke)))
    pencil = ImageDraw.Draw(picture)
    for label, (x, y, w, h), text in reversed(overlay.boxes):  # the surest on top
        colour = CLASS_COLOURS[label]
        right, bottom = min(x + w, width - 1), min(y + h, height - 1)
        pencil.rectangle((x, y, right, bottom), outline=colour, width=stroke)
        _tag(pencil, (x, y), text, colour, font, (width, height))
    for k, (label, text) in enumerate(words):
        colour = PLAIN if label is None else CLASS_COLOURS[label]
        pencil.text((size // 2, height + round(1.4 * size * k) + size // 4), text, colour, font)
    return picture


def _outlined(grey: np.ndarray, mask: np.ndarray | None, line: int) -> np.ndarray:
    colours = np.repeat(grey[..., None], 3, axis=2)
    for k, label in enumerate(LABELS, 1) if mask is not None else ():
        outlines, _ = cv2.findContours((mask == k).astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
        red, green, blue = bytes.fromhex(CLASS_COLOURS[label][1:])
        cv2.drawContours(colours, outlines, -1, (red, green, blue), line)
    return colours


def _tag(pencil, corner, text: str, colour: str, font, within: tuple[int, int]) -> None:
    """Words on a box's upper edge, moved so far that they can be read."""
    left, top, right, bottom = pencil.textbbox((0, 0), text, font)
    wide, high = right - left + 4, bottom - top + 4
    x = min(max(corner[0], 0), max(0, within[0] - wide))
    y = min(max(corner[1] - high, 0), max(0, within[1] - high))
    pencil.rectangle((x, y, x + wide, y + high), fill=colour)
    pencil.text((x + 2 - left, y + 2 - top), text, "white", font)


def write_overlay(path: Path, grey: np.ndarray, overlay: Overlay, notice: str) -> None:
    """``draw`` as a PNG."""
    with atomic(path) as temporary:
        draw(grey, overlay, notice).save(temporary)
