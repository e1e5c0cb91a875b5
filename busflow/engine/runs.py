"""The folder of a run: what it leaves for its continuation, and what it publishes.

While it trains, a run keeps two generations of its state. Each has the hash of its bytes in its name, so
that a damaged one is known before it is read, and the one before is taken. When it is finished, the folder
holds the three files to publish instead, and their hashes, written last: a workflow that lost track of the
run publishes them again without training.
"""

import contextlib
import logging
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
from filelock import FileLock, Timeout
from mmengine.runner import CheckpointLoader

from busflow.engine.checkpoints import load_weights, save_weights, write_tensors
from busflow.errors import BusflowError
from busflow.files import (
    atomic,
    link_or_copy,
    read_json,
    settle,
    sha256,
    temporary_beside,
    write_csv,
    write_json,
)
from busflow.models.weights import read_data

WEIGHTS, HISTORY, RECORD = "weights.pth", "history.csv", "run.json"
PUBLISHED = (WEIGHTS, HISTORY, RECORD)
SEAL = "published.json"  # their hashes
SCHEME = "state:"  # what a path begins with that mmengine shall read as a state
STATE_PARTS = {"meta", "state_dict", "message_hub", "optimizer", "param_schedulers", "history"}
STATE = re.compile(r"state-\d+-(?P<sha256>[0-9a-f]{64})\.pth")
GENERATIONS = 2

logger = logging.getLogger(__name__)


@contextlib.contextmanager
def one_writer(unit: Path) -> Iterator[None]:
    """Hold a unit's folder, so that no second process trains it at the same time.

    Args:
        unit: folder that holds the runs of one model, protocol and seed.

    Raises:
        BusflowError: another process holds it.
    """
    unit.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(unit / "lock", blocking=False):  # the system frees it when the process dies
            yield
    except Timeout as error:
        raise BusflowError(
            f"another process is training {unit}; wait for it or stop it (python scripts/status.py names "
            "it), then run the same command again"
        ) from error


def save_state(folder: Path, step: int, state: dict) -> None:
    """Keep a new generation of the state and remove all but the newest two.

    Args:
        folder: of the run.
        step: training batches so far.
        state: whatever ``torch.save`` takes.
    """
    with temporary_beside(folder / "state.pth") as temporary:
        write_tensors(temporary, state)
        settle(temporary, folder / f"state-{step:09d}-{sha256(temporary)}.pth")
    for _, old in _states(folder)[GENERATIONS:]:
        old.unlink()


def newest_state(folder: Path) -> Path | None:
    """The newest state whose bytes are those that were written; None if there is none.

    What a killed process was writing is removed.
    """
    for unfinished in folder.glob(".*"):
        unfinished.unlink(missing_ok=True)
    for digest, path in _states(folder):
        if sha256(path) == digest:
            return path
        logger.warning("%s is damaged; going on from the state before", path)
        path.unlink(missing_ok=True)
    return None


@CheckpointLoader.register_scheme(prefixes=SCHEME)
def read_state(path: str, map_location: str) -> dict:
    """A state as ``save_state`` wrote it; mmengine's own reader would run what a file says.

    Raises:
        BusflowError: it is another file.
    """
    path = path.removeprefix(SCHEME)
    state = read_data(path, map_location)
    if not isinstance(state, dict) or state.keys() != STATE_PARTS:
        raise BusflowError(f"{path} is no state of a training here; delete it and run the same command again")
    return state


def finish(folder: Path, weights: dict, meta: dict, history: pd.DataFrame, record: dict) -> None:
    """Write the files to publish: weights.pth, history.csv, run.json and, last, their hashes.

    Args:
        folder: of the run.
        weights: state dict of the best epoch.
        meta: plain values that go beside the weights.
        history: table, one row per epoch.
        record: content of run.json; the hash of the weights is added.
    """
    save_weights(folder / WEIGHTS, weights, meta)
    write_csv(folder / HISTORY, history)
    digest = sha256(folder / WEIGHTS)  # once: the largest have 800 MB
    write_json(folder / RECORD, record | {"weights_sha256": digest})
    others = {name: sha256(folder / name) for name in PUBLISHED if name != WEIGHTS}
    write_json(folder / SEAL, {WEIGHTS: digest} | others)


def is_finished(folder: Path) -> bool:
    """Whether the run is finished and its files are those that it wrote; a damaged run is removed."""
    if not (folder / SEAL).exists():
        return False
    try:
        hashes = read_json(folder / SEAL)
    except ValueError:  # cut, or no text
        hashes = None
    if not isinstance(hashes, dict) or hashes.keys() != set(PUBLISHED):
        damaged = SEAL
    else:
        damaged = next((name for name in PUBLISHED if not _is_whole(folder / name, hashes[name])), None)
    if damaged is None:
        return True
    logger.warning("%s is damaged; training again", folder / damaged)
    _remove(folder)
    return False


def _is_whole(path: Path, digest: str) -> bool:
    return path.is_file() and sha256(path) == digest


def publish(folder: Path, output: Path, origin: dict) -> None:
    """Give the files of a finished run their place in the results, run.json last; remove what they outdate.

    That is the run's states, and finished runs of other settings or other code. Where the study's words have
    changed since, the weights are written again with the present ``origin``.
    """
    loaded, record = load_weights(folder / WEIGHTS), read_json(folder / RECORD)
    if loaded["meta"]["origin"] == origin:
        link_or_copy(folder / WEIGHTS, output / WEIGHTS)
    else:
        save_weights(output / WEIGHTS, loaded["state_dict"], loaded["meta"] | {"origin": origin})
        record["weights_sha256"] = sha256(output / WEIGHTS)
    with atomic(output / HISTORY) as temporary:
        shutil.copyfile(folder / HISTORY, temporary)
    write_json(output / RECORD, record)
    for path in folder.iterdir():
        if path.name not in (*PUBLISHED, SEAL):
            path.unlink()
    for other in folder.parent.iterdir():
        if other != folder and (other / SEAL).exists():
            _remove(other)


def _remove(folder: Path) -> None:
    """Remove a finished run; one that is removed in part is finished no more."""
    (folder / SEAL).unlink()
    shutil.rmtree(folder)


def _states(folder: Path) -> list[tuple[str, Path]]:
    """Hashes and paths of the states, the newest first."""
    names = sorted((path.name for path in folder.glob("state-*.pth")), reverse=True)
    return [(match["sha256"], folder / match.string) for match in map(STATE.fullmatch, names) if match]
