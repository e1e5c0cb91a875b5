"""Ablations: models that part what others differ in, against these, on the same images."""

from pathlib import Path

import pandas as pd

from busflow.metrics.comparison import adjusted, compare
from busflow.metrics.resamples import read_metrics
from busflow.tables.leading import LEADING, Score, over_seeds
from busflow.tables.pairs import NOTES, in_order, pairs_shown
from busflow.tables.table import Table
from busflow.units import by_model, units

# What differs without saying more: images of a step at once, and what follows from the assigner.
SAYING_NOTHING = ("micro_batch", "prior_sides", "seed")


def ablations(metrics_paths: list[Path], records_paths: list[Path], settings: dict) -> Table:
    """Differences of the scores that lead a task's tables, for each ablation and each model it is one of.

    Args:
        metrics_paths, records_paths: metrics.json and run.json of the ablations and of these models.
        settings: of the study; ``ablation_of`` of a model's entry names the others.
    """
    task = units(metrics_paths, settings)[0].task
    found = by_model(metrics_paths, settings, read_metrics)
    recorded = {key: records[0]["settings"] for key, records in by_model(records_paths, settings).items()}
    wanted = [
        (model, other)
        for model, entry in settings["models"][task].items()
        for other in entry.get("ablation_of", [])
    ]
    parts, notes = [], []
    for protocol in dict.fromkeys(protocol for protocol, _ in found):
        first = found[protocol, wanted[0][0]][0]
        own = {pair: [found[protocol, model] for model in pair] for pair in wanted}
        for name, score in LEADING[task].scores.items():
            rows = pd.concat(
                [_compared(pair, seeds, score) for pair, seeds in own.items()], ignore_index=True
            )
            rows["p_holm"] = adjusted(rows["p"])
            rows["differs"] = [_differing(*(recorded[protocol, model] for model in pair)) for pair in own]
            parts.append(rows.assign(protocol=protocol, score=name, n=first["n"]))
        notes.append(
            f"{settings['protocols'][protocol]['label']}: n = {first['n']:,} test images in "
            f"{first['n_groups']:,} groups; split {first['split_sha256'][:12]}."
        )
    data = in_order(pd.concat(parts, ignore_index=True), "score")
    titles = {name: score.title for name, score in LEADING[task].scores.items()}
    shown = pairs_shown(data, "score", titles, LEADING[task], task, settings)
    shown.insert(3, "What differs", data.loc[data["score"] == next(iter(titles)), "differs"].to_list())
    differing = "What differs: settings of the two trainings, those of the second first."
    return Table(
        f"{task.capitalize()}: ablations.", data, shown, [*notes, LEADING[task].words, differing, *NOTES]
    )


def _compared(pair: tuple[str, str], seeds: list[list[dict]], score: Score) -> pd.DataFrame:
    values = [over_seeds(each, score.estimate) for each in seeds]
    return compare(dict(zip(pair, values, strict=True)))


def _differing(one: dict, other: dict) -> str:
    """``optimizer: adamw → sgd``: what the first training has otherwise than the second."""
    names = sorted((one.keys() | other.keys()) - set(SAYING_NOTHING))
    changed = [name for name in names if one.get(name) != other.get(name)]
    return (
        "; ".join(f"{name}: {other.get(name, '–')} → {one.get(name, '–')}" for name in changed) or "nothing"
    )
