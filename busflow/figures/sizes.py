"""Bars by the size of the lesion, one colour a model."""

from collections.abc import Mapping

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from busflow.figures.style import INK, legend_below, model_colours, open_frame


def bars_by_size(
    means: Mapping[str, np.ndarray],
    spreads: Mapping[str, np.ndarray | None],
    sizes: list[str],
    settings: dict,
    task: str,
) -> tuple[Figure, Axes]:
    """A bar per model and size; an undefined mean (NaN) leaves its place empty.

    Args:
        means: [S] of each model, at sizes smallest first.
        spreads: lengths of the lines on its bars, [S] or [2, S] (below, above); None: no lines.
        sizes: what stands below each block of bars.
    """
    colours = model_colours(settings, task)
    width = 0.86 / len(means)
    figure, panel = plt.subplots(figsize=(9, 4))
    for k, (model, values) in enumerate(means.items()):
        x = np.arange(len(sizes)) + width * (k - (len(means) - 1) / 2)
        name = settings["models"][task][model]["label"]
        panel.bar(x, values, 0.92 * width, color=colours[model], label=name)
        panel.errorbar(x, values, yerr=spreads[model], fmt="none", ecolor=INK, lw=1)
    panel.set_xticks(range(len(sizes)), sizes)
    panel.set_ylim(0, None)
    panel.grid(axis="x", visible=False)
    legend_below(figure, [panel], columns=4)
    open_frame(figure)
    return figure, panel


def share_of_image(low: float, high: float | None) -> str:
    """Bounds of a size in words; None is no upper bound."""
    if high is None:
        return f"above {100 * low:.1f} %"
    if low == 0:
        return f"up to {100 * high:.1f} % of the image"
    return f"{100 * low:.1f} to {100 * high:.1f} %"
