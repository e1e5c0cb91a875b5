"""Pictures of the detectors' results: curves of precision, of found lesions, and sizes."""

from fractions import Fraction
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from busflow.figures.sizes import bars_by_size, share_of_image
from busflow.figures.style import heading, legend_below, legend_of_areas, model_colours, open_frame
from busflow.labels import CLASS_COLOURS, LESIONS
from busflow.metrics.froc import RATES
from busflow.metrics.matching import RECALLS
from busflow.units import by_model


def pr_curves(metrics_paths: list[Path], settings: dict) -> Figure:
    """Precision against recall at IoU 0.5, one panel a class; means over the seeds of one protocol."""
    found = by_model(metrics_paths, settings)
    colours = model_colours(settings, "detection")
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
        legend_of_areas(panel, "AUC-PR")
    axes[0].set_ylabel("Precision")
    figure.suptitle(_heading(found, settings))
    open_frame(figure)
    return figure


def froc(metrics_paths: list[Path], settings: dict) -> Figure:
    """Share of lesions and of videos found, against false positives per image; means over the seeds."""
    found = by_model(metrics_paths, settings)
    colours = model_colours(settings, "detection")
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
    open_frame(figure)
    return figure


def lesion_size(metrics_paths: list[Path], settings: dict) -> Figure:
    """Average precision by the lesion's share of the image, in thirds; means over the seeds.

    Lines: standard deviation over the seeds.
    """
    found = by_model(metrics_paths, settings)
    thirds = next(iter(found.values()))[0]["bins"]["relative"]
    means, spreads = {}, {}
    for (_, model), metrics in found.items():
        values = [[each["bins"]["relative"][third]["ap"] for third in thirds] for each in metrics]
        values = np.array(values, float)
        means[model] = values.mean(axis=0)
        spreads[model] = values.std(axis=0, ddof=1) if len(metrics) > 1 else None
    words = [
        f"{third.capitalize()} third\n{share_of_image(each['from'], each['to'])}\nn = {each['n']:,}"
        for third, each in thirds.items()
    ]
    figure, panel = bars_by_size(means, spreads, words, settings, "detection")
    panel.set_ylabel("AP (IoU 0.5 to 0.95)")
    figure.suptitle(_heading(found, settings))
    return figure


def _heading(found: dict[tuple[str, str], list[dict]], settings: dict) -> str:
    protocol, _ = next(iter(found))
    return heading(protocol, max(len(metrics) for metrics in found.values()), settings)
