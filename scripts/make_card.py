"""Write the model card of a task, or the checklist of a study, as Markdown and as a page of the report."""

import argparse
from pathlib import Path

from busflow.cards.claim import claim_checklist
from busflow.cards.model import model_card
from busflow.cards.study import read_study
from busflow.cli import run
from busflow.tables.document import write
from busflow.tasks import TASKS

CHECKLIST = "claim_checklist"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("card", choices=[*TASKS, CHECKLIST])
    parser.add_argument("--config", required=True, type=Path, help="results/config.yaml")
    parser.add_argument(
        "--metrics",
        required=True,
        type=Path,
        nargs="+",
        help="metrics.json of every unit; run.json and history.csv are read beside each",
    )
    parser.add_argument(
        "--splits", required=True, type=Path, nargs="+", help="with <task>.excluded.csv beside each"
    )
    parser.add_argument("--quarantine", required=True, type=Path)
    parser.add_argument("--external", default=[], type=Path, nargs="+", help="metrics.json of external tests")
    parser.add_argument("--leakage", default=[], type=Path, nargs="+", help="<protocol>_classification.json")
    parser.add_argument("--md", required=True, type=Path)
    parser.add_argument("--html", required=True, type=Path)
    args = parser.parse_args()
    study = read_study(args.config, args.metrics, args.splits, args.quarantine, args.external, args.leakage)
    write(
        claim_checklist(study) if args.card == CHECKLIST else model_card(study, args.card), args.md, args.html
    )


if __name__ == "__main__":
    run(main)
