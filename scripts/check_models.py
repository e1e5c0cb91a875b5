"""See that timm has what the registry names; the entries, a JSON list, come on standard input."""

import argparse
import json
import sys

from busflow.cli import run
from busflow.models.registry import check_network


def main() -> None:
    argparse.ArgumentParser(description=__doc__).parse_args()
    for key, name, options in json.load(sys.stdin):
        check_network(key, name, options)


if __name__ == "__main__":
    run(main)
