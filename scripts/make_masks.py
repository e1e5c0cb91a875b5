"""Write the segmentation views of one protocol: an index mask for each image of the split."""

import argparse
from pathlib import Path

import pandas as pd

from busflow.cli import run
from busflow.data.masks import make_masks


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--split", required=True, type=pd.read_csv, help="data/splits/{protocol}/segmentation.csv"
    )
    parser.add_argument("--images", required=True, type=pd.read_csv, help="data/index/images.csv")
    parser.add_argument("--annotations", required=True, type=pd.read_csv, help="data/index/annotations.csv")
    parser.add_argument("--output", required=True, type=Path, help="folder of the masks")
    args = parser.parse_args()
    make_masks(args.split, args.images, args.annotations, args.output)


if __name__ == "__main__":
    run(main)
