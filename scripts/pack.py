"""Decode and resize a task's images once, into one memory-mappable array."""

import argparse
from pathlib import Path

import pandas as pd

from busflow.cli import run, settings
from busflow.data.packing import pack


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", required=True, help="data/index/images.csv")
    parser.add_argument(
        "--settings", required=True, type=settings, help="size: side of the images in pixels; sources: whose"
    )
    parser.add_argument("--threads", required=True, type=int)
    parser.add_argument("--output-images", required=True, type=Path)
    parser.add_argument("--output-index", required=True, type=Path)
    args = parser.parse_args()
    images = pd.read_csv(args.images, dtype=str, keep_default_na=False)
    images = images[images["source"].isin(args.settings["sources"])]
    pack(images, args.settings["size"], args.threads, args.output_images, args.output_index)


if __name__ == "__main__":
    run(main)
