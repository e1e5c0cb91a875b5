"""The progress bar of long transfers."""

import sys

from tqdm import tqdm


def progress(label: str, total: int | None = None) -> tqdm:
    """A bar in bytes on standard error; in a log file, where it cannot be redrawn, every half a minute."""
    every = 0.1 if sys.stderr.isatty() else 30
    return tqdm(desc=label, total=total, unit="B", unit_scale=True, mininterval=every)
