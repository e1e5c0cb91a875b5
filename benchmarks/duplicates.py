"""Seconds to find all duplicate pairs among 26,000 images, and how many times slower brute force is.

The images are synthetic: 188 videos of drifting smooth texture (the size of the Lin et al. dataset),
single images (the rest), and some copies across videos. Brute force correlates every pair of a subset
and is extrapolated by the number of pairs. Both run in this process, one after the other.
"""

import argparse
import json
import time

import numpy as np
import pandas as pd
from scipy.ndimage import gaussian_filter

from busflow.data.duplicates import find_duplicates

SETTINGS = {"hash_distance": 10, "ncc": 0.9}
VIDEOS, FRAMES = 188, 135


def texture(rng: np.random.Generator, width: int) -> np.ndarray:
    """Smooth noise like a thumbnail of ultrasound; uint8 [64, width]."""
    field = gaussian_filter(rng.standard_normal((64, width)), 3, mode="wrap")
    depth = np.linspace(1, 0.3, 64)[:, None]
    return np.clip((110 + 900 * field) * depth, 0, 255).astype(np.uint8)


def synthetic(images: int) -> tuple[pd.DataFrame, np.ndarray]:
    """Thumbnails uint8 [images, 64, 64] and their table; every tenth video repeats some of the last one."""
    rng = np.random.default_rng(0)
    thumbnails, units = [], []
    for video in range(VIDEOS):
        scene = texture(rng, 64 + FRAMES // 4)
        for frame in range(FRAMES):
            noise = rng.integers(0, 9, (64, 64), dtype=np.uint8)
            thumbnails.append(np.minimum(scene[:, frame // 4 : frame // 4 + 64], 246) + noise)
            units.append(f"video{video}")
        if video % 10 == 9:
            thumbnails[-20:] = thumbnails[-FRAMES - 20 : -FRAMES]
    while len(thumbnails) < images:
        thumbnails.append(texture(rng, 64))
        units.append(f"single{len(units)}")
    thumbnails = np.stack(thumbnails[:images])
    pixels = [thumbnail.tobytes() for thumbnail in thumbnails]
    ids = [f"{unit}/{row:06d}" for row, unit in enumerate(units[:images])]
    return pd.DataFrame({"image_id": ids, "unit": units[:images], "pixel_sha256": pixels}), thumbnails


def brute_force(images: pd.DataFrame, thumbnails: np.ndarray) -> int:
    """Number of pairs of different units that correlate, by the full correlation matrix."""
    correlation = np.corrcoef(thumbnails.reshape(len(thumbnails), -1))
    units = images["unit"].to_numpy()
    return int(np.triu((correlation >= SETTINGS["ncc"]) & (units[:, None] != units), 1).sum())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=26_000)
    parser.add_argument("--subset", type=int, default=2_000)
    arguments = parser.parse_args()
    images, thumbnails = synthetic(arguments.images)

    start = time.perf_counter()
    pairs = find_duplicates(images, thumbnails, **SETTINGS)
    ours = time.perf_counter() - start

    start = time.perf_counter()
    brute_force(images[: arguments.subset], thumbnails[: arguments.subset])
    brute = (time.perf_counter() - start) * (arguments.images / arguments.subset) ** 2
    report = {
        "images": arguments.images,
        "pairs": len(pairs),
        "exact": int((pairs["kind"] == "exact").sum()),
        "seconds": round(ours, 2),
        "brute_force_seconds_extrapolated": round(brute, 1),
        "ratio": round(brute / ours, 1),
    }
    print(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
