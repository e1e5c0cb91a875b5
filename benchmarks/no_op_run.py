"""Seconds that snakemake takes to find that a finished study has nothing to do. Target: under 20.

Beside it the time of ``snakemake --version``: what Python and Snakemake need to start at all.
"""

import argparse
import statistics
import subprocess
import time


def seconds(command: list[str]) -> tuple[float, str]:
    start = time.perf_counter()
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return time.perf_counter() - start, done.stdout + done.stderr


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--configfile", nargs="*", default=[], help="overlay of the finished study")
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    command = ["snakemake", *(["--configfile", *args.configfile] if args.configfile else [])]
    runs, starts = [], []
    for _ in range(args.rounds):
        taken, said = seconds(command)
        if "Nothing to be done" not in said:
            raise SystemExit("the study was not finished; run this again now that it is")
        runs.append(taken)
        starts.append(seconds(["snakemake", "--version"])[0])
    run, start = statistics.median(runs), statistics.median(starts)
    print(f"no-op run {run:.1f} s (target < 20), start alone {start:.1f} s, ratio {run / start:.2f}")


if __name__ == "__main__":
    main()
