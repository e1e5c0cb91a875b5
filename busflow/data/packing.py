"""Packed arrays: every image decoded and resized once, then read from a memory map."""

import logging
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
from tqdm import tqdm

from busflow.data.images import UnusableImage, decode, pixel_sha256
from busflow.errors import BusflowError
from busflow.files import atomic, remove_temporaries, write_csv

logger = logging.getLogger(__name__)


def placement(width: int, height: int, size: int) -> tuple[int, int, int, int]:
    """Where ``letterbox`` puts an image of ``width`` × ``height``: left, top, width and height in pixels."""
    scale = size / max(width, height)
    width, height = (max(1, round(side * scale)) for side in (width, height))
    return (size - width) // 2, (size - height) // 2, width, height


def letterbox(grey: np.ndarray, size: int) -> np.ndarray:
    """Resize so that the longest side is ``size`` and centre on zeros; uint8 [H, W] → [size, size].

    Proportions are kept, because a lesion taller than wide is a sign of malignancy.
    """
    left, top, width, height = placement(grey.shape[1], grey.shape[0], size)
    shrinks = size < max(grey.shape)
    resized = cv2.resize(grey, (width, height), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC)
    packed = np.zeros((size, size), np.uint8)
    packed[top : top + height, left : left + width] = resized
    return packed


def pack(images: pd.DataFrame, size: int, threads: int, output_images: Path, output_index: Path) -> None:
    """Write each distinct image of the index as one row of a packed array.

    Args:
        images: ``path, pixel_sha256`` of ``data/index/images.csv``; images with equal pixels share a row.
        size: side of the packed images in pixels.
        threads: decoders at work at once; the result does not depend on it.
        output_images: ``.npy``, uint8 [N, size, size], rows sorted by pixel_sha256.
        output_index: CSV ``row, pixel_sha256``.

    Raises:
        BusflowError: a file is missing, damaged, or not what was indexed.
    """
    distinct = images.sort_values(["pixel_sha256", "path"]).drop_duplicates("pixel_sha256")
    cv2.setNumThreads(1)
    remove_temporaries(output_images, output_index)
    with ThreadPoolExecutor(threads) as pool:
        rows = pool.map(lambda row: letterbox(_decode_verified(*row), size), _rows(distinct))
        _write_array(output_images, tqdm(rows, "packing", len(distinct), unit=" images"), len(distinct), size)
    index = distinct[["pixel_sha256"]].reset_index(drop=True).rename_axis("row").reset_index()
    write_csv(output_index, index)
    logger.info("%d images, %d of them distinct, at %d px", len(images), len(distinct), size)


class PackedImages:
    """A packed array, memory-mapped.

    Attributes:
        images: uint8 memory map [N, S, S].

    Raises:
        BusflowError: a file is missing or damaged, or the two do not belong together.
    """

    def __init__(self, images: Path, index: Path):
        try:
            self.images = np.lib.format.open_memmap(images, mode="r")
            table = pd.read_csv(index, dtype={"row": int, "pixel_sha256": str})
            self._row = pd.Series(table["row"].to_numpy(), table["pixel_sha256"])
        except (OSError, ValueError, KeyError) as error:
            raise BusflowError(
                f"the packed array {images} or its index {index} is missing or damaged ({error}); "
                "delete both and run the workflow again"
            ) from error
        if len(self._row) != len(self.images):
            raise BusflowError(
                f"{images} has {len(self.images)} images, its index {index} has {len(self._row)}; "
                "delete both and run the workflow again"
            )

    def rows(self, pixel_hashes: Iterable[str]) -> np.ndarray:
        """Rows of ``images`` for these pixel_sha256; int [n].

        Raises:
            BusflowError: an image was never packed.
        """
        wanted = pd.Index(pixel_hashes)
        missing = wanted[~wanted.isin(self._row.index)]
        if len(missing):
            raise BusflowError(
                f"{len(missing)} images are not in the packed array (the first: pixel_sha256 {missing[0]}); "
                "run the workflow again to pack the present index"
            )
        return self._row[wanted].to_numpy()


def _rows(distinct: pd.DataFrame) -> Iterable[tuple[str, str]]:
    return distinct[["path", "pixel_sha256"]].itertuples(index=False, name=None)


def _decode_verified(path: str, expected: str) -> np.ndarray:
    try:
        grey = decode(Path(path).read_bytes(), Path(path).suffix)
    except (FileNotFoundError, UnusableImage) as error:
        raise BusflowError(f"{path} cannot be read any more ({error}); unpack its archive again") from error
    if pixel_sha256(grey) != expected:
        raise BusflowError(f"{path} has changed since it was indexed; unpack its archive again")
    return grey


def _write_array(path: Path, rows: Iterable[np.ndarray], n: int, size: int) -> None:
    # Written as a stream: on a full disk that is an OSError, where a memory map kills the process.
    with atomic(path) as temporary, temporary.open("wb") as file:
        header = {"descr": "|u1", "fortran_order": False, "shape": (n, size, size)}
        np.lib.format.write_array_header_1_0(file, header)
        for row in rows:
            file.write(row.tobytes())
