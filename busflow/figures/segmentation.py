"""Pictures of the segmenters' results: how Dice is spread over the images, and by the size of the lesion."""

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

from busflow.figures.sizes import bars_by_size, share_of_image
from busflow.figures.style import INK, heading, legend_below, model_colours, open_frame
from busflow.labels import CLASS_COLOURS, LESIONS
from busflow.metrics.uncertainty import Estimate
from busflow.tables.leading import ends
from busflow.tables.overlap import (
    THIRDS,
    Metrics,
    comparable,
    dice_per_image,
    mean_dice,
    models_of,
    protocols_of,
    third_bounds,
    thirds,
)


def segmentation_dice(metrics_paths: list[Path], settings: dict) -> Figure:
    """Dice of each test image by model, one panel a class; lesion against background, one protocol.

    Over several seeds an image's Dice is their mean. Boxes span the quartiles, whiskers all images.
    """
    found = comparable(metrics_paths, settings)
    protocol = protocols_of(found)[0]
    table, models = dice_per_image(found, protocol), models_of(found, protocol)
    colours = model_colours(settings, "segmentation")
    size = (9, 0.5 * len(models) + 1.6)
    figure, axes = plt.subplots(1, len(LESIONS), figsize=size, sharex=True, sharey=True)
    for panel, lesion in zip(axes, LESIONS, strict=True):
        part = table[table["label"] == lesion]
        scatter = np.random.default_rng(0).uniform(-0.3, 0.3, len(part))
        for y, model in enumerate(models):
            if part.empty:
                break
            dice = part[model].to_numpy()
            style = {"color": colours[model], "alpha": 0.7, "s": 11, "linewidths": 0}
            panel.scatter(dice, y + scatter, **style)
            panel.boxplot(
                dice,
                positions=[y],
                orientation="horizontal",
                widths=0.62,
                whis=(0, 100),
                showcaps=False,
                medianprops={"color": INK, "lw": 1.8},
                boxprops={"color": INK, "lw": 0.9},
                whiskerprops={"color": INK, "lw": 0.9},
            )
            panel.scatter(dice.mean(), y, marker="D", s=26, color=colours[model], ec=INK, lw=0.9, zorder=4)
        panel.set_title(f"{lesion.capitalize()} (n = {len(part):,})", color=CLASS_COLOURS[lesion])
        panel.set(xlabel="Dice of an image", xlim=(-0.02, 1.02))
        panel.grid(axis="y", visible=False)
    axes[0].plot([], [], color=INK, lw=1.8, label="median")
    axes[0].scatter([], [], marker="D", s=26, color="white", ec=INK, lw=0.9, label="mean")
    axes[0].scatter([], [], s=11, color=INK, alpha=0.7, linewidths=0, label="an image")
    legend_below(figure, axes[:1], columns=3)
    axes[0].set_yticks(range(len(models)), [settings["models"]["segmentation"][m]["label"] for m in models])
    axes[0].set_ylim(len(models) - 0.5, -0.5)
    figure.suptitle(_heading(found, settings))
    open_frame(figure, left=True)
    return figure


def segmentation_sizes(metrics_paths: list[Path], settings: dict) -> Figure:
    """Mean Dice by the lesion's share of the image, in thirds, with 95 % intervals; one protocol.

    Over several seeds an image's Dice is their mean.
    """
    found = comparable(metrics_paths, settings)
    protocol = protocols_of(found)[0]
    table, models = dice_per_image(found, protocol), models_of(found, protocol)
    third, edges = thirds(table["relative_area"]), [0.0, *third_bounds(table["relative_area"]), None]
    nothing = np.full(3, np.nan)
    parts = [mean_dice(table[third == k], models) for k in range(len(THIRDS))]
    values = [[_with_ends(part[model]) if part else nothing for part in parts] for model in models]
    mean, low, high = np.moveaxis(np.array(values), -1, 0)
    words = [
        f"{name.capitalize()} third\n{share_of_image(*edges[k : k + 2])}\nn = {np.sum(third == k):,}"
        for k, name in enumerate(THIRDS)
    ]
    spreads = np.stack([mean - low, high - mean], axis=1)  # [models, 2, thirds]
    figure, panel = bars_by_size(
        dict(zip(models, mean, strict=True)),
        dict(zip(models, spreads, strict=True)),
        words,
        settings,
        "segmentation",
    )
    panel.set(ylabel="Mean Dice", ylim=(0, 1))
    figure.suptitle(_heading(found, settings))
    return figure


def _with_ends(estimate: Estimate) -> tuple[float, float, float]:
    return estimate.value, *ends(estimate)


def _heading(found: Metrics, settings: dict) -> str:
    return heading(protocols_of(found)[0], max(len(seeds) for seeds in found.values()), settings)
