"""Rank the labels of a task's images, the least credible first."""

import argparse
from pathlib import Path

from busflow.cli import run, settings
from busflow.data.label_errors import find_label_errors
from busflow.data.packing import PackedImages
from busflow.files import read_csv, write_csv


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", required=True, type=read_csv, help="data/index/images.csv")
    parser.add_argument("--packed-images", required=True, type=Path)
    parser.add_argument("--packed-index", required=True, type=Path)
    parser.add_argument("--settings", required=True, type=settings, help="JSON: the sources of the task")
    parser.add_argument("--output", required=True, type=Path)
    args = parser.parse_args()
    images = args.images[args.images["source"].isin(args.settings["sources"])]
    packed = PackedImages(args.packed_images, args.packed_index)
    write_csv(args.output, find_label_errors(images, packed).round(6))


if __name__ == "__main__":
    run(main)
