"""What was compared, how much of it is equal, and what is not."""

from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

KINDS = {
    "weights.pth": "weights",
    "predictions.csv": "predictions",
    "predictions.json": "predictions",
    "history.csv": "histories, timings, run records",
    "timing.json": "histories, timings, run records",
    "run.json": "histories, timings, run records",
    "metrics.json": "metrics",
    "resamples.npz": "metrics",
    "scores.json": "metrics",
    "report.html": "report",
    "figures": "figures",
    "tables": "tables",
    "cards": "cards",
    "failures": "failures",
    "pooled": "metrics",
    "audit": "audit",
    "leakage": "audit",
}


@dataclass
class Check:
    """A line of the table: ``compared`` files (or settings), of which the ``differing`` are named."""

    what: str
    compared: int = 0
    differing: list[str] = field(default_factory=list)
    remark: str = ""

    def add(self, number: int, differing: list[str]) -> None:
        self.compared += number
        self.differing += differing


def kind_of(path: Path | str) -> str:
    """Of which kind a recorded file or folder of a study is: by its name, or by its folder's."""
    path = Path(path)
    return (
        KINDS.get(path.name) or KINDS.get(path.parent.name) or ("data" if "data" in path.parts else "facts")
    )


def printable(text: str, length: int = 50) -> str:
    """The beginning of a record's words, without what would steer a terminal or break a row of a table."""
    return "".join(letter for letter in text if letter.isprintable()).replace("|", "/")[:length]


def as_table(checks: list[Check]) -> str:
    """All checks as Markdown, and below it the names of what differs."""
    table = pd.DataFrame(
        {
            "checked": [check.what for check in checks],
            "compared": [check.compared for check in checks],
            "equal": [check.compared - len(check.differing) for check in checks],
            "differ": [len(check.differing) for check in checks],
            "": [check.remark for check in checks],
        }
    )
    lines = [table.to_markdown(index=False)]
    lines += [f"differs: {check.what}: {name}" for check in checks for name in check.differing]
    return "\n".join(lines)
