"""Record a finished study with DVC and Git."""

import argparse

from busflow.cli import run
from busflow.recording.record import record
from busflow.recording.study import find_study


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--study", required=True, help="demo, or the name of an overlay in config/")
    study = find_study(parser.parse_args().study)
    record(study)
    print(f"Recorded. Now: git commit -m 'Study {study.name}' && dvc push {study.ledger}")


if __name__ == "__main__":
    run(main)
