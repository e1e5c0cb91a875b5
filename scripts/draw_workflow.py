"""Draw the rule graph that comes on standard input (snakemake --rulegraph dot) as Figure 1."""

import argparse
import sys
from pathlib import Path

from busflow.cli import run
from busflow.figures import style
from busflow.figures.workflow import fig1


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--svg", required=True, type=Path)
    parser.add_argument("--png", required=True, type=Path)
    args = parser.parse_args()
    style.theme()
    style.save(fig1(sys.stdin.read()), [args.svg, args.png], notice=None)


if __name__ == "__main__":
    run(main)
