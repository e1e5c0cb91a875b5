"""Score the predictions of one unit of study against its test split."""

import argparse
import importlib
from pathlib import Path

from busflow.cli import files_of, run
from busflow.files import write_json
from busflow.metrics.scores import scores

# task: its input files, in the order in which they are taken
INPUTS = {
    "classification": ["predictions", "split"],
    "detection": ["predictions", "split", "annotations", "images"],
    "segmentation": ["predictions", "split", "masks"],
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--task", required=True, choices=INPUTS)
    parser.add_argument("--predictions", required=True, type=Path)
    parser.add_argument("--split", required=True, type=Path)
    parser.add_argument("--annotations", type=Path, help="the index's boxes (detection)")
    parser.add_argument("--images", type=Path, help="the index's images (detection)")
    parser.add_argument("--masks", type=Path, help="folder of the index masks (segmentation)")
    parser.add_argument("--output", required=True, type=Path, help="metrics.json")
    parser.add_argument(
        "--scores", required=True, type=Path, help="scores.json: the few that lead its tables"
    )
    arguments = parser.parse_args()
    files = files_of(arguments, INPUTS[arguments.task], parser)
    task = importlib.import_module(f"busflow.metrics.{arguments.task}")
    metrics = task.evaluate(*files.values())
    write_json(arguments.output, metrics)
    write_json(arguments.scores, scores(arguments.task, metrics))


if __name__ == "__main__":
    run(main)
