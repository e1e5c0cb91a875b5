"""Show how the runs of a study stand; only reads, so at any time, from any machine."""

import argparse
from datetime import UTC, datetime
from pathlib import Path

from busflow.cli import run
from busflow.status import as_text, read_status


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--root", default=Path(), type=Path, help="folder of the study (default: this one)")
    arguments = parser.parse_args()
    print(as_text(read_status(arguments.root, datetime.now(UTC))))


if __name__ == "__main__":
    run(main)
