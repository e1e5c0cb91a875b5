"""Read one unpacked dataset: its images, annotations and thumbnails, and what has to be left out."""

import argparse
from pathlib import Path

from busflow.cli import run, settings
from busflow.data.inspection import read_source


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--source", required=True, help="id of the source, as in the config")
    parser.add_argument("--settings", type=settings, required=True, help="the config's sources.<id>")
    parser.add_argument("--raw", type=Path, required=True, help="folder of the unpacked archive")
    parser.add_argument("--output", type=Path, required=True, help="folder to write the tables to")
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    read_source(
        arguments.source, arguments.settings, arguments.raw, arguments.output, threads=arguments.threads
    )


if __name__ == "__main__":
    run(main)
