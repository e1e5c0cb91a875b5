"""Verify a recorded study: its hashes, what follows from its predictions, a sample of the predictions."""

import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from busflow.recording.checks import Check
from busflow.recording.hashes import check_hashes
from busflow.recording.repeat import Scratch
from busflow.recording.study import Study

# What no second run repeats. Their hashes alone are checked.
NOT_REPEATED = "Not made again: timings (measured), run records and the report (dated), weights (trained)."


def verify(study: Study) -> list[Check]:
    """Every check of a study. Writes to a temporary folder only, and runs nothing of the study itself.

    Raises BusflowError when the study is not on record.
    """
    with tempfile.TemporaryDirectory(prefix="busflow-") as folder, ThreadPoolExecutor(1) as pool:
        scratch = Scratch(study, Path(folder).resolve())
        hashes = pool.submit(check_hashes, study)
        again = scratch.rebuild() + scratch.predict()
        return hashes.result() + again
