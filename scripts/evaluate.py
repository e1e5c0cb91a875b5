"""Score the predictions of one unit of study against its test split."""

import argparse
from pathlib import Path

from busflow.cli import files_of, run
from busflow.files import write_json
from busflow.metrics import classification, detection, segmentation

# task: (function, its input files in order)
TASKS = {
    "classification": (classification.evaluate, ["predictions", "split"]),
    "detection": (detection.evaluate, ["predictions", "split", "annotations", "images"]),
    "segmentation": (segmentation.evaluate, ["predictions", "split", "masks"]),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--task", required=True, choices=TASKS)
    parser.add_argument("--predictions", required=True, type=Path)
    parser.add_argument("--split", required=True, type=Path)
    parser.add_argument("--annotations", type=Path, help="the index's boxes (detection)")
    parser.add_argument("--images", type=Path, help="the index's images (detection)")
    parser.add_argument("--masks", type=Path, help="folder of the index masks (segmentation)")
    parser.add_argument("--output", required=True, type=Path, help="metrics.json")
    arguments = parser.parse_args()
    evaluate, inputs = TASKS[arguments.task]
    write_json(arguments.output, evaluate(*files_of(arguments, inputs, parser).values()))


if __name__ == "__main__":
    run(main)
