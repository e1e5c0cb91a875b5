"""Cross-validation: how models do from fold to fold, and on the test images of all folds together."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from busflow.files import read_json, sha256
from busflow.metrics.pooled import evaluate_pooled
from busflow.metrics.scores import at, scores
from busflow.protocols import families
from busflow.tables.table import Table, bold_best, number
from busflow.units import Unit, by_protocol, units


class Score(NamedTuple):
    """A leading score of a task: its heading, and where in the metrics its interval stands, if it has one."""

    title: str
    interval: str | None = None


class Shown(NamedTuple):
    """How a task's scores are shown: by name, a factor, the digits, and the words that explain them."""

    scores: dict[str, Score]
    factor: int
    digits: int
    words: str


SHOWN = {
    "classification": Shown(
        {
            "accuracy": Score("Accuracy", "intervals.accuracy.cluster"),
            "balanced_accuracy": Score("Balanced accuracy", "intervals.balanced_accuracy.cluster"),
            "macro_f1": Score("Macro F1", "intervals.macro_f1.cluster"),
        },
        100,
        2,
        "In per cent.",
    ),
    "detection": Shown(
        {
            "ap": Score("AP", "intervals.ap"),
            "ap50": Score("AP50", "intervals.ap50"),
            "ap75": Score("AP75", "intervals.ap75"),
            "ar100": Score("AR"),
        },
        1,
        3,
        "Average precision and recall as COCO defines them.",
    ),
    "segmentation": Shown(
        {
            "miou": Score("mIoU", "intervals.three_class_miou"),
            "lesion_iou": Score("IoU of lesions", "intervals.two_class_lesion_iou"),
            "lesion_dice": Score("Dice by image", "intervals.dice_mean"),
        },
        100,
        2,
        "In per cent: mIoU of background, benign and malignant and IoU of lesions over all pixels, Dice "
        "(lesion against background) as the mean over images with a lesion.",
    ),
}


def classification(
    predictions_paths: list[Path], scores_paths: list[Path], splits_paths: list[Path], settings: dict
) -> Table:
    """Cross-validation of the classifiers: a row per division into folds and model."""
    return _table("classification", predictions_paths, scores_paths, splits_paths, (), settings)


def detection(
    predictions_paths: list[Path],
    scores_paths: list[Path],
    splits_paths: list[Path],
    annotations_path: Path,
    images_path: Path,
    settings: dict,
) -> Table:
    """Cross-validation of the detectors: a row per division into folds and model."""
    inputs = (annotations_path, images_path)
    return _table("detection", predictions_paths, scores_paths, splits_paths, inputs, settings)


def segmentation(
    predictions_paths: list[Path],
    scores_paths: list[Path],
    splits_paths: list[Path],
    masks_path: Path,
    settings: dict,
) -> Table:
    """Cross-validation of the segmenters: a row per division into folds and model; any fold's masks do."""
    return _table("segmentation", predictions_paths, scores_paths, splits_paths, (masks_path,), settings)


def _table(
    task: str,
    predictions_paths: list[Path],
    scores_paths: list[Path],
    splits_paths: list[Path],
    inputs: tuple[Path, ...],
    settings: dict,
) -> Table:
    splits = by_protocol(splits_paths, settings)
    predicted, scored = units(predictions_paths, settings), units(scores_paths, settings)
    rows, notes = [], []
    for folds in families(settings["protocols"]):
        division = {"protocols": " ".join(folds), "division": _division(folds, settings), "folds": len(folds)}
        part = []
        for model, entry in settings["models"][task].items():
            found = (
                [unit for unit in of_all if unit.model == model and unit.protocol in folds]
                for of_all in (predicted, scored)
            )
            row = _row(task, *found, splits, inputs)
            part.append(division | {"model": model, "label": entry["label"]} | row)
        rows += part
        notes.append(_note(part[0], {name: splits[name] for name in folds}, settings))
    data = pd.DataFrame(rows)
    how = SHOWN[task]
    shown = pd.DataFrame({"Folds": data["division"], "Model": data["label"]})
    for name, score in how.scores.items():
        shown[f"{score.title}, mean of folds"] = data.apply(_mean_text, axis=1, name=name, how=how)
        text = data.apply(_pooled_text, axis=1, name=name, how=how)
        parts = [bold_best(text[part.index], part[name]) for _, part in data.groupby("protocols")]
        shown[f"{score.title}, pooled"] = pd.concat(parts)
    seeds = data["seeds"].max()
    notes += [
        how.words + (f" Means over {seeds} seeds." if seeds > 1 else " One seed."),
        "Mean of folds: mean ± standard deviation of the folds' scores. The folds share most of their "
        "training images, so the deviation is no standard error.",
        "Pooled: the score of the test predictions of all folds together, each image predicted once by a "
        "network that was not trained on it; in brackets the 95 % interval of a bootstrap over groups. Bold: "
        "the greatest.",
    ]
    return Table(f"{task.capitalize()}: cross-validation.", data, shown, notes)


def _row(
    task: str, predicted: list[Unit], scored: list[Unit], splits: dict[str, Path], inputs: tuple[Path, ...]
) -> dict[str, object]:
    """One model in all folds: counts, and each score's mean and deviation over the folds, and pooled."""
    seeds = sorted({unit.seed for unit in predicted})
    pooled = []
    for seed in seeds:
        of_seed = [unit for unit in predicted if unit.seed == seed]
        paths, tested = [unit.path for unit in of_seed], [splits[unit.protocol] for unit in of_seed]
        pooled.append(evaluate_pooled(task, paths, tested, inputs))
    folds = pd.DataFrame([read_json(unit.path) | {"fold": unit.protocol} for unit in scored])
    folds = folds.set_index("fold").astype(float).groupby("fold").mean()
    whole = pd.DataFrame([scores(task, each) for each in pooled], dtype=float).mean()
    row = {"seeds": len(seeds), "n": pooled[0]["n"], "n_groups": pooled[0]["n_groups"]}
    for name, score in SHOWN[task].scores.items():
        row |= {f"{name}_folds": folds[name].mean(), f"{name}_folds_sd": folds[name].std(ddof=1)}
        row |= {f"{name}_folds_n": int(folds[name].count()), name: whole[name]}
        if score.interval:
            ends = [at(each, score.interval) or (np.nan, np.nan) for each in pooled]
            row |= dict(zip((f"{name}_low", f"{name}_high"), np.mean(ends, axis=0), strict=True))
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


def _mean_text(row: pd.Series, name: str, how: Shown) -> str:
    """``91.20 ± 1.31``; the number of folds where the score is undefined in some."""
    known = row[f"{name}_folds_n"]
    if not known:
        return "n/a"
    words = number(how.factor * row[f"{name}_folds"], how.digits)
    if known > 1:
        words += f" ± {how.factor * row[f'{name}_folds_sd']:.{how.digits}f}"
    return words + (f" ({known} folds)" if known < row["folds"] else "")


def _pooled_text(row: pd.Series, name: str, how: Shown) -> str:
    if pd.isna(row[name]):
        return "n/a"
    low, high = (how.factor * row.get(f"{name}_{end}", np.nan) for end in ("low", "high"))
    interval = "" if pd.isna(low) else f" [{low:.{how.digits - 1}f}, {high:.{how.digits - 1}f}]"
    return number(how.factor * row[name], how.digits) + interval
