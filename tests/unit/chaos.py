"""Kill trainings and packings with SIGKILL, again and again, and compare what they end with.

Each case is cut down one to three times, at a random moment or at a chosen point, and then runs to its end.
Its files must have the bytes of a case that nobody touched.
"""

import argparse
import functools
import io
import multiprocessing
import os
import random
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from unittest import mock

import mmengine.evaluator
import pandas as pd
import pytest
import test_detection_engine as boxes
import test_segmentation_engine as masks
import test_training as classes
import torch
from PIL import Image
from trainings import train

from busflow.data import packing
from busflow.data.images import pixel_sha256
from busflow.engine import classification, detection, runs, segmentation
from busflow.labels import LESIONS

PACKED = ("images.npy", "index.csv")
TRAINED = ("weights.pth", "history.csv")


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def before(call: Callable, *arguments, **named):
    die()


def after(call: Callable, *arguments, **named):
    call(*arguments, **named)
    die()


def halfway(call: Callable, content: object, file: io.BufferedWriter):
    """Half of what ``torch.save`` would write is on disk."""
    buffer = io.BytesIO()
    call(content, buffer)
    file.write(buffer.getvalue()[: len(buffer.getvalue()) // 2])
    file.flush()
    die()


# Where a process dies: the function, and what happens instead of its first call.
POINTS = {
    "inside the write of a state": (torch, "save", halfway),
    "between write and rename of a state": (runs, "settle", before),
    "after the rename of a state": (runs, "settle", after),
    "during an evaluation": (mmengine.evaluator.Evaluator, "process", before),
    "before the weights of a finished run": (runs, "save_weights", before),
    "before the record of a finished run": (runs, "write_json", before),
    "before the seal of a finished run": (runs, "write_json", after),
    "after the first published file": (runs, "link_or_copy", after),
}
PACKING_POINTS = {
    "during packing": (packing, "letterbox", before),
    "between the packed array and its index": (packing, "write_csv", before),
}


class Case:
    """Something to run in a process of its own, many times, in one folder or another.

    Args:
        run: makes the files ``made`` in the folder that it is given.
        made: their names.
        points: where to kill it.
    """

    def __init__(self, run: Callable[[Path], None], made: tuple[str, ...], points: dict):
        self.run, self.made, self.points = run, made, points

    def contents(self, folder: Path) -> dict[str, bytes]:
        return {name: _comparable(folder / "out" / name) for name in self.made}

    def start(self, folder: Path, trap: tuple | None = None) -> multiprocessing.Process:
        """A forked process, which needs no imports."""
        process = multiprocessing.get_context("fork").Process(target=self._child, args=(folder, trap))
        process.start()
        return process

    def finish(self, folder: Path) -> None:
        process = self.start(folder)
        process.join()
        if process.exitcode:
            _give_up(folder)

    def _child(self, folder: Path, trap: tuple | None) -> None:
        with (folder / "log").open("a") as log:
            os.dup2(log.fileno(), 1)
            os.dup2(log.fileno(), 2)
            if trap is None:
                self.run(folder)
                return
            owner, name, instead = trap
            with mock.patch.object(owner, name, functools.partial(instead, getattr(owner, name))):
                self.run(folder)


def _comparable(path: Path) -> bytes:
    if path.name == "history.csv":  # the time that it took is no result
        return pd.read_csv(path).drop(columns="seconds").to_csv().encode()
    return path.read_bytes()


def _train(task, inputs: dict, settings: dict, folder: Path) -> None:
    torch.set_num_threads(1)
    train(task, inputs, settings, folder, "out", interval=0)


def _pack(index: pd.DataFrame, folder: Path) -> None:
    packing.pack(index, 32, 1, *(folder / "out" / name for name in PACKED))


def cases(folder: Path) -> dict[str, Case]:
    """One training of each task, with tiny networks, and one packing."""
    for name in ("classification", "detection", "segmentation", "packing"):
        (folder / name).mkdir()
    pictures, outlines = zip(*(boxes.picture(k) for k in range(11)), strict=True)
    split = ["train"] * 6 + ["val"] * 2 + ["test"] * 3
    labels = [LESIONS[k % 2] for k in range(11)]
    detected = boxes.write_inputs(folder / "detection", pictures, outlines, labels, split, boxes.SIZE)
    images, outlines, labels = zip(*(masks.picture(k) for k in range(12)), strict=True)
    split = ["train"] * 6 + ["val"] * 3 + ["test"] * 3
    segmented = masks.write_inputs(folder / "segmentation", images, outlines, labels, split, masks.SIZE)
    rows = []
    for k, image in enumerate(images):
        path = folder / "packing" / f"{k}.png"
        Image.fromarray(image).save(path)
        rows.append({"path": str(path), "pixel_sha256": pixel_sha256(image)})
    boxes.shrink_heads(pytest.MonkeyPatch())
    trainings = {
        "classification": (classification, classes.write_inputs(folder / "classification"), classes.SETTINGS),
        "detection": (detection, detected, boxes.SETTINGS),
        "segmentation": (segmentation, segmented, masks.SETTINGS),
    }
    return {
        **{name: Case(functools.partial(_train, *what), TRAINED, POINTS) for name, what in trainings.items()},
        "packing": Case(functools.partial(_pack, pd.DataFrame(rows)), PACKED, PACKING_POINTS),
    }


def kill(case: Case, folder: Path, point: str | None, delay: float) -> bool:
    """Run up to the point, or for ``delay`` seconds; whether that came before the end."""
    process = case.start(folder, case.points[point] if point else None)
    process.join(None if point else delay)
    process.kill()
    process.join()
    if process.exitcode not in (0, -signal.SIGKILL):
        _give_up(folder)
    return process.exitcode == -signal.SIGKILL


def _give_up(folder: Path) -> None:
    log = (folder / "log").read_text()
    sys.exit(f"a run failed by itself:\n{log[-3000:]}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=time.time_ns() % 2**32, help="of the moments")
    args = parser.parse_args()
    print(f"seed {args.seed}")
    chance, kills, mismatches = random.Random(args.seed), 0, 0
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        everything = cases(folder)
        expected, length = {}, {}
        for name, case in everything.items():
            start = time.monotonic()
            (folder / name / "untouched").mkdir()
            case.finish(folder / name / "untouched")
            length[name] = time.monotonic() - start
            expected[name] = case.contents(folder / name / "untouched")
        # Every point once, and as many random moments; then by chance.
        plan = [(name, point) for name, case in everything.items() for point in case.points]
        plan += [(name, None) for name, _ in plan]
        chance.shuffle(plan)
        while kills < args.kills:
            name, point = plan.pop() if plan else (chance.choice(list(everything)), None)
            case, here = everything[name], Path(tempfile.mkdtemp(dir=folder / name))
            told = []
            for _ in range(chance.randint(1, 3)):
                delay = chance.uniform(0, length[name])
                if kill(case, here, point, delay):
                    kills += 1
                    told.append(point or f"after {delay:.1f} s")
                point = chance.choice([None, *case.points])
            case.finish(here)
            same = case.contents(here) == expected[name]
            mismatches += not same
            moments = ", ".join(told) or "too late"
            print(f"{'same' if same else 'DIFFERENT'}: {name}, killed {moments}", flush=True)
    print(f"{kills} kills, {mismatches} mismatches")
    sys.exit(mismatches > 0)


if __name__ == "__main__":
    main()
