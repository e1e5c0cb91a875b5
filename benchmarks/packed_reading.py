"""How many times faster training images come from a packed array than from PNG files.

Each round reads random batches both ways: gathered from the memory-mapped array, and decoded from the
files by OpenCV and resized. Both run on one core in this process, one after the other, so that the
machine's speed cancels out. Without --folder the files are synthetic, of BUSI's size.
"""

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pandas as pd

from busflow.data.images import decode, pixel_sha256
from busflow.data.packing import PackedImages, letterbox, pack

BATCH = 32


def write_images(folder: Path, n: int) -> None:
    """Speckle-like PNG files of 560 × 470 px."""
    rng = np.random.default_rng(0)
    for number in range(n):
        speckle = cv2.GaussianBlur(rng.rayleigh(60, (470, 560)).astype(np.float32), (5, 3), 0)
        cv2.imwrite(str(folder / f"{number:04}.png"), speckle.clip(0, 255).astype(np.uint8))


def images_per_second(read: Callable[[np.ndarray], np.ndarray], batches: np.ndarray) -> float:
    start = time.perf_counter()
    for batch in batches:
        read(batch)
    return batches.size / (time.perf_counter() - start)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, help="PNG files to read, found in all its subfolders")
    parser.add_argument("--images", type=int, default=256)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--rounds", type=int, default=7)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        if not args.folder:
            write_images(Path(scratch), args.images)
        files = sorted((args.folder or Path(scratch)).rglob("*.png"))[: args.images]
        hashes = [pixel_sha256(decode(file.read_bytes(), file.suffix)) for file in files]
        paths = Path(scratch) / "images.npy", Path(scratch) / "index.csv"
        pack(pd.DataFrame({"path": map(str, files), "pixel_sha256": hashes}), args.size, 1, *paths)
        packed = PackedImages(*paths)
        rows = packed.rows(hashes)

        def from_array(batch: np.ndarray) -> np.ndarray:
            return packed.images[rows[batch]]

        def from_files(batch: np.ndarray) -> np.ndarray:
            greys = [cv2.imread(str(files[number]), cv2.IMREAD_GRAYSCALE) for number in batch]
            return np.stack([letterbox(grey, args.size) for grey in greys])

        rounds = []
        rng = np.random.default_rng(0)
        for _ in range(args.rounds):
            few = rng.integers(0, len(files), (4, BATCH))
            many = rng.integers(0, len(files), (200, BATCH))
            rounds.append((images_per_second(from_array, many), images_per_second(from_files, few)))
    ratios = [array / file for array, file in rounds]
    result = {
        "packed_images_per_s": round(statistics.median(array for array, _ in rounds)),
        "png_images_per_s": round(statistics.median(file for _, file in rounds), 1),
        "ratio": round(statistics.median(ratios), 1),
        "ratios": [round(ratio, 1) for ratio in sorted(ratios)],
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
