"""Make one table, as clean CSV and as Markdown."""

import argparse
from pathlib import Path

from busflow.cli import run, settings
from busflow.report import (
    tables,
    tables_classification,
    tables_data,
    tables_detection,
    tables_segmentation,
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    commands = parser.add_subparsers(dest="table", required=True)

    def command(name: str, make, **inputs: str) -> None:
        """A sub-command whose file arguments are the inputs: ``one`` path or ``many``."""
        sub = commands.add_parser(name, help=make.__doc__.splitlines()[0])
        for option, number in inputs.items():
            sub.add_argument(f"--{option}", required=True, type=Path, nargs="+" if number == "many" else None)
        sub.add_argument(
            "--settings", required=True, type=settings, help="JSON: study, protocols, sources, models"
        )
        sub.add_argument("--csv", required=True, type=Path)
        sub.add_argument("--md", required=True, type=Path)
        sub.set_defaults(make=make, inputs=list(inputs))

    command("table1", tables_data.table1, images="one")
    command("table2", tables_data.table2, splits="many")
    command("table3", tables_data.table3, splits="many", annotations="one")
    command("table4", tables_data.table4, splits="many")
    command("table5", tables_classification.table5, facts="one")
    command("classification", tables_classification.classification, predictions="many", splits="many")
    command("classification_per_class", tables_classification.classification_per_class, metrics="many")
    command("table6", tables_detection.table6, metrics="many")
    command("table6_aitod", tables_detection.table6_aitod, metrics="many")
    command("detection", tables_detection.detection, metrics="many")
    command("table7", tables_segmentation.table7, metrics="many")
    command("segmentation", tables_segmentation.segmentation, metrics="many")
    command("segmentation_pairs", tables_segmentation.segmentation_pairs, metrics="many")
    arguments = parser.parse_args()
    files = [getattr(arguments, name) for name in arguments.inputs]
    table = arguments.make(*files, arguments.settings)
    tables.write(table, arguments.csv, arguments.md, arguments.settings["study"]["notice"])


if __name__ == "__main__":
    run(main)
