"""Folds taken together: each image is tested once, by a network that was not trained on it."""

import importlib
import json
import tempfile
from pathlib import Path

import pandas as pd

from busflow.errors import BusflowError
from busflow.files import write_csv, write_text
from busflow.metrics.inputs import read_test_images


def evaluate_pooled(
    task: str, predictions: list[Path], splits: list[Path], inputs: tuple[Path, ...] = ()
) -> dict:
    """The metrics of the predictions of several folds, scored as if they were those of one unit of study.

    Args:
        task: one of ``busflow.tasks.TASKS``.
        predictions: of one model and seed, a file of each fold.
        splits: of the same folds, in the same order, ``.../{protocol}/{task}.csv``; their test sets have no
            image in common.
        inputs: what else an evaluation of the task reads, in the order of ``TASKS[task].evaluate``; no
            record, since each fold has one of its own.

    Returns:
        What ``evaluate`` of ``busflow/metrics/<task>.py`` returns, without ``calibration``; groups are those
        of all folds.

    Raises:
        BusflowError: an image is tested in two of the folds, or the files do not fit together.
    """
    evaluate = importlib.import_module(f"busflow.metrics.{task}").evaluate
    with tempfile.TemporaryDirectory(prefix="busflow-") as folder:
        split, pooled = Path(folder, "split.csv"), Path(folder, f"predictions{predictions[0].suffix}")
        write_csv(split, _test_images(splits))
        if pooled.suffix == ".csv":
            # As text, so that no digit changes on the way.
            tables = [pd.read_csv(path, dtype=str, keep_default_na=False) for path in predictions]
            write_csv(pooled, pd.concat(tables))
        else:
            lists = [json.loads(path.read_text(encoding="utf-8")) for path in predictions]
            write_text(pooled, json.dumps([entry for entries in lists for entry in entries]))
        return evaluate(pooled, split, *inputs)


def _test_images(splits: list[Path]) -> pd.DataFrame:
    """The test images of all folds. Raises BusflowError when two folds test the same."""
    tested = pd.concat([read_test_images(path).assign(path=path) for path in splits])
    twice = tested[tested["image_id"].duplicated(keep=False)]
    if not twice.empty:
        image = twice["image_id"].iloc[0]
        one, other = twice.loc[twice["image_id"] == image, "path"].iloc[:2]
        raise BusflowError(
            f"protocols {one.parent.name} and {other.parent.name} both test image {image} "
            f"({twice['image_id'].nunique()} such images in all), but folds of one division test each once: "
            f"remove {one} and {other}, and run the workflow again"
        )
    return tested.drop(columns="path")
