"""Every two models of a task on the same images: differences, intervals and tests, the same for all tasks."""

from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from busflow.metrics.comparison import ALPHA, compare
from busflow.metrics.resamples import read_metrics
from busflow.metrics.uncertainty import TOO_FEW
from busflow.tables.leading import LEADING, Leading, over_seeds
from busflow.tables.table import Table
from busflow.units import by_model, units

NOTES = (
    "The first model's value less the second's, over several seeds of their means; in brackets the 95 % "
    f"interval of this pair alone, of resamples in which both meet the same groups; none of {TOO_FEW}.",
    "p: paired permutation test, in which the two swap what whole groups contribute, Holm-corrected for all "
    f"pairs of a protocol. Bold: p < {ALPHA}; else the two are not told apart.",
)


def pairs(metrics_paths: list[Path], settings: dict) -> Table:
    """Differences of the scores that lead the tables of one task."""
    task = units(metrics_paths, settings)[0].task
    found = by_model(metrics_paths, settings, read_metrics)
    scores, parts, counts = LEADING[task].scores, [], []
    for protocol in dict.fromkeys(protocol for protocol, _ in found):
        models = {model: seeds for (of, model), seeds in found.items() if of == protocol}
        first = next(iter(models.values()))[0]
        for name, score in scores.items():
            part = compare({model: over_seeds(seeds, score.estimate) for model, seeds in models.items()})
            parts.append(part.assign(protocol=protocol, score=name, n=first["n"]))
        counts.append(
            f"{settings['protocols'][protocol]['label']}: n = {first['n']:,} test images in "
            f"{first['n_groups']:,} groups; split {first['split_sha256'][:12]}."
        )
    data = in_order(pd.concat(parts, ignore_index=True), "score")
    titles = {name: score.title for name, score in scores.items()}
    shown = pairs_shown(data, "score", titles, LEADING[task], task, settings)
    title = f"{task.capitalize()}: every two models on the same images."
    return Table(title, data, shown, [*counts, LEADING[task].words, *NOTES])


def in_order(data: pd.DataFrame, part: str) -> pd.DataFrame:
    """What a row is about first, then its numbers."""
    names = ["protocol", "model", "other", part, "n", "n_groups"]
    return data[[*names, *(name for name in data if name not in names)]]


def pairs_shown(
    data: pd.DataFrame, part: str, titles: Mapping[str, str], how: Leading, task: str, settings: dict
) -> pd.DataFrame:
    """The pairs as text, a column for each of the ``titles`` of what ``data[part]`` names."""
    labels = {model: entry["label"] for model, entry in settings["models"][task].items()}
    parts = {name: data[data[part] == name].reset_index(drop=True) for name in titles}
    first = next(iter(parts.values()))
    shown = pd.DataFrame(
        {
            "Protocol": first["protocol"].map(lambda name: settings["protocols"][name]["label"]),
            "Model": first["model"].map(labels),
            "Against": first["other"].map(labels),
        }
    )
    for name, title in titles.items():
        shown[title] = [pair_text(row, how) for row in parts[name].to_dict("records")]
    return shown.astype(str)  # so too where there is no pair


def pair_text(row: Mapping, how: Leading) -> str:
    """``+0.031 [+0.010, +0.052], p = 0.012``; bold where the two are told apart."""
    if pd.isna(row["difference"]):
        return "n/a"
    words = signed(*(how.factor * row[name] for name in ("difference", "low", "high")), how.digits)
    if not pd.isna(row["p_holm"]):
        words += f", p {p_value(row['p_holm'])}"
    return f"**{words}**" if row["p_holm"] < ALPHA else words


def signed(value: float, low: float, high: float, digits: int = 3) -> str:
    """``+0.031 [+0.010, +0.052]``, without the interval where it is undefined."""
    how = f"+z.{digits}f"  # z: what rounds to zero is +0.000
    return f"{value:{how}}" + ("" if pd.isna(low) else f" [{low:{how}}, {high:{how}}]")


def p_value(p: float) -> str:
    return "< 0.001" if p < 0.001 else f"= {p:.3f}"
