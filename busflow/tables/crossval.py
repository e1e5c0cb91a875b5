"""Cross-validation: how models do from fold to fold, and on the test images of all folds together."""

from pathlib import Path

import pandas as pd

from busflow.files import read_json, sha256
from busflow.metrics.resamples import read_metrics
from busflow.protocols import families
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
from busflow.tables.table import Table, bold_best
from busflow.units import Unit, by_protocol, units


def crossval(
    pooled_paths: list[Path], scores_paths: list[Path], splits_paths: list[Path], settings: dict
) -> Table:
    """Cross-validation of the models of one task: a row per division into folds and model.

    Args:
        pooled_paths: metrics of all folds of a division together, under the name of its first fold.
        scores_paths: ``scores.json`` of each fold.
        splits_paths: the splits of the folds.
    """
    splits = by_protocol(splits_paths, settings)
    pooled, scored = units(pooled_paths, settings), units(scores_paths, settings)
    task = pooled[0].task
    rows, notes = [], []
    for folds in families(settings["protocols"]):
        division = {"protocols": " ".join(folds), "division": _division(folds, settings), "folds": len(folds)}
        part = []
        for model in dict.fromkeys(unit.model for unit in pooled):
            label = settings["models"][task][model]["label"]
            together = [unit for unit in pooled if unit.model == model and unit.protocol == folds[0]]
            apart = [unit for unit in scored if unit.model == model and unit.protocol in folds]
            part.append(division | {"model": model, "label": label} | _row(task, together, apart))
        rows += part
        notes.append(_note(part[0], {name: splits[name] for name in folds}, settings))
    data = pd.DataFrame(rows)
    how = LEADING[task]
    shown = pd.DataFrame({"Folds": data["division"], "Model": data["label"]})
    for name, score in how.scores.items():
        shown[f"{score.title}, mean of folds"] = data.apply(_mean_text, axis=1, name=name, how=how)
        text = data.apply(_pooled_text, axis=1, name=name, how=how)
        parts = [bold_best(text[part.index], part[name]) for _, part in data.groupby("protocols")]
        shown[f"{score.title}, pooled"] = pd.concat(parts)
    notes += [
        f"{how.words} {seeds_text(data['seeds'].max())}",
        "Mean of folds: mean ± standard deviation of the folds' scores. The folds share most of their "
        "training images, so the deviation is no standard error.",
        "Pooled: the score of the test predictions of all folds together, each image predicted once by a "
        f"network that was not trained on it. Bold: the greatest. {INTERVAL}",
    ]
    return Table(f"{task.capitalize()}: cross-validation.", data, shown, notes)


def _row(task: str, together: list[Unit], apart: list[Unit]) -> dict[str, object]:
    """One model in all folds: counts, and each score's mean and deviation over the folds, and pooled."""
    pooled = [read_metrics(unit.path) for unit in together]
    folds = pd.DataFrame([read_json(unit.path) | {"fold": unit.protocol} for unit in apart])
    folds = folds.set_index("fold").astype(float).groupby("fold").mean()
    row = {"seeds": len(pooled), "n": pooled[0]["n"], "n_groups": pooled[0]["n_groups"]}
    for name, score in LEADING[task].scores.items():
        row |= {f"{name}_folds": folds[name].mean(), f"{name}_folds_sd": folds[name].std(ddof=1)}
        row[f"{name}_folds_n"] = int(folds[name].count())
        row |= interval_columns(name, estimate(pooled, score))
    return row


def _division(folds: list[str], settings: dict) -> str:
    """``Grouped, 5 folds``; ``3 of 5`` of a study that lacks some; and whether classes are balanced."""
    entry = settings["protocols"][folds[0]]
    of = entry["fold"][1]
    count = f"{of}" if len(folds) == of else f"{len(folds)} of {of}"
    balanced = ", classes balanced" if entry.get("balance_classes") else ""
    return f"{entry['split'].capitalize()}, {count} folds{balanced}"


def _note(row: dict, splits: dict[str, Path], settings: dict) -> str:
    """What a division's folds are called, how much they test, and their splits."""
    folds = "; ".join(
        f"{settings['protocols'][name]['label']}, split {sha256(path)[:12]}" for name, path in splits.items()
    )
    return f"{row['division']}: n = {row['n']:,} test images in {row['n_groups']:,} groups ({folds})."


def _mean_text(row: pd.Series, name: str, how: Leading) -> str:
    values = (row[f"{name}_folds{end}"] for end in ("", "_sd", "_n"))
    return mean_text(*values, row["folds"], how)


def _pooled_text(row: pd.Series, name: str, how: Leading) -> str:
    return estimate_text(*(row[f"{name}{end}"] for end in ("", "_low", "_high")), how)
