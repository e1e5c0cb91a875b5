"""Score each test image of a task over all its models and seeds."""

import argparse
from pathlib import Path

from busflow.cli import run, settings
from busflow.failures.errors import Files, find_errors
from busflow.files import write_csv
from busflow.tasks import TASKS


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--task", required=True, choices=TASKS)
    parser.add_argument("--predictions", required=True, type=Path, nargs="+", help="of every unit")
    parser.add_argument("--splits", required=True, type=Path, nargs="+", help="of the protocols")
    parser.add_argument(
        "--masks", default=[], type=Path, nargs="+", help="segmentation: of the protocols, in this order"
    )
    parser.add_argument("--images", required=True, type=Path, help="data/index/images.csv")
    parser.add_argument("--annotations", required=True, type=Path, help="data/index/annotations.csv")
    parser.add_argument("--marks", required=True, type=Path, help="data/index/marks.csv")
    parser.add_argument(
        "--settings", required=True, type=settings, help="JSON: protocols, models by task; names in order"
    )
    parser.add_argument("--output", required=True, type=Path)
    args = parser.parse_args()
    if args.task == "segmentation" and len(args.masks) != len(args.splits):
        parser.error("task segmentation needs --masks for each of --splits")
    masks = args.masks or [None] * len(args.splits)
    splits = {
        split: Files(args.images, args.annotations, folder)
        for split, folder in zip(args.splits, masks, strict=True)
    }
    table = find_errors(args.task, args.predictions, splits, args.marks, args.settings)
    write_csv(args.output, table.round(6))


if __name__ == "__main__":
    run(main)
