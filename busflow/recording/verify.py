"""Verify a recorded study: its hashes, what follows from its predictions, a sample of the predictions."""

import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from busflow.files import write_csv
from busflow.recording.checks import Check
from busflow.recording.coverage import check_coverage
from busflow.recording.hashes import check_hashes
from busflow.recording.history import as_rows, as_summary, later_than_weights, recorded_since
from busflow.recording.repeat import Scratch
from busflow.recording.sample import draw, predictions_of, remarks
from busflow.recording.study import Study

# The history of every path on record, under the root of the study.
HISTORY = "logs/recorded.csv"


class Verification(NamedTuple):
    """``history``: the commits that recorded the study; ``remarks``: what was not made again."""

    history: str
    checks: list[Check]
    remarks: str


def verify(study: Study, seed: int | None) -> Verification:
    """Every check of a study; with a seed, a sample of the units is predicted again, without one all are.

    Works in a temporary folder, and runs nothing of the study itself. Writes ``logs/recorded.csv``.

    Raises BusflowError when the study is not on record.
    """
    with tempfile.TemporaryDirectory(prefix="busflow-") as folder, ThreadPoolExecutor(1) as pool:
        scratch = Scratch(study, Path(folder).resolve())
        since = recorded_since(study, scratch.recorded)
        hashes = pool.submit(check_hashes, study, since)
        write_csv(study.root / HISTORY, as_rows(since, study))
        predictions = predictions_of(scratch.stored)
        if seed is None:
            drawn = [path for units in predictions.values() for path in units]
        else:
            drawn = draw(predictions, later_than_weights(since), seed)
        again = scratch.rebuild() + scratch.predict(drawn)
        coverage = check_coverage(study, scratch.made, scratch.recorded)
        return Verification(
            f"{as_summary(since, study)}\nEvery path: {study.root / HISTORY}",
            hashes.result() + coverage + again,
            remarks(predictions, drawn, seed),
        )
