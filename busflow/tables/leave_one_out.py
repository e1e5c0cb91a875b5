"""Sources left out: how models do on each source that they were not trained on, and from source to source."""

from pathlib import Path

import numpy as np
import pandas as pd

from busflow.metrics.resamples import read_metrics
from busflow.protocols import protocols, sources_left_out
from busflow.tables.leading import (
    INTERVAL,
    LEADING,
    Leading,
    estimate,
    estimate_text,
    interval_columns,
    mean_text,
    seeds_text,
)
from busflow.tables.table import Table, number
from busflow.units import units

MEAN = "mean"


def leave_one_out(metrics_paths: list[Path], settings: dict) -> Table:
    """The models of one task on the sources left out: a row per model and test, and one of their mean.

    Args:
        metrics_paths: ``metrics.json`` of the protocols that leave sources out.
    """
    seeds: dict[tuple[str, str], list[dict]] = {}
    for unit in units(metrics_paths, settings):
        task = unit.task
        seeds.setdefault((unit.protocol, unit.model), []).append(read_metrics(unit.path))
    how, known, rows, notes = LEADING[task], protocols(settings["protocols"]), [], []
    for family in sources_left_out(settings["protocols"]):
        balanced = bool(settings["protocols"][family[0]].get("balance_classes"))
        for model in dict.fromkeys(model for _, model in seeds):
            label = settings["models"][task][model]["label"]
            of_model = {"balance_classes": balanced, "model": model, "label": label}
            tests = pd.DataFrame([_row(task, seeds[name, model]) for name in family])
            tests.insert(0, "tested_on", [" ".join(known[name].leave_out) for name in family])
            tests.insert(0, "protocol", family)
            rows += [of_model | row for row in tests.to_dict("records")]
            if len(family) > 1:
                rows.append(of_model | _mean_row(task, tests))
        notes += [_note(name, seeds[name, model][0], settings) for name in family]
    data = pd.DataFrame(rows)
    data = data.astype({"n": "Int64", "n_groups": "Int64"})
    shown = pd.DataFrame(
        {
            "Model": data["label"],
            "Tested on": data.apply(_tested_on, axis=1, settings=settings),
            "n": data["n"].map(number),
            "Groups": data["n_groups"].map(number),
        }
    )
    for name, score in how.scores.items():
        shown[score.title] = data.apply(_text, axis=1, name=name, how=how)
    notes += [
        f"{how.words} {seeds_text(data['seeds'].max())}",
        INTERVAL,
        "Mean: mean ± standard deviation of the tests above it, each of which counts as much as another. The "
        "predictions of several sources are not pooled: the largest would dominate. The trainings share "
        "sources, so the deviation is no standard error.",
        "Means over classes are over those that a source has, so that sources differ by their mixture too.",
    ]
    return Table(f"{task.capitalize()}: sources left out.", data, shown, notes)


def _row(task: str, seeds: list[dict]) -> dict[str, object]:
    row = {"seeds": len(seeds), "tests": 1} | {name: seeds[0][name] for name in ("n", "n_groups")}
    for name, score in LEADING[task].scores.items():
        row |= interval_columns(name, estimate(seeds, score))
        row |= {f"{name}_sd": np.nan, f"{name}_n": int(not np.isnan(row[name]))}
    return row


def _mean_row(task: str, tests: pd.DataFrame) -> dict[str, object]:
    row = {"protocol": "", "tested_on": MEAN, "seeds": tests["seeds"].max(), "tests": len(tests)}
    for name in LEADING[task].scores:
        values = tests[name]
        row |= {name: values.mean(), f"{name}_sd": values.std(ddof=1), f"{name}_n": values.count()}
    return row


def _tested_on(row: pd.Series, settings: dict) -> str:
    if row["tested_on"] == MEAN:
        words = f"Mean of {row['tests']}"
    else:
        words = " and ".join(settings["sources"][name]["label"] for name in row["tested_on"].split())
    return words + (", classes balanced" if row["balance_classes"] else "")


def _text(row: pd.Series, name: str, how: Leading) -> str:
    if row["tested_on"] == MEAN:
        values = (row[f"{name}{end}"] for end in ("", "_sd", "_n"))
        return mean_text(*values, row["tests"], how)
    return estimate_text(*(row[f"{name}{end}"] for end in ("", "_low", "_high")), how)


def _note(protocol: str, metrics: dict, settings: dict) -> str:
    label = settings["protocols"][protocol]["label"]
    return (
        f"{label}: n = {metrics['n']:,} test images in {metrics['n_groups']:,} groups, "
        f"split {metrics['split_sha256'][:12]}."
    )
