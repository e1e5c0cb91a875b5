"""Merge the sources into one index, with duplicates, groups and the quarantine."""

import argparse
from pathlib import Path

from busflow.cli import run, settings
from busflow.data.index import build_index


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--sources", type=Path, nargs="+", required=True, help="folders that read_source.py wrote"
    )
    parser.add_argument(
        "--settings", type=settings, required=True, help="the config's sources, quarantine and duplicates"
    )
    parser.add_argument("--output", type=Path, required=True, help="folder of the index")
    arguments = parser.parse_args()
    build_index(arguments.sources, arguments.settings, arguments.output)


if __name__ == "__main__":
    run(main)
