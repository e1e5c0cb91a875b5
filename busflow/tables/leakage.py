"""What of each test set its training set already knows, and how far the class is the scanner."""

from pathlib import Path

import numpy as np
import pandas as pd

from busflow.files import read_json
from busflow.metrics.uncertainty import RESAMPLES, TOO_FEW, apart
from busflow.protocols import GROUPED, PAPER, plain, protocols
from busflow.tables.leading import interval_columns
from busflow.tables.table import Table, number
from busflow.units import by_task

ALL = "all"
VIEWS = {"pixels": "pixels", "features": "frozen features"}
SHARES = ("exact_duplicate", "near_duplicate", "same_group")


def leakage(leakage_paths: list[Path], settings: dict) -> Table:
    """A row for each task, protocol and source, and for all sources of a task together.

    The gap is the accuracy of the nearest neighbour under a protocol that splits as the paper did, less that
    under the grouped one. Reads what ``busflow.metrics.leakage.measure_leakage`` gives.
    """
    measured = {place: read_json(path) for place, path in by_task(leakage_paths, settings).items()}
    views = [view for view in VIEWS if any(view in each["nearest_neighbour"] for each in measured.values())]
    fair, known = plain(settings["protocols"], GROUPED), protocols(settings["protocols"])
    rows = []
    for (task, protocol), whole in measured.items():
        leaks = known[protocol].split == PAPER and known[protocol].is_plain
        twin = measured.get((task, fair), {}) if leaks else {}
        for source, part in _parts(whole).items():
            other = _parts(twin).get(source) if twin else None
            row = {"task": task, "protocol": protocol, "source": source}
            row |= {name: part[name] for name in ("n_train", "n_test", "n_groups", *SHARES)}
            row["majority_accuracy"] = part["majority_accuracy"]
            for view in views:
                row |= _neighbours(view, part, other)
                row |= _ends(f"source_auroc_{view}", part.get("source_auroc", {}).get(view), "auroc")
            of_class = part.get("class_from_source") if source == ALL else None
            rows.append(row | _ends("class_from_source", of_class, "auroc"))
    data = pd.DataFrame(rows)
    shown = pd.DataFrame(
        {
            "Task": data["task"].str.capitalize(),
            "Protocol": data["protocol"].map(lambda name: settings["protocols"][name]["label"]),
            "Source": data["source"].map(
                lambda name: "All" if name == ALL else settings["sources"][name]["label"]
            ),
            "n": data["n_test"].map(number),
            "Groups": data["n_groups"].map(number),
            "Same pixels": _shares(data, "exact_duplicate"),
            "Near copy": _shares(data, "near_duplicate"),
            "Same group": _shares(data, "same_group"),
            "Largest class": _shares(data, "majority_accuracy"),
            **{f"1-NN, {VIEWS[view]}": _shares(data, f"neighbour_{view}") for view in views},
            **{f"Gap, {VIEWS[view]}": _shares(data, f"gap_{view}") for view in views},
            **{f"Source's AUROC, {VIEWS[view]}": _areas(data, f"source_auroc_{view}") for view in views},
            "AUROC of malignancy from the source": _areas(data, "class_from_source"),
        }
    )
    notes = [
        "In per cent of the n test images, but for the AUROCs. Same pixels, near copy, same group: training "
        "has such an image. Largest class: always answering the most frequent label of training.",
        "1-NN: the label of the most similar training image, by the correlation of 32 × 32 thumbnails"
        + (
            "; by the cosine of features of the study's first pretrained network, which learnt nothing here."
            if "features" in views
            else ". The study has no pretrained classifier, whose features would be compared too."
        ),
        "Gap: 1-NN under a protocol that splits as the paper did, less that under the grouped one. The test "
        "images differ; the interval takes the two test sets for independent.",
        "AUROC of the source: a logistic regression, fitted to training images, tells this source's test "
        "images from the others'. Of malignancy from the source: an image's score is the share of malignant "
        "images that its source has in training, whatever the image shows; 0.5 knows nothing.",
        f"In brackets 95 % intervals: t-intervals with the spread of {RESAMPLES:,} resamples of whole "
        f"groups; none of {TOO_FEW}.",
    ]
    return Table("Leakage of the splits, and what the source alone tells.", data, shown, notes)


def _parts(whole: dict) -> dict[str, dict]:
    """The whole test set and, where there are several, each source's part."""
    return {ALL: whole} | (whole["sources"] if len(whole["sources"]) > 1 else {})


def _neighbours(view: str, part: dict, other: dict | None) -> dict[str, float | None]:
    """Accuracy of the nearest neighbour, and the gap to that of another protocol, with their intervals."""
    found = part["nearest_neighbour"].get(view, {})
    row = _ends(f"neighbour_{view}", found, "accuracy")
    twin = other["nearest_neighbour"].get(view, {}) if other else {}
    pair = [
        (each["accuracy"], *(each["interval"] or (np.nan, np.nan)))
        for each in (found, twin)
        if each.get("accuracy") is not None
    ]
    gap = (pair[0][0] - pair[1][0], *apart(*pair)) if len(pair) == 2 else (np.nan,) * 3
    return row | interval_columns(f"gap_{view}", gap)


def _ends(name: str, found: dict | None, value: str) -> dict[str, float | None]:
    low, high = (found or {}).get("interval") or (None, None)
    return {name: (found or {}).get(value), f"{name}_low": low, f"{name}_high": high}


def _shares(data: pd.DataFrame, name: str) -> list[str]:
    return _texts(data, name, 100, 1)


def _areas(data: pd.DataFrame, name: str) -> list[str]:
    return _texts(data, name, 1, 3)


def _texts(data: pd.DataFrame, name: str, factor: int, digits: int) -> list[str]:
    """Values with the intervals that are known."""
    ends = [f"{name}_low", f"{name}_high"]
    numbers = factor * data.reindex(columns=[name, *ends]).astype(float)
    return [
        number(value, digits) + (f" [{low:.{digits}f}, {high:.{digits}f}]" if not np.isnan(low) else "")
        for value, low, high in numbers.itertuples(index=False)
    ]
