"""Score the predictions of one unit of study against its test split."""

import argparse
from pathlib import Path

from busflow.cli import run
from busflow.files import write_json
from busflow.metrics import classification

EVALUATE = {"classification": classification.evaluate}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--task", required=True, choices=EVALUATE)
    parser.add_argument("--predictions", required=True, type=Path)
    parser.add_argument("--split", required=True, type=Path)
    parser.add_argument("--output", required=True, type=Path, help="metrics.json")
    arguments = parser.parse_args()
    write_json(arguments.output, EVALUATE[arguments.task](arguments.predictions, arguments.split))


if __name__ == "__main__":
    run(main)
