"""Make one table, as clean CSV and as Markdown."""

import argparse
from pathlib import Path
from pkgutil import resolve_name

from busflow.cli import run, settings
from busflow.tables.table import write

METRICS = {"metrics": "many"}
# table: (function of the library, its inputs: one file or many)
TABLES = {
    "table1": ("tables.data:table1", {"images": "one"}),
    "table2": ("tables.data:table2", {"splits": "many"}),
    "table3": ("tables.data:table3", {"splits": "many", "annotations": "one"}),
    "table4": ("tables.data:table4", {"splits": "many"}),
    "table5": ("tables.classification:table5", {"facts": "one"}),
    "classification": (
        "tables.classification:classification",
        {"predictions": "many", "splits": "many"},
    ),
    "classification_per_class": ("tables.classification:classification_per_class", METRICS),
    "table6": ("tables.detection:table6", METRICS),
    "table6_aitod": ("tables.detection:table6_aitod", METRICS),
    "detection": ("tables.detection:detection", METRICS),
    "table7": ("tables.segmentation:table7", METRICS),
    "segmentation": ("tables.segmentation:segmentation", METRICS),
    "segmentation_pairs": ("tables.segmentation:segmentation_pairs", METRICS),
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
    make = resolve_name(f"busflow.{function}")  # no other table's imports, which take longer than it
    table = make(*(getattr(arguments, option) for option in inputs), arguments.settings)
    write(table, arguments.csv, arguments.md, arguments.settings["study"]["notice"])


if __name__ == "__main__":
    run(main)
