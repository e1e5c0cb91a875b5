"""Images in, findings out: reads in one process, computes in this one, writes in a thread."""

import importlib
import logging
import tempfile
import time
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

import pandas as pd
import torch
from torch.utils.data import DataLoader
from tqdm import tqdm

from busflow.engine.memory import out_of_memory_is
from busflow.engine.provenance import git_state, versions
from busflow.engine.timing import device_name
from busflow.errors import BusflowError
from busflow.files import write_csv, write_json
from busflow.inference.job import Job
from busflow.inference.members import flags, load_members
from busflow.inference.overlays import write_overlay
from busflow.inference.pictures import Opened, Problem, batches, find_pictures, stem

logger = logging.getLogger(__name__)


class Finished(NamedTuple):
    """An image's row of the summary, its results, and the hash of its file."""

    row: dict
    results: list[dict]
    sha256: str


@torch.inference_mode()
def predict(
    weights: list[Path],
    images: list[str],
    output: Path,
    device: torch.device,
    batch: int,
    threshold: float | None = None,
    calibrated: bool = False,
    overlay: bool = False,
) -> int:
    """Predict images with one trained model, or with several as an ensemble.

    Writes into ``output``: summary.csv (a row an image), predictions.csv or, in COCO's formats,
    predictions.json and images.json, masks/ and overlays/, problems.csv (images that could not be read) and
    prediction.json (what it was made from). With a single model and batches of one image the numbers are
    those of the study's own predictions.

    Args:
        weights: published weights.pth of one task.
        images: files, folders, archives or patterns (``find_pictures``).
        output: folder that does not exist, or is empty.
        device: that the models compute on.
        batch: images at a time.
        threshold, calibrated, overlay: see ``Job``.

    Returns:
        The number of problems.

    Raises:
        BusflowError: the weights or the images are not to be had, or the folder is not empty.
    """
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise BusflowError(f"{output} is not an empty folder; name another one, or remove it")
    start = time.perf_counter()
    task, members = load_members(weights, device)
    if calibrated and task != "classification":
        raise BusflowError(f"only classifiers are calibrated, and these are models of {task}; leave that out")
    room = importlib.import_module(f"busflow.inference.{task}")
    job = Job(members, output, threshold, calibrated, overlay)
    output.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=output, prefix=".") as scratch:
        pictures = find_pictures(images, Path(scratch).resolve())
        loader = batches(pictures, {member.side for member in members}, batch)
        finished, problems = _go_through(loader, len(pictures), room, job)
    if finished:
        table = pd.DataFrame([each.row for each in finished])
        results = [{"image": each.row["image"]} | result for each in finished for result in each.results]
        room.write(job, table, results)
        write_csv(output / "summary.csv", table.assign(notice=job.notice))
    unread = pd.DataFrame(problems, columns=Problem._fields)
    write_csv(output / "problems.csv", unread.assign(notice=job.notice))
    seconds = time.perf_counter() - start
    write_json(
        output / "prediction.json",
        {
            "notice": job.notice,
            "task": task,
            "weights": [
                {"path": str(each.path), "sha256": each.sha256, "origin": each.meta["origin"]}
                for each in members
            ],
            "images": [{"image": each.row["image"], "sha256": each.sha256} for each in finished],
            "options": {"threshold": threshold, "calibrated": calibrated, "batch": batch},
            "device": device_name(device),
            "threads": torch.get_num_threads(),
            "packages": versions(),
            "git": git_state(Path(__file__).parent),
            "seconds": round(seconds, 3),
        },
    )
    logger.info("%d images in %.1f s; %s", len(finished), seconds, job.notice)
    return len(problems)


def _go_through(
    loader: DataLoader, count: int, room: ModuleType, job: Job
) -> tuple[list[Finished], list[Problem]]:
    """Predict what the loader reads, and finish it while the next is predicted."""
    finished: list[Finished] = []
    problems: list[Problem] = []
    pending: deque[Future[Finished]] = deque()
    with ThreadPoolExecutor(1) as writer, tqdm(total=count, desc="predicting", unit=" images") as bar:
        for items in loader:
            problems += [each for each in items if isinstance(each, Problem)]
            opened = [each for each in items if isinstance(each, Opened)]
            found = _infer(room, job, opened) if opened else []
            pending.extend(
                writer.submit(_finish, room, job, *pair) for pair in zip(opened, found, strict=True)
            )
            while len(pending) > len(items) + 1:
                finished.append(pending.popleft().result())
            bar.update(len(items))
        finished.extend(each.result() for each in pending)
    return finished, problems


def _infer(room: ModuleType, job: Job, opened: list[Opened]) -> list:
    with out_of_memory_is(f"{len(opened)} images at a time", "give a smaller --batch"):
        return room.infer(job, opened)


@torch.inference_mode()
def _finish(room: ModuleType, job: Job, opened: Opened, found: tuple) -> Finished:
    row, results, overlay = room.finish(job, opened, found)
    if job.overlay:
        write_overlay(job.output / "overlays" / f"{stem(opened.name)}.png", opened.grey, overlay, job.notice)
    height, width = opened.grey.shape
    facts = {"image": opened.name, "width": width, "height": height}
    return Finished(facts | row | {"flags": "; ".join(flags(opened, job.members))}, results, opened.sha256)
