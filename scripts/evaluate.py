"""Score the predictions of one unit of study against its test split."""

import argparse
import importlib
from pathlib import Path

from busflow.cli import add_task, inputs_of, run
from busflow.files import write_json
from busflow.metrics.resamples import write_metrics
from busflow.metrics.scores import scores


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    add_task(parser, "evaluate")
    parser.add_argument("--predictions", required=True, type=Path)
    parser.add_argument("--output", required=True, type=Path, help="metrics.json; resamples.npz beside it")
    parser.add_argument(
        "--scores", required=True, type=Path, help="scores.json: the few that lead its tables"
    )
    args = parser.parse_args()
    inputs = inputs_of(args, "evaluate", parser)
    task = importlib.import_module(f"busflow.metrics.{args.task}")
    metrics = task.evaluate(args.predictions, *inputs.values())
    write_metrics(args.output, metrics)
    write_json(args.scores, scores(args.task, metrics))


if __name__ == "__main__":
    run(main)
