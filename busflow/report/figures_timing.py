"""How fast the models predict: images per second, and latency percentiles."""

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import seaborn as sns
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter, ScalarFormatter

from busflow.files import read_json
from busflow.report.style import INK, model_colours
from busflow.report.units import units

PERCENTILES = {
    "p50_ms": ("median", "o"),
    "p95_ms": ("95th percentile", "|"),
    "p99_ms": ("99th percentile", "D"),
}


def timing(timing_paths: list[Path], settings: dict) -> Figure:
    """Throughput in batches and latency of one image, one bar a model; the medians over its units.

    The heading names the device and the conditions: all of them where they differ.
    """
    found = units(timing_paths, settings)
    measured = [read_json(unit.path) for unit in found]
    conditions = sorted({_conditions(each) for each in measured})
    models = list(dict.fromkeys(unit.model for unit in found))
    task = found[0].task
    colours = [model_colours(settings, task)[model] for model in models]
    y = np.arange(len(models))

    def median(block: str, name: str) -> np.ndarray:
        return np.array(
            [
                np.median([t[block][name] for u, t in zip(found, measured, strict=True) if u.model == m])
                for m in models
            ]
        )

    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 0.42 * len(models) + 1.7), sharey=True)
    throughput = median("throughput", "images_per_s")
    bars = left.barh(y, throughput, color=colours, height=0.68)
    left.bar_label(
        bars, [f"{value:,.3g}" if value < 1000 else f"{value:,.0f}" for value in throughput], padding=3
    )
    left.set(xlabel="Images per second", title="Throughput, in batches")
    left.set_xlim(0, 1.15 * throughput.max())
    tail = {name: median("latency", name) for name in PERCENTILES}
    right.hlines(y, tail["p50_ms"], tail["p99_ms"], colors=colours, lw=2)
    for name, (label, marker) in PERCENTILES.items():
        colour = INK if marker == "|" else colours
        right.scatter(tail[name], y, marker=marker, c=colour, s=60 if marker == "|" else 30, zorder=3)
        right.scatter([], [], marker=marker, color=INK, s=30, label=label)
    right.set(xlabel="Milliseconds (logarithmic)", title="Latency, one image", xscale="log")
    right.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    right.xaxis.set_major_formatter(ScalarFormatter())
    right.xaxis.set_minor_formatter(NullFormatter())
    right.legend(loc="upper right")
    left.set_yticks(y, [settings["models"][task][model]["label"] for model in models])
    left.set_ylim(len(models) - 0.4, -0.6)
    for panel in (left, right):
        panel.grid(axis="y", visible=False)
    if len(conditions) > 1:
        conditions.insert(0, "Not comparable, timed under different conditions:")
    figure.suptitle("\n".join(conditions), fontsize=9, weight="normal")
    sns.despine(figure, left=True)
    return figure


def _conditions(timing: dict) -> str:
    cores = f"{timing['threads']} thread{'s' if timing['threads'] > 1 else ''}"
    side = timing["image_size"]
    batch = timing["throughput"]["batch"]
    return f"{timing['device']}, {cores}, {timing['precision']}, {side} × {side} pixels, batches of {batch}"
