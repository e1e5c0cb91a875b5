"""Figure 6 and the other pictures of the detectors' results."""

from fractions import Fraction
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import seaborn as sns
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter, NullLocator, ScalarFormatter

from busflow.labels import LESIONS
from busflow.metrics.froc import RATES
from busflow.metrics.matching import RECALLS
from busflow.report.figures_timing import PERCENTILES
from busflow.report.style import CLASS_COLOURS, INK, legend_below
from busflow.report.tables_classification import by_model

HUES = ("#74b0dc", "#1f5a94", "#3a7d44", "#8a8f94", "#d9932f", "#6a4c93", "#b5446e", "#7a5230")


def detector_colours(settings: dict) -> dict[str, tuple]:
    """A fixed colour per detector, in config order: distinct hues, as their curves cross."""
    models = list(settings["models"]["detection"])
    return dict(zip(models, sns.color_palette(HUES, len(models)), strict=True))


def fig6(timing_paths: list[Path], settings: dict) -> Figure:
    """Seconds that each detector takes for the test set of a protocol (paper, Fig. 6), and its latency.

    Medians over the seeds. The heading names the device and the conditions: all of them where they differ.
    """
    found = by_model(timing_paths, settings)
    conditions = sorted({_conditions(each) for measured in found.values() for each in measured})
    colours = [detector_colours(settings)[model] for _, model in found]
    y = np.arange(len(found))

    def median(block: str, name: str) -> np.ndarray:
        return np.array([np.median([each[block][name] for each in measured]) for measured in found.values()])

    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 0.42 * len(found) + 1.7), sharey=True)
    seconds = median("test_set", "seconds")
    bars = left.barh(y, seconds, color=colours, height=0.68)
    words = [f"{value:,.3g}" if value < 1000 else f"{value:,.0f}" for value in seconds]
    left.bar_label(bars, words, padding=3)
    left.set(xlabel="Seconds", title=f"The test set, {median('test_set', 'n')[0]:,.0f} images")
    left.set_xlim(0, 1.15 * seconds.max())
    latency = {name: median("latency", name) for name in PERCENTILES}
    right.hlines(y, latency["p50_ms"], latency["p99_ms"], colors=colours, lw=2)
    for name, (label, marker) in PERCENTILES.items():
        style = {"c": INK, "s": 60} if marker == "|" else {"c": colours, "s": 30}
        right.scatter(latency[name], y, marker=marker, zorder=3, **style)
        right.scatter([], [], marker=marker, color=INK, s=30, label=label)
    right.set(xlabel="Milliseconds (logarithmic)", title="Latency, one image", xscale="log")
    right.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    right.xaxis.set_major_formatter(ScalarFormatter())
    right.xaxis.set_minor_formatter(NullFormatter())
    legend_below(figure, [right], columns=3)
    left.set_yticks(y, [settings["models"]["detection"][model]["label"] for _, model in found])
    left.set_ylim(len(found) - 0.4, -0.6)
    for panel in (left, right):
        panel.grid(axis="y", visible=False)
    if len(conditions) > 1:
        conditions.insert(0, "Not comparable, timed under different conditions:")
    heading = _heading(found, settings, over="median")
    figure.suptitle("\n".join([heading, *conditions]), fontsize=9, weight="normal")
    sns.despine(figure, left=True)
    return figure


def pr_curves(metrics_paths: list[Path], settings: dict) -> Figure:
    """Precision against recall at IoU 0.5, one panel a class; means over the seeds of one protocol."""
    found = by_model(metrics_paths, settings)
    colours = detector_colours(settings)
    figure, axes = plt.subplots(1, len(LESIONS), figsize=(9, 5.6), sharey=True)
    for panel, label in zip(axes, LESIONS, strict=True):
        for (_, model), metrics in found.items():
            blocks = [each["per_class"][label] for each in metrics]
            if blocks[0]["pr_curve"] is None:
                continue
            precision = np.mean([block["pr_curve"] for block in blocks], axis=0)
            area = np.mean([block["auc_pr"] for block in blocks])
            name = f"{area:.3f}  {settings['models']['detection'][model]['label']}"
            reached = np.where(precision > 0, precision, np.nan)
            panel.plot(RECALLS, reached, color=colours[model], lw=1.6, label=name)
        n = next(iter(found.values()))[0]["per_class"][label]["n_boxes"]
        panel.set_title(f"{label.capitalize()} (n = {n:,} boxes)", color=CLASS_COLOURS[label])
        panel.set(xlabel="Recall", xlim=(-0.01, 1.01), ylim=(-0.01, 1.02))
        if panel.get_lines():
            panel.legend(
                title="AUC-PR",
                loc="upper left",
                bbox_to_anchor=(0, -0.14),
                alignment="left",
                borderaxespad=0,
                title_fontproperties={"weight": "bold", "size": 8},
                fontsize=8,
            )
    axes[0].set_ylabel("Precision")
    figure.suptitle(_heading(found, settings))
    sns.despine(figure)
    return figure


def froc(metrics_paths: list[Path], settings: dict) -> Figure:
    """Share of lesions and of videos found, against false positives per image; means over the seeds."""
    found = by_model(metrics_paths, settings)
    colours = detector_colours(settings)
    figure, axes = plt.subplots(1, 2, figsize=(9, 4.2), sharey=True)
    for panel, what in zip(axes, ("lesions", "videos"), strict=True):
        for (_, model), metrics in found.items():
            curves = [each["froc"]["curve"] for each in metrics]
            shares = np.array([curve[what] for curve in curves], float).mean(axis=0)  # NaN without lesions
            name = settings["models"]["detection"][model]["label"]
            panel.step(curves[0]["rates"], shares, where="post", color=colours[model], lw=1.6, label=name)
        n = next(iter(found.values()))[0]["froc"][what]["n"]
        panel.set_title(f"{what.capitalize()} (n = {n:,})")
        panel.set(xscale="log", xlabel="False positives per image", ylim=(-0.01, 1.02))
        panel.set_xlim(RATES[0] / 2, RATES[-1] * 2)
        panel.set_xticks(RATES, [str(Fraction(rate)) for rate in RATES])
        panel.xaxis.set_minor_locator(NullLocator())
    axes[0].set_ylabel("Share found")
    legend_below(figure, axes, columns=4)
    figure.suptitle(_heading(found, settings))
    sns.despine(figure)
    return figure


def lesion_size(metrics_paths: list[Path], settings: dict) -> Figure:
    """Average precision by the lesion's share of the image, in thirds; means over the seeds.

    Lines: standard deviation over the seeds.
    """
    found = by_model(metrics_paths, settings)
    colours = detector_colours(settings)
    thirds = next(iter(found.values()))[0]["bins"]["relative"]
    width = 0.86 / len(found)
    figure, panel = plt.subplots(figsize=(9, 4))
    for k, ((_, model), metrics) in enumerate(found.items()):
        values = [[each["bins"]["relative"][third]["ap"] for third in thirds] for each in metrics]
        values = np.array(values, float)
        spread = values.std(axis=0, ddof=1) if len(metrics) > 1 else None
        x = np.arange(len(thirds)) + width * (k - (len(found) - 1) / 2)
        name = settings["models"]["detection"][model]["label"]
        panel.bar(x, values.mean(axis=0), 0.92 * width, color=colours[model], label=name)
        panel.errorbar(x, values.mean(axis=0), yerr=spread, fmt="none", ecolor=INK, lw=1)
    words = [
        f"{third.capitalize()} third\n{_bounds(each)}\nn = {each['n']:,}" for third, each in thirds.items()
    ]
    panel.set_xticks(range(len(thirds)), words)
    panel.set(ylabel="AP (IoU 0.5 to 0.95)", ylim=(0, None))
    panel.grid(axis="x", visible=False)
    legend_below(figure, [panel], columns=4)
    figure.suptitle(_heading(found, settings))
    sns.despine(figure)
    return figure


def _bounds(third: dict) -> str:
    if third["to"] is None:
        return f"above {100 * third['from']:.1f} %"
    if third["from"] == 0:
        return f"up to {100 * third['to']:.1f} % of the image"
    return f"{100 * third['from']:.1f} to {100 * third['to']:.1f} %"


def _heading(found: dict[tuple[str, str], list[dict]], settings: dict, over: str = "mean") -> str:
    protocol, _ = next(iter(found))
    seeds = max(len(metrics) for metrics in found.values())
    return settings["protocols"][protocol]["label"] + (f", {over} of {seeds} seeds" if seeds > 1 else "")


def _conditions(timing: dict) -> str:
    threads = f"{timing['threads']} thread{'s' if timing['threads'] > 1 else ''}"
    return f"{timing['device']}, {threads}, {timing['precision']}, images of {timing['image_size']} pixels"
