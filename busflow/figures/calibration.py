"""How far a classifier's probabilities can be believed, and what deciding by them would gain."""

from pathlib import Path
from typing import NamedTuple

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from busflow.figures.style import MUTED, heading, legend_below, model_colours, open_frame
from busflow.files import read_json
from busflow.labels import LABELS
from busflow.metrics.calibration import calibrated
from busflow.metrics.inputs import PROBABILITIES, read_predictions
from busflow.metrics.reliability import ECE_BINS
from busflow.units import units

BEFORE, AFTER = "#9aa3ad", "#1f5a94"
THRESHOLDS = np.linspace(0.01, 0.6, 60)  # of the probability of malignancy at which one would act
LEAST_SHOWN = -0.1  # where the axis ends: what is worse is worse than doing nothing


class _Classifier(NamedTuple):
    """The first seed of a model: its test predictions, before and after its temperature, and its ECE."""

    label: str
    table: pd.DataFrame
    probabilities: dict[str, np.ndarray]
    ece: dict[str, float]


def reliability(predictions_paths: list[Path], metrics_paths: list[Path], settings: dict) -> Figure:
    """Share of right predictions against confidence, before and after temperature, one panel a model."""
    # A second and a half, which decision curves need not wait.
    from sklearn.calibration import calibration_curve

    found = _classifiers(predictions_paths, metrics_paths, settings)
    columns = min(4, len(found))
    rows = -(-len(found) // columns)
    figure, axes = plt.subplots(
        rows, columns, figsize=(2.9 * columns, 3 * rows), squeeze=False, sharex=True, sharey=True
    )
    for panel, each in zip(axes.flat, found.values(), strict=False):
        right = (each.table["label"] == each.table["prediction"]).to_numpy()
        panel.plot([0, 1], [0, 1], color=MUTED, lw=1, ls=":")
        for (when, probabilities), colour in zip(each.probabilities.items(), (BEFORE, AFTER), strict=True):
            share, confidence = calibration_curve(right, probabilities.max(axis=1), n_bins=ECE_BINS)
            panel.plot(confidence, share, color=colour, lw=1.4, marker="o", ms=4, label=f"{when} temperature")
        panel.set_title(each.label, fontsize=10)
        ece = " → ".join(f"{value:.3f}" for value in each.ece.values())
        box = {"facecolor": "white", "alpha": 0.8, "lw": 0, "pad": 1}  # curves may pass there
        panel.text(0.97, 0.04, f"ECE {ece}", transform=panel.transAxes, fontsize=8, ha="right", bbox=box)
        panel.set(xlim=(0, 1), ylim=(-0.02, 1.02), aspect="equal")
    for panel in axes.flat[len(found) :]:
        panel.axis("off")
    for panel in axes[:, 0]:
        panel.set_ylabel("Share right")
    for panel in axes[-1]:
        panel.set_xlabel("Confidence")
    legend_below(figure, axes.flat[:1], columns=2)
    figure.suptitle(_heading(found, predictions_paths, settings))
    open_frame(figure)
    return figure


def decision_curves(predictions_paths: list[Path], metrics_paths: list[Path], settings: dict) -> Figure:
    """Net benefit of acting on the probability of malignancy, against its threshold, before and after."""
    found = _classifiers(predictions_paths, metrics_paths, settings)
    colours = model_colours(settings, "classification")
    figure, axes = plt.subplots(1, 2, figsize=(10, 4.4), sharey=True)
    first = next(iter(found.values())).table
    malignant = (first["label"] == "malignant").to_numpy()
    for panel, when in zip(axes, ("before", "after"), strict=True):
        for model, each in found.items():
            scores = each.probabilities[when][:, LABELS.index("malignant")]
            truth = (each.table["label"] == "malignant").to_numpy()
            panel.plot(
                THRESHOLDS,
                net_benefit(truth, scores, THRESHOLDS),
                color=colours[model],
                lw=1.5,
                label=each.label,
            )
        everyone = net_benefit(malignant, np.ones(len(malignant)), THRESHOLDS)
        panel.plot(THRESHOLDS, everyone, color=MUTED, lw=1.2, ls="--", label="all")
        panel.axhline(0, color=MUTED, lw=1.2, ls=":", label="nobody")
        panel.set_title(
            f"{when.capitalize()} temperature ({malignant.sum():,} of {len(malignant):,} malignant)"
        )
        panel.set(xlabel="Threshold of the probability of malignancy", xlim=(0, THRESHOLDS[-1]))
    axes[0].set_ylabel("Net benefit")
    axes[0].set_ylim(LEAST_SHOWN, None)
    legend_below(figure, axes[:1], columns=5)
    figure.suptitle(_heading(found, predictions_paths, settings))
    open_frame(figure)
    return figure


def net_benefit(truth: np.ndarray, scores: np.ndarray, thresholds: np.ndarray) -> np.ndarray:
    """What acting at each threshold gains an image, in true positives [T].

    True positives less false ones, each false one weighed by the odds of the threshold: who acts from a
    probability of 10 % on accepts nine false alarms for a hit. Source: Vickers & Elkin 2006, Med. Decis.
    Making 26(6).

    Args:
        truth: bool [N].
        scores: probabilities [N].
        thresholds: [T], in (0, 1).
    """
    acted = scores[None, :] >= thresholds[:, None]
    hits, alarms = (acted & truth).mean(axis=1), (acted & ~truth).mean(axis=1)
    return hits - alarms * thresholds / (1 - thresholds)


def _classifiers(
    predictions_paths: list[Path], metrics_paths: list[Path], settings: dict
) -> dict[str, _Classifier]:
    """By model, in the order of the config."""
    metrics = {unit[:4]: read_json(unit.path) for unit in units(metrics_paths, settings)}
    found = {}
    for unit in units(predictions_paths, settings):
        if unit.model in found:
            continue
        table, of_test = read_predictions(unit.path), metrics[unit[:4]]
        before = table[PROBABILITIES].to_numpy()
        after = calibrated(before, of_test["calibration"]["temperature"])
        found[unit.model] = _Classifier(
            settings["models"]["classification"][unit.model]["label"],
            table,
            {"before": before, "after": after},
            {when: of_test["calibration"][when]["ece"] for when in ("before", "after")},
        )
    return found


def _heading(found: dict, paths: list[Path], settings: dict) -> str:
    protocol = units(paths, settings)[0].protocol
    first = ", first seed of each model" if len(paths) > len(found) else ""
    return heading(protocol, 1, settings) + first
