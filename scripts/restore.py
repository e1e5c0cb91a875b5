"""Undo what was changed by hand in the results of the dvc.yaml in this folder; each stage's first command."""

from pathlib import Path

from busflow.cli import run
from busflow.recording.restore import restore
from busflow.recording.study import LEDGER


def main() -> None:
    for line in restore(Path(LEDGER)):
        print(line)


if __name__ == "__main__":
    run(main)
