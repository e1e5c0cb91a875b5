"""What images look like as a whole, so that one which looks like none of the training images is known."""

import cv2
import numpy as np
import pandas as pd

from busflow.data.images import UnusableImage, check_contrast
from busflow.data.packing import placement

# Of this many training images, evenly spaced over all of them; more would tell no more and take long to read.
LOOKED_AT = 1000
# The ranges of the training images reach further by this share of their extent on either side.
MARGIN = 0.25
# Colourfulness (Hasler & Süsstrunk, HVEI 2003) that photographs pass and ultrasound does not: people call 15
# "slightly colourful"; of BUSI's 780 images, with the coloured marks of its scanners, the most is 13.3.
MAX_COLOURFULNESS = 15
MEASURES = {
    "brightness": "mean grey level",
    "contrast": "standard deviation of the grey levels",
    "aspect": "width : height",
}


def measure(packed: np.ndarray, width: int, height: int) -> dict[str, float]:
    """The ``MEASURES`` of an image, from its packed form.

    Args:
        packed: uint8 [S, S], from ``letterbox``; what it adds is left out.
        width, height: of the original image in pixels.
    """
    left, top, inner_width, inner_height = placement(width, height, len(packed))
    mean, deviation = cv2.meanStdDev(packed[top : top + inner_height, left : left + inner_width])
    return {"brightness": mean.item(), "contrast": deviation.item(), "aspect": width / height}


def ranges(images: np.ndarray, rows: np.ndarray, sizes: np.ndarray) -> dict[str, list[float]]:
    """Least and greatest of each measure over training images.

    Args:
        images: uint8 array [N, S, S], usually a memory map.
        rows: int array [n], the row of ``images`` for each image.
        sizes: int array [n, 2], original widths and heights.
    """
    chosen = np.unique(np.linspace(0, len(rows) - 1, LOOKED_AT).round().astype(int))
    table = pd.DataFrame([measure(images[rows[k]], *map(int, sizes[k])) for k in chosen])
    return {name: [float(table[name].min()), float(table[name].max())] for name in MEASURES}


def colourfulness(colours: np.ndarray) -> float:
    """Of uint8 [H, W, 3], 0 for grey: Hasler & Süsstrunk, Measuring colorfulness in natural images, eq. 17.

    Taken of a picture shrunk by area to at most 256 px, as the noise of lossy compression is no colour.
    """
    scale = min(1, 256 / max(colours.shape[:2]))
    size = [max(1, round(side * scale)) for side in colours.shape[1::-1]]
    red, green, blue = np.moveaxis(
        cv2.resize(colours, size, interpolation=cv2.INTER_AREA).astype(float), 2, 0
    )
    opponents = np.stack([red - green, (red + green) / 2 - blue])
    spread, centre = (
        np.hypot(*values) for values in (opponents.std(axis=(1, 2)), opponents.mean(axis=(1, 2)))
    )
    return float(spread + 0.3 * centre)


def remarks(grey: np.ndarray, colours: np.ndarray | None) -> list[str]:
    """Why an image may be no ultrasound at all; empty if nothing speaks for it.

    Args:
        grey: uint8 [H, W].
        colours: uint8 [H, W, 3]; None of a grey image.
    """
    found = []
    if colours is not None and (colour := colourfulness(colours)) > MAX_COLOURFULNESS:
        found.append(f"colour photograph? its colourfulness is {colour:.0f} (at most {MAX_COLOURFULNESS})")
    try:
        check_contrast(grey)
    except UnusableImage as problem:
        found.append(str(problem))
    return found


def departures(measures: dict[str, float], known: dict[str, list[float]]) -> list[str]:
    """In what an image differs from all training images.

    Args:
        measures: of the image, from ``measure``.
        known: ``ranges`` of the training images.
    """
    found = []
    for name, (low, high) in known.items():
        margin = MARGIN * (high - low)
        if not low - margin <= measures[name] <= high + margin:
            found.append(f"{MEASURES[name]} {measures[name]:.2f}, in training {low:.2f} to {high:.2f}")
    return found
