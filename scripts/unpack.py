"""Unpack a source's archive safely into a folder of its own."""

import argparse

from busflow.cli import run
from busflow.data.archives import unpack


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--archive", required=True, help="the .zip or .7z file")
    parser.add_argument("--receipt", required=True, help="JSON written when it was fetched")
    parser.add_argument("--output", required=True, help="folder to make")
    args = parser.parse_args()
    unpack(args.archive, args.receipt, args.output)


if __name__ == "__main__":
    run(main)
