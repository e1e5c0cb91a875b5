"""Count parameters, multiply-accumulates and bytes of the models of a task."""

import argparse
from pathlib import Path

from busflow.cli import run, settings
from busflow.files import write_json


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--task", required=True, choices=["classification"])
    parser.add_argument("--models", required=True, type=settings, help="config entries of the models, JSON")
    parser.add_argument("--output", required=True, type=Path)
    args = parser.parse_args()
    from busflow.models.facts import classifier_facts

    write_json(args.output, classifier_facts(args.models))


if __name__ == "__main__":
    run(main)
