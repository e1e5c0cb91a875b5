"""Score the test predictions of all folds of one model and seed together."""

import argparse
from pathlib import Path

from busflow.cli import run
from busflow.metrics.pooled import evaluate_pooled
from busflow.metrics.resamples import write_metrics
from busflow.tasks import TASKS


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--task", required=True, choices=TASKS)
    parser.add_argument("--predictions", required=True, type=Path, nargs="+", help="of each fold")
    parser.add_argument("--splits", required=True, type=Path, nargs="+", help="of the folds, in this order")
    parser.add_argument(
        "--inputs", default=[], type=Path, nargs="*", help="what else an evaluation reads, in its order"
    )
    parser.add_argument("--output", required=True, type=Path, help="metrics.json; resamples.npz beside it")
    args = parser.parse_args()
    write_metrics(args.output, evaluate_pooled(args.task, args.predictions, args.splits, tuple(args.inputs)))


if __name__ == "__main__":
    run(main)
