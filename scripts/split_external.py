"""Choose the images of an external source that can test a task."""

import argparse
from pathlib import Path

from busflow.cli import run, settings
from busflow.data.external import external_split
from busflow.files import read_csv, remove_temporaries, write_csv


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--task", required=True)
    for table in ("--images", "--annotations", "--quarantine"):
        parser.add_argument(table, required=True, type=read_csv, help="of the source's index")
    parser.add_argument("--settings", required=True, type=settings, help="config's sources")
    parser.add_argument("--output", required=True, type=Path)
    parser.add_argument("--excluded", required=True, type=Path)
    args = parser.parse_args()
    split, excluded = external_split(
        args.images, args.annotations, args.quarantine, args.task, args.settings["sources"]
    )
    remove_temporaries(args.excluded, args.output)
    write_csv(args.excluded, excluded)
    write_csv(args.output, split)


if __name__ == "__main__":
    run(main)
