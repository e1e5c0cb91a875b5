"""Read predictions and splits, and refuse what cannot be scored."""

import json
from pathlib import Path

import numpy as np
import pandas as pd

from busflow.errors import BusflowError
from busflow.files import read_json
from busflow.labels import LABELS
from busflow.metrics.calibration import is_calibration

PROBABILITIES = [f"p_{label}" for label in LABELS]


def read_table(path: Path | str, columns: list[str]) -> pd.DataFrame:
    """Read a CSV that must have rows and the named columns; text stays text (no value means NaN)."""
    try:
        table = pd.read_csv(path, keep_default_na=False, dtype={"image_id": str, "group": str})
    except FileNotFoundError:
        raise BusflowError(f"{path}: no such file; run the rule that makes it") from None
    except (pd.errors.EmptyDataError, pd.errors.ParserError, UnicodeDecodeError) as error:
        raise BusflowError(
            f"{path}: not a readable CSV ({error}); delete it and run its rule again"
        ) from None
    missing = [column for column in columns if column not in table]
    if missing:
        raise BusflowError(f"{path}: lacks the column {', '.join(missing)}; it has {', '.join(table)}")
    if table.empty:
        raise BusflowError(f"{path}: has a header but no rows; there is nothing to work on")
    return table


def read_split(path: Path | str) -> pd.DataFrame:
    """Read a split: ``image_id, split, label, group``, one row per image."""
    table = read_table(path, ["image_id", "split", "label", "group"])
    _unique(table, path)
    return table


def read_test_images(path: Path | str) -> pd.DataFrame:
    """The test images of a split, sorted by image_id. Raises BusflowError when it has none."""
    split = read_split(path)
    test = split[split["split"] == "test"].sort_values("image_id", ignore_index=True)
    if test.empty:
        raise BusflowError(f"{path}: has no test image; make the splits again")
    return test


def read_entries(path: Path | str, kind: str, keys: tuple[str, ...]) -> dict[str, list]:
    """Read a JSON list of objects; the values under each of the keys, in the order of the list.

    Raises BusflowError when it is no such list (of ``kind``, to name it) or an object lacks a key.
    """
    try:
        entries = json.loads(Path(path).read_text(encoding="utf-8"))
        if not isinstance(entries, list):
            raise ValueError("it is not a list")
        return {key: [entry[key] for entry in entries] for key in keys}
    except FileNotFoundError:
        raise BusflowError(f"{path}: no such file; run the rule that makes it") from None
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        reason = f"an entry lacks {error}" if isinstance(error, KeyError) else error
        raise BusflowError(f"{path}: not a list of {kind} ({reason}); predict again") from None


def read_predictions(path: Path | str) -> pd.DataFrame:
    """Read the predictions of a classifier and check each row.

    Columns: ``image_id, source, label, prediction, p_benign, p_malignant, p_normal``; probabilities lie
    in [0, 1], sum to 1 (to 1e-4, for rounding), and ``prediction`` names the greatest of them.
    Raises BusflowError that names the file, the image and the fault.
    """
    table = read_table(path, ["image_id", "source", "label", "prediction", *PROBABILITIES])
    _unique(table, path)
    for column in ("label", "prediction"):
        refuse(table, ~table[column].isin(LABELS), path, f"{column} is not one of {', '.join(LABELS)}")
    table[PROBABILITIES] = table[PROBABILITIES].apply(pd.to_numeric, errors="coerce")
    values = table[PROBABILITIES].to_numpy()
    refuse(table, ~np.isfinite(values).all(axis=1), path, "a probability is not a number")
    refuse(table, ((values < 0) | (values > 1)).any(axis=1), path, "a probability is outside [0, 1]")
    refuse(table, abs(values.sum(axis=1) - 1) > 1e-4, path, "the probabilities do not sum to 1")
    chosen = values[np.arange(len(table)), indices(table["prediction"])]
    refuse(table, chosen < values.max(axis=1) - 1e-6, path, "prediction is not the most probable class")
    return table


def read_calibration(path: Path | str) -> dict:
    """The ``calibration`` in the ``run.json`` of a classifier's training (see ``engine/classification.py``).

    Raises BusflowError when there is no such file, or none of a training that calibrates.
    """
    try:
        record = read_json(path)
    except FileNotFoundError:
        raise BusflowError(f"{path}: no such file; run the rule that makes it") from None
    except ValueError:  # cut, or no text
        record = None
    found = record.get("calibration") if isinstance(record, dict) else None
    if not is_calibration(found):
        raise BusflowError(
            f"{path}: holds no calibration, or a damaged one, as if an older busflow had trained the "
            "classifier; delete the file and run the workflow again, which trains it anew"
        )
    return found


def match(predictions: pd.DataFrame, split: pd.DataFrame, path: Path | str) -> pd.DataFrame:
    """Predictions of exactly the split's test images, sorted by image_id, with their ``group``.

    Raises BusflowError when an image lacks a prediction, a prediction lacks its image, or a label differs.
    """
    test = split[split["split"] == "test"]
    absent = sorted(set(test["image_id"]) - set(predictions["image_id"]))
    extra = sorted(set(predictions["image_id"]) - set(test["image_id"]))
    if absent or extra:
        raise BusflowError(
            f"{path}: does not fit the test split: {len(absent)} test images without a prediction, "
            f"{len(extra)} predictions without a test image (first: {(absent + extra)[0]}); predict again"
        )
    joined = predictions.merge(test[["image_id", "label", "group"]], on="image_id", suffixes=("", "_split"))
    refuse(joined, joined["label"] != joined["label_split"], path, "label differs from the split's label")
    return joined.drop(columns="label_split").sort_values("image_id", ignore_index=True)


def indices(labels: pd.Series) -> np.ndarray:
    """Class numbers [N] (int, 0..2) of label texts."""
    return pd.Categorical(labels, categories=LABELS).codes.astype(np.intp)


def refuse(
    table: pd.DataFrame,
    bad: pd.Series | np.ndarray | list,
    path: Path | str,
    fault: str,
    remedy: str = "predict again",
) -> None:
    """Raise BusflowError if any row of the table, read from ``path``, is bad; it names the first image."""
    bad = np.asarray(bad, dtype=bool)
    if bad.any():
        first = table["image_id"].iloc[int(bad.argmax())]
        raise BusflowError(f"{path}: {fault} (image {first}; {bad.sum()} in all); {remedy}")


def _unique(table: pd.DataFrame, path: Path | str) -> None:
    refuse(table, table["image_id"].duplicated(), path, "image_id occurs more than once")
