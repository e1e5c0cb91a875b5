"""Measure how far a split's test set leaks into its training set."""

import argparse
from pathlib import Path

import numpy as np
import pandas as pd

from busflow.cli import run
from busflow.data.packing import PackedImages
from busflow.files import write_json
from busflow.metrics.leakage import measure_leakage


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", required=True, type=read, help="data/index/images.csv")
    parser.add_argument("--duplicates", required=True, type=read, help="data/index/duplicates.csv")
    parser.add_argument("--split", required=True, type=read)
    parser.add_argument("--packed-images", required=True, type=Path)
    parser.add_argument("--packed-index", required=True, type=Path)
    parser.add_argument("--features", type=Path, help="of a frozen network, in the rows of the packed array")
    parser.add_argument("--output", required=True)
    args = parser.parse_args()
    packed = PackedImages(args.packed_images, args.packed_index)
    features = None if args.features is None else np.load(args.features, allow_pickle=False)
    write_json(args.output, measure_leakage(args.images, args.duplicates, args.split, packed, features))


def read(path: str) -> pd.DataFrame:
    return pd.read_csv(path, dtype=str, keep_default_na=False)


if __name__ == "__main__":
    run(main)
