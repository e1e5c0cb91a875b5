"""Verify a recorded study and print what was compared; exit status 1 when anything differs."""

import argparse
import secrets
import sys

from busflow.cli import run
from busflow.recording.checks import as_table
from busflow.recording.study import find_study
from busflow.recording.verify import verify


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--study", required=True, help="demo, or the name of an overlay in config/")
    sample = parser.add_mutually_exclusive_group()
    sample.add_argument("--seed", type=int, help="of the sample to predict again; default: a new one")
    sample.add_argument("--all", action="store_true", help="predict all units again")
    arguments = parser.parse_args()
    # Nobody who forges a unit can know the sample.
    seed = secrets.randbelow(1_000_000) if arguments.seed is None else arguments.seed
    found = verify(find_study(arguments.study), None if arguments.all else seed)
    print(found.history, as_table(found.checks), found.remarks, sep="\n\n")
    if any(check.differing for check in found.checks):
        sys.exit("The study is not what is on record.")
    print("All is as recorded.")


if __name__ == "__main__":
    run(main)
