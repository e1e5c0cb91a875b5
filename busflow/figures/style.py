"""One look for all figures: theme, colours, labels, and files that are the same bits for the same data."""

import itertools
from collections.abc import Iterable
from pathlib import Path

import matplotlib as mpl

mpl.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from PIL import Image

from busflow.files import atomic

WIDTH_PIXELS = 1200
WIDE_PIXELS = 1600  # of figures with many panels
PRINTED = {"color": "#111111", "marker": "D"}  # a value of the paper
INK, MUTED = "#222222", "#6c757d"
PAPER = 0.8  # seaborn's scale of figures in print, and its sizes in points
SIZES = {
    "axes.linewidth": 1.25,
    "font.size": 12,
    "axes.labelsize": 12,
    "legend.fontsize": 11,
    "legend.title_fontsize": 12,
    "lines.linewidth": 1.5,
    "lines.markersize": 6,
    "patch.linewidth": 1,
    **dict.fromkeys(("xtick.labelsize", "ytick.labelsize"), 11),
    **dict.fromkeys(("xtick.major.size", "ytick.major.size"), 6),
    **dict.fromkeys(("xtick.major.width", "ytick.major.width"), 1.25),
    **dict.fromkeys(("xtick.minor.size", "ytick.minor.size"), 4),
    **dict.fromkeys(("xtick.minor.width", "ytick.minor.width"), 1),
}
_PROTOCOLS = ("#c77d1e", "#1f5a94", "#6a4c93", "#3a7d44", "#b5446e", "#74b0dc", "#7a5230", "#8a8f94")
# Distinct hues where curves cross; blue is ConvNeXt in both, and SegFormer darkens with its size.
_MODELS = {
    "detection": ("#74b0dc", "#1f5a94", "#3a7d44", "#8a8f94", "#d9932f", "#6a4c93", "#b5446e", "#7a5230"),
    "segmentation": ("#74b0dc", "#1f5a94", "#f2c14e", "#e8913a", "#d1603d", "#a23b4a", "#6b2346", "#3a7d44"),
}


def theme() -> None:
    """Set the look; every figure function is called under it (see ``make``)."""
    mpl.rcParams.update(
        {
            "svg.hashsalt": "busflow",
            "figure.constrained_layout.use": True,
            "figure.constrained_layout.h_pad": 0.07,
            "figure.constrained_layout.w_pad": 0.06,
            "axes.edgecolor": "#b0b0b0",
            "axes.labelcolor": INK,
            "axes.titlesize": 10,
            "axes.titleweight": "bold",
            "axes.titlelocation": "left",
            "axes.axisbelow": True,
            "axes.grid": True,
            "figure.titlesize": 11,
            "figure.titleweight": "bold",
            "font.family": "DejaVu Sans",
            "grid.color": "#e6e6e6",
            "text.color": INK,
            "legend.frameon": False,
            "lines.solid_capstyle": "round",
            "patch.edgecolor": "white",
            "patch.force_edgecolor": True,
            "xtick.bottom": False,
            "ytick.left": False,
            **dict.fromkeys(("xtick.color", "ytick.color"), ".15"),
            **{name: PAPER * size for name, size in SIZES.items()},
        }
    )


def open_frame(figure: Figure, left: bool = False) -> None:
    """Take away the axes' frames at the top and the right, and the one at the left if asked to."""
    for axes in figure.axes:
        axes.spines[["top", "right", *(["left"] if left else [])]].set_visible(False)


def model_colours(settings: dict, task: str) -> dict[str, tuple]:
    """A fixed colour per model of a task, in config order; of classifiers light to dark (small to large)."""
    models = list(settings["models"][task])
    if task in _MODELS:
        return dict(zip(models, map(to_rgb, itertools.cycle(_MODELS[task])), strict=False))
    import seaborn as sns  # a second and a half, which the other tasks' figures need not wait

    return dict(zip(models, sns.color_palette("crest", len(models)), strict=True))


def protocol_colours(settings: dict) -> dict[str, str]:
    """A fixed colour per protocol, in config order; beyond eight they come again."""
    return dict(zip(settings["protocols"], itertools.cycle(_PROTOCOLS), strict=False))


def heading(protocol: str, seeds: int, settings: dict, over: str = "mean") -> str:
    """What a figure is about: the protocol, and the number of seeds if there are several."""
    return settings["protocols"][protocol]["label"] + (f", {over} of {seeds} seeds" if seeds > 1 else "")


def legend_below(figure: Figure, axes: Iterable[Axes], columns: int) -> None:
    """One legend under the figure for what all the axes show."""
    shown = {}
    for each in axes:
        handles, labels = each.get_legend_handles_labels()
        shown |= dict(zip(labels, handles, strict=True))
    figure.legend(shown.values(), shown, loc="upper center", bbox_to_anchor=(0.5, 0), ncols=columns)


def legend_of_areas(panel: Axes, title: str) -> None:
    """A legend under one panel, whose lines are named by the area under them, if it has any."""
    if panel.get_legend_handles_labels()[0]:
        panel.legend(
            title=title,
            loc="upper left",
            bbox_to_anchor=(0, -0.14),
            alignment="left",
            borderaxespad=0,
            title_fontproperties={"weight": "bold", "size": 8},
            fontsize=8,
        )


def _shrink(path: Path, dpi: int, has_pictures: bool) -> None:
    """Leave the opacity out, which is full; a drawing without pictures looks the same with 256 colours."""
    with Image.open(path) as image:
        colours = image.convert("RGB")
    if not has_pictures:
        colours = colours.quantize(256, dither=Image.Dither.NONE)
    colours.save(path, dpi=(dpi, dpi))


def save(figure: Figure, paths: Iterable[Path], notice: str | None) -> None:
    """Write the figure to each path (SVG, PNG) with the study's notice below it.

    About 1200 pixels wide, 1600 with many panels. The same figure gives the same bytes: no date, no
    version, fixed element ids.
    """
    figure.draw_without_rendering()
    figure.set_layout_engine("none")  # what follows must not move what is laid out
    for axes in figure.axes:  # the layout's solver is right to the last bits only
        axes.set_position(np.round(axes.get_position(original=True).bounds, 6))
    if notice:
        y = (figure.get_tightbbox().y0 - 0.05) / figure.get_figheight()
        figure.text(0.5, y, notice, ha="center", va="top", fontsize=8, style="italic", color=MUTED)
    padding = 0.1
    width = figure.get_tightbbox().width + 2 * padding
    dpi = min(200, int((WIDTH_PIXELS if width < 10 else WIDE_PIXELS) / width))
    for path in paths:
        metadata = {"Date": None, "Creator": None} if Path(path).suffix == ".svg" else {"Software": None}
        with atomic(path) as temporary:
            figure.savefig(temporary, dpi=dpi, metadata=metadata, bbox_inches="tight", pad_inches=padding)
            if Path(path).suffix == ".png":
                _shrink(temporary, dpi, has_pictures=any(axes.images for axes in figure.axes))
    plt.close(figure)
