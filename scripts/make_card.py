"""Write a task's model card, or a study's checklist or outcome, as Markdown and as a page of the report."""

import argparse
from pathlib import Path

from busflow.cards.claim import claim_checklist
from busflow.cards.model import model_card
from busflow.cards.outcome import outcome
from busflow.cards.study import read_study
from busflow.cli import run
from busflow.tables.document import write
from busflow.tasks import TASKS

CHECKLIST, OUTCOME = "claim_checklist", "outcome"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("card", choices=[*TASKS, CHECKLIST, OUTCOME])
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
    parser.add_argument(
        "--tables", default=[], type=Path, nargs="+", help="CSVs of the study; of its outcome"
    )
    parser.add_argument("--ledger", type=Path, help="of its outcome")
    parser.add_argument("--md", required=True, type=Path)
    parser.add_argument("--html", required=True, type=Path)
    args = parser.parse_args()
    study = read_study(args.config, args.metrics, args.splits, args.quarantine, args.external, args.leakage)
    if args.card == OUTCOME:
        document = outcome(study, {path.stem: path for path in args.tables}, args.ledger)
    else:
        document = claim_checklist(study) if args.card == CHECKLIST else model_card(study, args.card)
    write(document, args.md, args.html)


if __name__ == "__main__":
    run(main)
