"""How far a score depends on the seed of the training, and how far on the images that test it."""

from pathlib import Path

import numpy as np
import pandas as pd

from busflow.metrics.resamples import read_metrics
from busflow.metrics.scores import at
from busflow.tables.leading import LEADING, over_seeds
from busflow.tables.table import Table, number
from busflow.units import by_model, units


def seeds(metrics_paths: list[Path], settings: dict) -> Table:
    """The two sources of variance of each leading score of one task: a row per protocol, model and score."""
    task = units(metrics_paths, settings)[0].task
    how, found = LEADING[task], by_model(metrics_paths, settings, read_metrics)
    data = pd.DataFrame(
        [
            {
                "protocol": protocol,
                "model": model,
                "label": settings["models"][task][model]["label"],
                "score": name,
                **two_levels(metrics, score.value, score.estimate),
                "n": metrics[0]["n"],
                "split_sha256": metrics[0]["split_sha256"],
            }
            for (protocol, model), metrics in found.items()
            for name, score in how.scores.items()
        ]
    )

    def shown_number(name: str, digits: int = how.digits) -> pd.Series:
        return (how.factor * data[name]).map(lambda value: number(value, digits))

    shown = pd.DataFrame(
        {
            "Protocol": data["protocol"].map(lambda name: settings["protocols"][name]["label"]),
            "Model": data["label"],
            "Score": data["score"].map(lambda name: how.scores[name].title),
            "Mean": shown_number("mean"),
            "Seeds": data["seeds"].map(number),
            "Least": shown_number("least"),
            "Greatest": shown_number("greatest"),
            "SD of seeds": shown_number("seed_sd"),
            "SD of test images": shown_number("sampling_sd"),
            "SD of both": shown_number("total_sd"),
            "Groups": data["n_groups"].map(number),
        }
    )
    notes = [
        *(
            f"{settings['protocols'][row.protocol]['label']}: n = {row.n:,} test images; "
            f"split {row.split_sha256[:12]}."
            for row in data.drop_duplicates("protocol").itertuples()
        ),
        how.words,
        "SD of seeds: standard deviation of the seeds' scores on the same test images. SD of test images: "
        "that of the mean of the seeds over resamples of whole groups, which are the same for all seeds.",
        "SD of both: the root of the sum of their squares, for one further training and as many further test "
        "images. The brackets of the other tables are of test images alone.",
    ]
    return Table(f"{task.capitalize()}: variance between seeds and between test images.", data, shown, notes)


def two_levels(metrics: list[dict], value: str, estimate: str) -> dict[str, float]:
    """``mean, least, greatest`` of the seeds' values, and three standard deviations; NaN where undefined."""
    values = np.array([at(each, value) for each in metrics], float)
    of_seeds = over_seeds(metrics, estimate)
    sampling = of_seeds.deviation() if of_seeds else np.nan
    seed = values.std(ddof=1) if len(values) > 1 else np.nan
    return {
        "seeds": len(values),
        "n_groups": of_seeds.n_groups if of_seeds else 0,
        "mean": values.mean(),
        "least": values.min(),
        "greatest": values.max(),
        "seed_sd": seed,
        "sampling_sd": sampling,
        "total_sd": np.hypot(seed, sampling),
    }
