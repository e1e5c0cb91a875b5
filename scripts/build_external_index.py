"""Index one external source, and leave out of it what the study has already."""

import argparse
from pathlib import Path

from busflow.cli import run, settings
from busflow.data.external import build_external_index


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--source", type=Path, required=True, help="its folder that read_source.py wrote")
    parser.add_argument(
        "--study", type=Path, nargs="+", required=True, help="those of the sources that are trained on"
    )
    parser.add_argument(
        "--settings", type=settings, required=True, help="the config's sources, quarantine and duplicates"
    )
    parser.add_argument("--output", type=Path, required=True, help="folder of the index")
    args = parser.parse_args()
    build_external_index(args.source, args.study, args.settings, args.output)


if __name__ == "__main__":
    run(main)
