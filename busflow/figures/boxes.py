"""Figures 4 and 5: what the detectors draw on a benign and a malignant test image."""

from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib import patheffects
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from PIL import Image

from busflow.errors import BusflowError
from busflow.figures.style import MUTED
from busflow.labels import CLASS_COLOURS, LESIONS
from busflow.metrics.detection_inputs import BOX, Truth, read_detections, read_truth
from busflow.metrics.froc import SCORE
from busflow.units import units

MOST = 5  # boxes of an image
TRUTH = {"edgecolor": "white", "linestyle": (0, (4, 2)), "linewidth": 1.4, "fill": False}
HALO = [patheffects.withStroke(linewidth=2.6, foreground="#00000090")]


def predicted_boxes(
    predictions_paths: list[Path], split_path: Path, annotations_path: Path, images_path: Path, settings: dict
) -> Figure:
    """A benign and a malignant test image with the truth and each detector's boxes (paper, Figs. 4, 5).

    Shown are the (at most five) boxes with a score of 0.3 or more; where there is none, the best box, faint.
    The images: ``figures.detection_examples.<class>`` of the config, else the first of the class by
    image_id that has a lesion. One column a detector (its first seed), all files of one protocol.
    """
    truth = read_truth(split_path, annotations_path, images_path)
    found = units(predictions_paths, settings)
    first = {unit.model: unit for unit in reversed(found)}
    models = list(dict.fromkeys(unit.model for unit in found))
    rows = {label: _example(truth, label, settings) for label in LESIONS}
    rows = {label: row for label, row in rows.items() if row is not None}
    size = _size(truth.images.loc[list(rows.values())], len(models))
    figure, axes = plt.subplots(len(rows), len(models), figsize=size, squeeze=False)
    for column, model in enumerate(models):
        detections = read_detections(first[model].path, truth)
        for line, (label, row) in enumerate(rows.items()):
            panel = axes[line, column]
            _draw(panel, truth, detections, row)
            letter = chr(ord("a") + len(rows) * column + line)
            name = settings["models"]["detection"][model]["label"]
            panel.set_title(f"({letter}) {name}" if line == 0 else f"({letter})", fontsize=8.5)
            if column == 0:
                panel.set_ylabel(f"{label.capitalize()} lesion", color=CLASS_COLOURS[label], weight="bold")
                panel.set_xlabel(truth.images.loc[row, "image_id"], fontsize=5.5, color=MUTED, loc="left")
    keys = [Line2D([], [], color=MUTED, ls="--", label="Truth")]
    keys += [Line2D([], [], color=CLASS_COLOURS[label], label=f"Predicted {label}") for label in LESIONS]
    figure.legend(handles=keys, loc="upper center", bbox_to_anchor=(0.5, 0), ncols=3)
    figure.suptitle(settings["protocols"][found[0].protocol]["label"])
    return figure


def _draw(panel: Axes, truth: Truth, detections: pd.DataFrame, row: int) -> None:
    with Image.open(truth.images.loc[row, "path"]) as image:
        panel.imshow(image.convert("RGB"))
    for x, y, w, h in truth.boxes.loc[truth.boxes["image"] == row, BOX].to_numpy():
        panel.add_patch(Rectangle((x, y), w, h, **TRUTH, path_effects=HALO))
    boxes = detections[detections["image"] == row]  # best first
    sure = boxes[boxes["score"] >= SCORE]
    if boxes.empty:
        panel.text(0.5, 0.03, "no box", ha="center", color="white", fontsize=8, transform=panel.transAxes)
    alpha = 0.55 if sure.empty else 1.0
    shown = boxes.head(1) if sure.empty else sure.head(MOST)
    for place, box in enumerate(shown.iloc[::-1].itertuples(), start=1 - len(shown)):
        colour = CLASS_COLOURS[box.label]
        panel.add_patch(Rectangle((box.x, box.y), box.w, box.h, ec=colour, lw=1.8, fill=False, alpha=alpha))
        # The best box's score stands above it, the others' below, as boxes on one lesion share their corners.
        best = place == 0
        room_above = box.y > 0.06 * truth.images.loc[row, "height"]
        panel.annotate(
            f"{box.score:.2f}",
            (box.x, box.y) if best else (box.x + box.w, box.y + box.h),
            xytext=(1, 1) if best else (-1, -1),
            textcoords="offset points",
            ha="left" if best else "right",
            va="bottom" if best and room_above else "top",
            fontsize=6.5,
            color="white",
            alpha=alpha,
            bbox={"boxstyle": "square,pad=0.15", "facecolor": colour, "edgecolor": "none", "alpha": alpha},
        )
    panel.set(xticks=[], yticks=[])
    panel.spines[:].set_visible(False)


def _size(images: pd.DataFrame, columns: int) -> tuple[float, float]:
    """Inches of a figure in which the panels fill their rows."""
    width = 4.2 if columns <= 2 else 2.6
    return width * columns, width * (images["height"] / images["width"]).sum() + 0.9


def _example(truth: Truth, label: str, settings: dict) -> int | None:
    """Row of the image to show for the class; None when the test set has no such image."""
    images = truth.images
    chosen = settings["figures"]["detection_examples"].get(label)
    if chosen is not None:
        rows = images.index[(images["image_id"] == chosen) & (images["label"] == label)]
        if rows.empty:
            raise BusflowError(
                f"config key figures.detection_examples.{label}: the test split has no {label} image {chosen}"
            )
        return int(rows[0])
    shown = images[(images["label"] == label) & images.index.isin(truth.boxes["image"])]
    return None if shown.empty else int(shown.index[0])
