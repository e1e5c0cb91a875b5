"""Write the detection views of one protocol: a COCO file for each split."""

import argparse
from pathlib import Path

import pandas as pd

from busflow.cli import run
from busflow.data.views import make_views


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--split", required=True, type=pd.read_csv, help="data/splits/{protocol}/detection.csv"
    )
    parser.add_argument("--images", required=True, type=pd.read_csv, help="data/index/images.csv")
    parser.add_argument("--annotations", required=True, type=pd.read_csv, help="data/index/annotations.csv")
    parser.add_argument(
        "--output", required=True, type=Path, help="folder for train.json, val.json, test.json"
    )
    args = parser.parse_args()
    make_views(args.split, args.images, args.annotations, args.output)


if __name__ == "__main__":
    run(main)
