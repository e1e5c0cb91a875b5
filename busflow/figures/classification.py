"""Figure 3 and the other pictures of the classifiers' results."""

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from sklearn.metrics import roc_auc_score, roc_curve

from busflow.figures.style import (
    INK,
    MUTED,
    PRINTED,
    legend_below,
    legend_of_areas,
    model_colours,
    open_frame,
    protocol_colours,
)
from busflow.labels import CLASS_COLOURS, LABELS
from busflow.metrics.confusion import per_class
from busflow.metrics.inputs import read_predictions
from busflow.units import by_model, units

SHARE = sns.light_palette("#1f5a94", as_cmap=True)
COLUMNS = 4


def fig3(metrics_paths: list[Path], settings: dict) -> Figure:
    """Confusion matrices of the classifiers of one protocol, one panel a model (paper, Fig. 3).

    Over several seeds a panel shows mean counts; its P, R and F1 come from the summed matrices.
    """
    found = by_model(metrics_paths, settings)
    seeds = max(len(metrics) for metrics in found.values())
    protocol, _ = next(iter(found))
    heading = settings["protocols"][protocol]["label"] + (f", mean of {seeds} seeds" if seeds > 1 else "")
    labels = [settings["models"]["classification"][model]["label"] for _, model in found]
    if len(found) == 1:
        figure, axes = plt.subplots(figsize=(5.8, 4.6))
        _matrix(axes, *found.values(), f"{labels[0]}, {heading.lower()}", size=12)
        return figure
    rows, columns = -(-len(found) // COLUMNS), min(len(found), COLUMNS)
    figure, axes = plt.subplots(rows, columns, figsize=(3.3 * columns, 2.8 * rows), squeeze=False)
    for panel in axes.flat:
        panel.axis("off")
    for i, metrics in enumerate(found.values()):
        _matrix(axes.flat[i], metrics, f"({chr(ord('a') + i)}) {labels[i]}", size=9)
    figure.suptitle(heading)
    return figure


def _matrix(axes: Axes, metrics: list[dict], title: str, size: int) -> None:
    """Counts and row percentages in colour, and P, R, F1 of each class (per cent) in a strip beside them."""
    total = sum(np.array(each["confusion_matrix"]) for each in metrics)
    mean = total / len(metrics)
    shares = mean / np.maximum(mean.sum(axis=1, keepdims=True), 1)
    k = len(LABELS)

    def text(x: float, y: float, words: str, smaller: int, **style) -> None:
        axes.text(x, y, words, fontsize=size - smaller, **{"ha": "center", "va": "center"} | style)

    axes.pcolormesh(shares, cmap=SHARE, vmin=0, vmax=1, edgecolors="white", linewidth=2)
    for i, j in np.ndindex(k, k):
        colour = "white" if shares[i, j] > 0.65 else INK
        decimals = 0 if len(metrics) == 1 or mean[i, j] >= 100 else 1
        text(j + 0.5, i + 0.42, f"{mean[i, j]:,.{decimals}f}", 0, weight="bold", color=colour)
        text(j + 0.5, i + 0.76, f"{100 * shares[i, j]:.1f} %", 2.5, color=colour)
    scores = per_class(total)
    for column, (name, short) in enumerate({"precision": "P", "recall": "R", "f1": "F1"}.items()):
        x = k + 0.45 + 0.65 * column
        text(x, -0.18, short, 2, weight="bold", color=MUTED)
        for i, value in enumerate(scores[name]):
            text(x, i + 0.5, "n/a" if np.isnan(value) else f"{100 * value:.1f}", 2)
    for i, label in enumerate(LABELS):
        text(i + 0.5, k + 0.18, label.capitalize(), 2)
        text(-0.18, i + 0.5, label.capitalize(), 2, rotation=90)
    text(k / 2, k + 0.48, "Prediction", 1, color=MUTED)
    text(-0.48, k / 2, "Truth", 1, rotation=90, color=MUTED)
    accuracy, macro_f1 = (np.mean([each[name] for each in metrics]) for name in ("accuracy", "macro_f1"))
    text(0, -0.88, title, 0, ha="left", weight="bold")
    subtitle = f"accuracy {100 * accuracy:.2f} %, macro F1 {100 * macro_f1:.2f} %, n = {metrics[0]['n']:,}"
    text(0, -0.54, subtitle, 2, ha="left", color=MUTED)
    axes.set(xlim=(-0.6, k + 2.05), ylim=(k + 0.6, -1.05), aspect="equal")
    axes.axis("off")


def roc(predictions_paths: list[Path], settings: dict) -> Figure:
    """ROC curves of one protocol, one class against the rest, one panel a class; first seeds."""
    found = units(predictions_paths, settings)
    first = {unit.model: unit for unit in reversed(found)}
    first = {model: first[model] for model in dict.fromkeys(unit.model for unit in found)}
    colours = model_colours(settings, "classification")
    figure, axes = plt.subplots(1, len(LABELS), figsize=(11, 6.2), sharey=True)
    tables = {model: read_predictions(unit.path) for model, unit in first.items()}
    for panel, label in zip(axes, LABELS, strict=True):
        panel.plot([0, 1], [0, 1], ":", color=MUTED, lw=1)
        for model, table in tables.items():
            truth, score = table["label"] == label, table[f"p_{label}"]
            if truth.nunique() < 2:
                continue
            false_positive, true_positive, _ = roc_curve(truth, score)
            name = settings["models"]["classification"][model]["label"]
            area = roc_auc_score(truth, score)
            panel.plot(
                false_positive, true_positive, color=colours[model], label=f"{area:.3f}  {name}", lw=1.5
            )
        n = int((next(iter(tables.values()))["label"] == label).sum())
        panel.set_title(f"{label.capitalize()} (n = {n:,})", color=CLASS_COLOURS[label])
        panel.set(xlabel="False positive rate", xlim=(-0.01, 1.01), ylim=(-0.01, 1.01), aspect="equal")
        legend_of_areas(panel, "AUROC")
    axes[0].set_ylabel("True positive rate")
    figure.suptitle(settings["protocols"][found[0].protocol]["label"])
    open_frame(figure)
    return figure


def summary(table_path: Path, settings: dict) -> Figure:
    """Accuracy and macro F1 with their intervals, per protocol; the printed values if one follows the paper.

    Reads the CSV of the classification table.
    """
    data = pd.read_csv(table_path)
    colours = protocol_colours(settings)
    models = list(dict.fromkeys(data["model"]))
    protocols = list(dict.fromkeys(data["protocol"]))
    figure, axes = plt.subplots(1, 2, figsize=(9, 0.52 * len(models) + 1.7), sharey=True)
    for panel, (name, title) in zip(
        axes, {"accuracy": "Accuracy (%)", "macro_f1": "Macro F1 (%)"}.items(), strict=True
    ):
        for i, protocol in enumerate(protocols):
            part = data[data["protocol"] == protocol].set_index("model").reindex(models)
            y = np.arange(len(models)) + 0.32 * (i - (len(protocols) - 1) / 2)
            value = 100 * part[name]
            spread = [value - 100 * part[f"{name}_low"], 100 * part[f"{name}_high"] - value]
            label = settings["protocols"][protocol]["label"]
            panel.errorbar(
                value,
                y,
                xerr=spread,
                fmt="o",
                color=colours[protocol],
                label=label,
                markersize=5,
                capsize=2.5,
                lw=1.5,
            )
            if name == "accuracy":
                majority = 100 * part["majority"].max()
                panel.axvline(
                    majority, color=colours[protocol], ls=":", lw=1.2, label=f"Largest class, {label.lower()}"
                )
        if f"{name}_paper" in data:  # beside protocols that follow the paper
            panel.scatter(
                100 * data.groupby("model")[f"{name}_paper"].first().reindex(models),
                np.arange(len(models)),
                marker=PRINTED["marker"],
                color=PRINTED["color"],
                s=22,
                zorder=4,
                label="Printed in the paper",
            )
        panel.set_xlabel(title)
        panel.grid(axis="y", visible=False)
    for y in range(1, len(models), 2):
        for panel in axes:
            panel.axhspan(y - 0.5, y + 0.5, color="#f5f5f5", zorder=0)
    labels = data.drop_duplicates("model").set_index("model").loc[models, "label"]
    axes[0].set_yticks(range(len(models)), labels)
    axes[0].set_ylim(len(models) - 0.5, -0.5)
    legend_below(figure, axes[:1], columns=3)
    open_frame(figure, left=True)
    return figure
