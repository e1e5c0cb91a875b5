"""Decode and resize a task's images once, into one memory-mappable array."""

import argparse
from pathlib import Path

from busflow.cli import run, settings
from busflow.data.packing import pack
from busflow.files import read_csv


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
    images = read_csv(args.images)
    images = images[images["source"].isin(args.settings["sources"])]
    pack(images, args.settings["size"], args.threads, args.output_images, args.output_index)


if __name__ == "__main__":
    run(main)
