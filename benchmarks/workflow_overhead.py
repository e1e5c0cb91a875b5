"""The part of a study's wall time that is not jobs on the critical path. Target: at most 0.02.

From the study's last whole run, ``make demo`` for example: the critical path goes back from the job that
ended last, each time to the job that ended last before the present one began (it made an input, or freed a
core). The rest of the wall time is Snakemake's own: planning, choosing jobs, starting them, the end.
"""

import argparse
import datetime
import json
import math
import re
from pathlib import Path


def last_run(folder: Path) -> tuple[float, float]:
    """When the run with the longest log began, in seconds since 1970, and the seconds that it took."""
    log = max(folder.glob("log/*.snakemake.log"), key=lambda path: path.stat().st_size).read_text()
    began, took = re.search(r"Date: (.+)", log), re.search(r"Elapsed time: (\d+):(\d+):([\d.]+)", log)
    if not took:
        raise SystemExit("no run of the study came to its end: run it, then this")
    hours, minutes, seconds = map(float, took.groups())
    start = datetime.datetime.fromisoformat(began[1].strip()).astimezone().timestamp()
    return start, 3600 * hours + 60 * minutes + seconds


def jobs(folder: Path, start: float) -> list[tuple[float, float]]:
    """End and start of each job of that run, by its end."""
    outputs = (json.loads(path.read_text()) for path in folder.glob("metadata/**/*") if path.is_file())
    spans: dict[int, tuple[float, float]] = {}
    for output in outputs:
        end, begin = spans.get(output["job_hash"], (-math.inf, math.inf))
        spans[output["job_hash"]] = max(end, output["endtime"]), min(begin, output["starttime"])
    return sorted((end, begin) for end, begin in spans.values() if begin >= start)


def critical_path(done: list[tuple[float, float]]) -> list[tuple[float, float]]:
    path = [done[-1]]
    while before := [job for job in done if job[0] <= path[-1][1]]:
        path.append(before[-1])
    return path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--study", type=Path, default=Path(), help="folder in which snakemake ran")
    args = parser.parse_args()
    start, wall = last_run(args.study / ".snakemake")
    done = jobs(args.study / ".snakemake", start)
    path = critical_path(done)
    at_work = sum(end - begin for end, begin in path)
    print(
        f"{len(done)} jobs in {wall:.0f} s; critical path of {len(path)} jobs, {at_work:.0f} s; "
        f"overhead / wall {(wall - at_work) / wall:.3f} (target <= 0.02)"
    )


if __name__ == "__main__":
    main()
