"""Fetch one source's archive, verify it and write its receipt."""

import argparse

from busflow.cli import run, settings
from busflow.data.sources import fetch_source


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--source", required=True, help="id of the source in the config")
    parser.add_argument("--settings", required=True, type=settings, help="JSON of sources.<id>")
    parser.add_argument("--archives", required=True, help="folder of the archives")
    parser.add_argument("--receipt", required=True, help="JSON to write")
    args = parser.parse_args()
    fetch_source(args.source, args.settings, args.archives, args.receipt)


if __name__ == "__main__":
    run(main)
