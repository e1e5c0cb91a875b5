"""CPU seconds that each verb's process takes before it does its work, as ratios to a bare ``import torch``.

A study of a hundred jobs pays them a hundred times. What is measured is the start and the exit of a process
that imports what the verb imports; the fastest of some rounds, in turn, because other work on the machine
makes all of them slower. Target: at most 4 for a verb that trains or predicts, 1.5 for any other.
"""

import argparse
import os
import resource
import subprocess
import sys

TASKS = ("classification", "detection", "segmentation")
BASE = "import torch"
STARTS = {
    "python": "",
    **{
        f"train, predict {task}": f"from busflow.engine.loading import load_task; load_task('{task}')"
        for task in TASKS
    },
    **{f"evaluate {task}": f"import busflow.metrics.{task}" for task in TASKS},
    "describe_models": "import busflow.models.facts",
    "fetch": "import busflow.data.sources",
    "unpack": "import busflow.data.archives",
    "read_source": "import busflow.data.inspection",
    "build_index": "import busflow.data.index",
    "split": "import busflow.data.splits",
    "make_views": "import busflow.data.views",
    "make_masks": "import busflow.data.masks",
    "pack": "import busflow.data.packing",
    "measure_leakage": "import busflow.metrics.leakage",
    **{f"make_table of {room}": f"import busflow.tables.{room}" for room in ("data", *TASKS)},
    **{
        f"plot of {room}": f"import busflow.figures.{room}"
        for room in ("data", "training", "timing", "boxes", "masks", *TASKS)
    },
    "draw_workflow": "import busflow.figures.workflow",
    "audit": "import busflow.audit.ledger",
}


def cpu_seconds(statement: str) -> float:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    program = f"from busflow.cli import run\ndef main():\n    {statement or 'pass'}\nrun(main)"
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    subprocess.run([sys.executable, "-c", program], check=True, env=environment)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    rounds = range(parser.parse_args().rounds)
    statements = dict.fromkeys([BASE, *STARTS.values()])
    measured = [{statement: cpu_seconds(statement) for statement in statements} for _ in rounds]
    fastest = {statement: min(each[statement] for each in measured) for statement in statements}
    print(f"{BASE}: {fastest[BASE]:.2f} CPU seconds; ratios to it:")
    for name, statement in STARTS.items():
        print(f"{name:24} {fastest[statement] / fastest[BASE]:5.2f}")


if __name__ == "__main__":
    main()
