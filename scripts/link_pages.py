"""Let the pages within Snakemake's report open each other."""

import argparse
from pathlib import Path

from busflow.cli import run
from busflow.tables.page import link_pages


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("report", type=Path, help="the HTML file, which is changed")
    link_pages(parser.parse_args().report)


if __name__ == "__main__":
    run(main)
