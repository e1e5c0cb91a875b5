"""How fast the models predict: images per second, seconds for the test set, and latency percentiles."""

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter, ScalarFormatter

from busflow.figures.style import INK, heading, legend_below, model_colours, open_frame
from busflow.files import read_json
from busflow.units import units

PERCENTILES = {
    "p50_ms": ("median", "o"),
    "p95_ms": ("95th percentile", "|"),
    "p99_ms": ("99th percentile", "D"),
}


def timing(timing_paths: list[Path], settings: dict) -> Figure:
    """Throughput in batches and latency of one image, one bar a model; the medians over its units.

    The heading names the device and the conditions: all of them where they differ.
    """
    measured, colours, names = _by_model(timing_paths, settings)
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 0.42 * len(names) + 1.7), sharey=True)
    _bars(left, _median(measured, "throughput", "images_per_s"), colours)
    left.set(xlabel="Images per second", title="Throughput, in batches")
    _latency(right, measured, colours)
    conditions = [
        f"{_conditions(each)}, batches of {each['throughput']['batch']}"
        for seeds in measured
        for each in seeds
    ]
    return _finish(figure, (left, right), names, conditions)


def prediction_time(timing_paths: list[Path], settings: dict) -> Figure:
    """Seconds that each model takes for the test set of a protocol (paper, Fig. 6), and its latency.

    Medians over the seeds. The heading names the device and the conditions: all of them where they differ.
    """
    measured, colours, names = _by_model(timing_paths, settings)
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 0.42 * len(names) + 1.7), sharey=True)
    _bars(left, _median(measured, "test_set", "seconds"), colours)
    left.set(xlabel="Seconds", title=f"The test set, {measured[0][0]['test_set']['n']:,} images")
    _latency(right, measured, colours)
    conditions = [_conditions(each) for seeds in measured for each in seeds]
    protocol = units(timing_paths, settings)[0].protocol
    first = heading(protocol, max(map(len, measured)), settings, over="median")
    return _finish(figure, (left, right), names, conditions, first)


def _by_model(paths: list[Path], settings: dict) -> tuple[list[list[dict]], list[tuple], list[str]]:
    """What was measured of each model, its colour and its name, in config order."""
    found = units(paths, settings)
    task = found[0].task
    models = list(dict.fromkeys(unit.model for unit in found))
    measured = [[read_json(unit.path) for unit in found if unit.model == model] for model in models]
    colours = model_colours(settings, task)
    names = [settings["models"][task][model]["label"] for model in models]
    return measured, [colours[model] for model in models], names


def _median(measured: list[list[dict]], block: str, name: str) -> np.ndarray:
    return np.array([np.median([each[block][name] for each in of_model]) for of_model in measured])


def _bars(panel: Axes, values: np.ndarray, colours: list[tuple]) -> None:
    bars = panel.barh(np.arange(len(values)), values, color=colours, height=0.68)
    words = [f"{value:,.3g}" if value < 1000 else f"{value:,.0f}" for value in values]
    panel.bar_label(bars, words, padding=3)
    panel.set_xlim(0, 1.15 * values.max())


def _latency(panel: Axes, measured: list[list[dict]], colours: list[tuple]) -> None:
    y = np.arange(len(measured))
    latency = {name: _median(measured, "latency", name) for name in PERCENTILES}
    panel.hlines(y, latency["p50_ms"], latency["p99_ms"], colors=colours, lw=2)
    for name, (label, marker) in PERCENTILES.items():
        style = {"c": INK, "s": 60} if marker == "|" else {"c": colours, "s": 30}
        panel.scatter(latency[name], y, marker=marker, zorder=3, **style)
        panel.scatter([], [], marker=marker, color=INK, s=30, label=label)
    panel.set(xlabel="Milliseconds (logarithmic)", title="Latency, one image", xscale="log")
    panel.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    panel.xaxis.set_major_formatter(ScalarFormatter())
    panel.xaxis.set_minor_formatter(NullFormatter())


def _finish(
    figure: Figure, panels: tuple[Axes, Axes], names: list[str], conditions: list[str], first: str = ""
) -> Figure:
    """Names, legend, and the heading: its first line, and each distinct condition."""
    legend_below(figure, panels, columns=3)
    panels[0].set_yticks(range(len(names)), names)
    panels[0].set_ylim(len(names) - 0.4, -0.6)
    for panel in panels:
        panel.grid(axis="y", visible=False)
    lines = sorted(set(conditions))
    if len(lines) > 1:
        lines.insert(0, "Not comparable, timed under different conditions:")
    figure.suptitle("\n".join([first, *lines] if first else lines), fontsize=9, weight="normal")
    open_frame(figure, left=True)
    return figure


def _conditions(timing: dict) -> str:
    threads = f"{timing['threads']} thread{'s' if timing['threads'] > 1 else ''}"
    return f"{timing['device']}, {threads}, {timing['precision']}, images of {timing['image_size']} pixels"
