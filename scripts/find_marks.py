"""Find the images on which something is drawn: calipers, lines, text, pictograms."""

import argparse
from pathlib import Path

from busflow.cli import run
from busflow.data.marks import find_marks
from busflow.files import read_csv, write_csv


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", required=True, help="data/index/images.csv")
    parser.add_argument("--threads", required=True, type=int)
    parser.add_argument("--output", required=True, type=Path)
    args = parser.parse_args()
    write_csv(args.output, find_marks(read_csv(args.images), args.threads))


if __name__ == "__main__":
    run(main)
