"""Make one table, as clean CSV and as Markdown."""

import argparse
from pathlib import Path
from pkgutil import resolve_name

from busflow.cli import run, settings
from busflow.report import tables

METRICS = {"metrics": "many"}
# table: (function of busflow.report, its inputs: one file or many)
TABLES = {
    "table1": ("tables_data:table1", {"images": "one"}),
    "table2": ("tables_data:table2", {"splits": "many"}),
    "table3": ("tables_data:table3", {"splits": "many", "annotations": "one"}),
    "table4": ("tables_data:table4", {"splits": "many"}),
    "table5": ("tables_classification:table5", {"facts": "one"}),
    "classification": (
        "tables_classification:classification",
        {"predictions": "many", "splits": "many"},
    ),
    "classification_per_class": ("tables_classification:classification_per_class", METRICS),
    "table6": ("tables_detection:table6", METRICS),
    "table6_aitod": ("tables_detection:table6_aitod", METRICS),
    "detection": ("tables_detection:detection", METRICS),
    "table7": ("tables_segmentation:table7", METRICS),
    "segmentation": ("tables_segmentation:segmentation", METRICS),
    "segmentation_pairs": ("tables_segmentation:segmentation_pairs", METRICS),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    commands = parser.add_subparsers(dest="table", required=True)
    for name, (_, inputs) in TABLES.items():
        command = commands.add_parser(name)
        for option, number in inputs.items():
            nargs = "+" if number == "many" else None
            command.add_argument(f"--{option}", required=True, type=Path, nargs=nargs)
        command.add_argument(
            "--settings", required=True, type=settings, help="JSON: study, protocols, sources, models"
        )
        command.add_argument("--csv", required=True, type=Path)
        command.add_argument("--md", required=True, type=Path)
    arguments = parser.parse_args()
    function, inputs = TABLES[arguments.table]
    make = resolve_name(f"busflow.report.{function}")  # no other table's imports, which take longer than it
    table = make(*(getattr(arguments, option) for option in inputs), arguments.settings)
    tables.write(table, arguments.csv, arguments.md, arguments.settings["study"]["notice"])


if __name__ == "__main__":
    run(main)
