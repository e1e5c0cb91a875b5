"""Small copies of packed images, by which images are compared."""

from collections.abc import Iterable

import cv2
import numpy as np

from busflow.data.packing import PackedImages

SIDE = 32
WORKING_MEMORY_MIB = 128  # of comparing many


def thumbnails(packed: PackedImages, pixel_hashes: Iterable[str]) -> np.ndarray:
    """The images of these pixel_sha256 at 32 × 32, their mean taken off; float32 [n, 1024].

    The cosine of two is the correlation of their pixels.
    """
    rows = packed.rows(pixel_hashes)
    small = [cv2.resize(packed.images[row], (SIDE, SIDE), interpolation=cv2.INTER_AREA) for row in rows]
    flat = np.array(small, np.float32).reshape(len(rows), SIDE * SIDE)
    return flat - flat.mean(axis=1, keepdims=True)
