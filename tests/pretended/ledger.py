"""What a program asks of a GPU that costs time: waits for its results, and copies to it."""

import sys
from collections import Counter
from pathlib import Path
from types import FrameType

ROOT = Path(__file__).parents[2]
# Where torch and the pretended GPU are at work for others.
WITHIN = ("site-packages/torch/", str(Path(__file__).parent))


class Ledger:
    """Waits for the GPU and copies to it, by the file and function that cause them."""

    def __init__(self, waits: Counter[str] | None = None, copies: Counter[str] | None = None):
        self.waits: Counter[str] = Counter(waits)
        self.copies: Counter[str] = Counter(copies)

    def waited(self) -> None:
        self.waits[caller()] += 1

    def copied(self) -> None:
        self.copies[caller()] += 1

    def clear(self) -> None:
        self.waits.clear()
        self.copies.clear()

    def copy(self) -> "Ledger":
        return Ledger(self.waits, self.copies)


def caller() -> str:
    """``file function`` of the innermost frame of the project or its libraries, torch itself left out."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        path = frame.f_code.co_filename
        known = "site-packages/" in path or path.startswith(str(ROOT))
        if known and not any(part in path for part in WITHIN):
            file = path.rpartition("site-packages/")[2].removeprefix(f"{ROOT}/")
            return f"{file} {frame.f_code.co_qualname}"
        frame = frame.f_back
    return "elsewhere"
