"""Judge every claim of the paper by the study's tables: the ledger, and a page that sums it up."""

import argparse
from pathlib import Path

from busflow.audit.ledger import ledger
from busflow.audit.summary import summary
from busflow.cli import run, settings
from busflow.tables import document
from busflow.tables.page import write_page
from busflow.tables.table import write


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tables", required=True, type=Path, nargs="+", help="the CSVs of the tables")
    parser.add_argument("--leakage", default=[], type=Path, nargs="+", help="<protocol>_classification.json")
    parser.add_argument("--timing", default=[], type=Path, nargs="+", help="timing.json of the detectors")
    parser.add_argument("--metrics", required=True, type=Path, nargs="+", help="metrics.json of every unit")
    parser.add_argument(
        "--settings", required=True, type=settings, help="JSON: study, protocols, sources, models"
    )
    parser.add_argument("--csv", required=True, type=Path)
    parser.add_argument("--md", required=True, type=Path)
    parser.add_argument("--html", required=True, type=Path)
    parser.add_argument("--summary-md", required=True, type=Path)
    parser.add_argument("--summary-html", required=True, type=Path)
    arguments = parser.parse_args()
    judged = ledger(
        arguments.tables, arguments.leakage, arguments.metrics, arguments.settings, arguments.timing
    )
    notice = arguments.settings["study"]["notice"]
    write(judged, arguments.csv, arguments.md, notice)
    write_page(judged, arguments.html, arguments.csv, notice)
    document.write(summary(judged.data, arguments.settings), arguments.summary_md, arguments.summary_html)


if __name__ == "__main__":
    run(main)
