"""Divide a task's images into train, val and test by one protocol."""

import argparse
from pathlib import Path

from busflow.cli import run, settings
from busflow.data.splits import make_split
from busflow.files import read_csv, remove_temporaries, write_csv
from busflow.protocols import Protocol


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--protocol", required=True)
    parser.add_argument("--task", required=True)
    for table in ("--images", "--annotations", "--quarantine"):
        parser.add_argument(table, required=True, type=read_csv, help=f"data/index/{table[2:]}.csv")
    parser.add_argument(
        "--settings",
        required=True,
        type=settings,
        help="config's splits and sources, and the protocol's entry",
    )
    parser.add_argument("--output", required=True, type=Path)
    parser.add_argument("--excluded", required=True, type=Path)
    args = parser.parse_args()
    split, excluded = make_split(
        args.images,
        args.annotations,
        args.quarantine,
        task=args.task,
        protocol=Protocol(args.protocol, **args.settings.pop("protocol")),
        **args.settings,
    )
    remove_temporaries(args.excluded, args.output)
    write_csv(args.excluded, excluded)
    write_csv(args.output, split)


if __name__ == "__main__":
    run(main)
