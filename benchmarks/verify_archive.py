"""How long verifying an archive takes, as a multiple of `sha256sum` on the same file.

Both run in turn on a warm file, so that the machine's speed cancels out.
"""

import argparse
import statistics
import subprocess
import tempfile
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

from busflow.data.sources import verify

ROUNDS = 7
TARGET = 1.2
MEGABYTES = 256


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--archive", type=Path, help=f"default: a generated zip of {MEGABYTES} MB")
    archive = parser.parse_args().archive
    with tempfile.TemporaryDirectory() as folder:
        compare(archive or generate(Path(folder) / "noise.zip"))


def generate(path: Path) -> Path:
    rng = np.random.default_rng(0)
    with zipfile.ZipFile(path, "w") as archive:
        for number in range(MEGABYTES):
            archive.writestr(f"{number}.bin", rng.bytes(1_000_000))
    return path


def compare(archive: Path) -> None:
    command = ["sha256sum", archive]
    expected = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()[0]
    ratios = []
    for number in range(ROUNDS):
        ours = seconds(lambda: verify(archive, expected))
        theirs = seconds(lambda: subprocess.run(command, stdout=subprocess.DEVNULL, check=True))
        ratios.append(ours / theirs)
        print(f"round {number + 1}: verify {ours:.3f} s, sha256sum {theirs:.3f} s, ratio {ratios[-1]:.2f}")
    size, median = archive.stat().st_size / 1e6, statistics.median(ratios)
    print(f"median ratio {median:.2f} on {size:.0f} MB (target: at most {TARGET})")


def seconds(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
