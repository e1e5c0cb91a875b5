"""Models on their own test split and on sources that they never learnt from."""

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from busflow.figures.style import INK, MUTED, legend_below, open_frame
from busflow.tables.external import INTERNAL, SCORES

COLOURS = ("#c77d1e", "#3a7d44", "#6a4c93", "#b5446e")


def external(tables_paths: list[Path], settings: dict) -> Figure:
    """The leading score of each model with its interval, and the drop as a number.

    A column per task (of ``tables_paths``, the CSVs ``external_{task}``), a row per protocol.
    """
    tables = {Path(path).stem.removeprefix("external_"): pd.read_csv(path) for path in tables_paths}
    protocols = list(settings["protocols"])
    lines = max(table["model"].nunique() for table in tables.values())
    tests = max(table["test"].nunique() for table in tables.values())
    height = max(2.2, 0.3 * lines * tests + 1.1)
    figure, axes = plt.subplots(
        len(protocols), len(tables), figsize=(5.2 * len(tables), height * len(protocols)), squeeze=False
    )
    for row, protocol in zip(axes, protocols, strict=True):
        for panel, (task, table) in zip(row, tables.items(), strict=True):
            _panel(panel, task, table[table["protocol"] == protocol], settings)
            panel.set_title(f"{task.capitalize()}, {settings['protocols'][protocol]['label'].lower()}")
    legend_below(figure, axes.flat, columns=3)
    open_frame(figure, left=True)
    return figure


def _panel(panel: Axes, task: str, table: pd.DataFrame, settings: dict) -> None:
    name, score = next(iter(SCORES[task].items()))
    models = list(dict.fromkeys(table["label"]))
    tests = list(dict.fromkeys(table["test"]))
    colours = {INTERNAL: INK} | dict(zip(settings["external"], COLOURS, strict=False))
    for i, test in enumerate(tests):
        part = table[table["test"] == test].set_index("label").reindex(models)
        y = np.arange(len(models)) + 0.7 * ((i + 0.5) / len(tests) - 0.5)
        spread = [part[name] - part[f"{name}_low"], part[f"{name}_high"] - part[name]]
        label = "Own test split" if test == INTERNAL else settings["external"][test]["label"]
        panel.errorbar(
            part[name], y, xerr=spread, fmt="o", color=colours[test], label=label, markersize=5, capsize=2.5
        )
        for height, drop in zip(y, part[f"{name}_drop"], strict=True):
            if not np.isnan(drop):
                panel.annotate(
                    f"{-drop:+z.3f}".replace("-", "−"),
                    (1.02, height),
                    xycoords=("axes fraction", "data"),
                    va="center",
                    fontsize=8,
                    color=colours[test],
                    annotation_clip=False,
                )
    for y in range(1, len(models), 2):
        panel.axhspan(y - 0.5, y + 0.5, color="#f5f5f5", zorder=0)
    panel.set_yticks(range(len(models)), models)
    panel.set_ylim(len(models) - 0.5, -0.5)
    panel.set_xlim(0, 1)
    panel.grid(axis="y", visible=False)
    panel.set_xlabel(score.title)
    panel.annotate("change", (1.02, 1.0), xycoords="axes fraction", va="bottom", fontsize=8, color=MUTED)
