"""Verify a recorded study and print what was compared; exit status 1 when anything differs."""

import argparse
import sys

from busflow.cli import run
from busflow.recording.checks import as_table
from busflow.recording.study import find_study
from busflow.recording.verify import NOT_REPEATED, verify


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--study", required=True, help="demo, or the name of an overlay in config/")
    checks = verify(find_study(parser.parse_args().study))
    print(as_table(checks))
    print(NOT_REPEATED)
    if any(check.differing for check in checks):
        sys.exit("The study is not what is on record.")
    print("All is as recorded.")


if __name__ == "__main__":
    run(main)
