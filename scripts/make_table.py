"""Make one table, as clean CSV, as Markdown and as a page of the report."""

import argparse
from pathlib import Path

from busflow.cli import add_files, files_of, function_of, run, settings
from busflow.tables.page import write_page
from busflow.tables.table import write


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "table", type=function_of("tables"), help="function of busflow/tables, such as detection:table6"
    )
    parser.add_argument(
        "--settings", required=True, type=settings, help="JSON: study, protocols, sources, models"
    )
    parser.add_argument("--csv", required=True, type=Path)
    parser.add_argument("--md", required=True, type=Path)
    parser.add_argument("--html", required=True, type=Path)
    add_files(parser, parser.parse_known_args()[0].table)
    args = parser.parse_args()
    table = args.table(*files_of(args, args.table), args.settings)
    notice = args.settings["study"]["notice"]
    write(table, args.csv, args.md, notice)
    write_page(table, args.html, args.csv, notice)


if __name__ == "__main__":
    run(main)
