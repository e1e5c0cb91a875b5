"""Training curves of any task."""

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

from busflow.figures.style import MUTED, legend_below, open_frame
from busflow.metrics.inputs import read_table
from busflow.units import units

COLUMNS = 4
# Column of the history: label, colour, line, and whether it is a score (below) or a loss (above).
TRAINING = {"train_loss": ("Loss, training", MUTED, "--", False)}
RED, BLUE, GREEN = "#c8553d", "#1f5a94", "#2a9d8f"
LINES = {
    "classification": TRAINING
    | {
        "val_nll": ("Loss, validation", RED, "-", False),
        "val_accuracy": ("Accuracy, validation", BLUE, "-", True),
        "val_macro_f1": ("Macro F1, validation", GREEN, "-", True),
    },
    "detection": TRAINING
    | {
        "val_ap": ("AP, validation", BLUE, "-", True),
        "val_ap50": ("AP50, validation", GREEN, "-", True),
    },
    "segmentation": TRAINING
    | {
        "val_miou": ("mIoU, validation", BLUE, "-", True),
        "val_lesion_iou": ("Lesion IoU, validation", GREEN, "-", True),
    },
}


def curves(history_paths: list[Path], settings: dict) -> Figure:
    """Training curves of one task and protocol: loss above, validation scores below, one column a model."""
    found = units(history_paths, settings)
    task = found[0].task
    models = list(dict.fromkeys(unit.model for unit in found))
    columns = min(len(models), COLUMNS)
    blocks = -(-len(models) // columns)
    figure, axes = plt.subplots(
        2 * blocks, columns, figsize=(max(3.0 * columns, 4), 4.0 * blocks), sharex=True, squeeze=False
    )
    # Detectors minimise different losses, whose values say nothing about each other.
    alike = [row for row in range(2 * blocks) if row % 2 == 1 or task != "detection"]
    for row in alike:
        for column in range(1, columns):
            axes[row, column].sharey(axes[row, 0])
    for unit in found:
        history = read_table(unit.path, ["epoch", *LINES[task]])
        block, column = divmod(models.index(unit.model), columns)
        for name, (label, colour, style, is_score) in LINES[task].items():
            panel = axes[2 * block + is_score, column]
            marker = "o" if len(history) < 8 else None
            panel.plot(
                history["epoch"],
                history[name],
                style,
                color=colour,
                label=label,
                marker=marker,
                markersize=3,
                lw=1.4,
            )
        axes[2 * block, column].set_title(settings["models"][task][unit.model]["label"])
    for position, panel in np.ndenumerate(axes):
        if position[0] // 2 * columns + position[1] >= len(models):
            panel.axis("off")
            continue
        is_score = position[0] % 2 == 1
        if is_score:
            panel.set_ylim(0, 1)
            panel.set_xlabel("Epoch")
        if position[1] == 0:
            panel.set_ylabel("Score" if is_score else "Loss")
        panel.xaxis.get_major_locator().set_params(integer=True, min_n_ticks=1)
        panel.tick_params(labelbottom=is_score, labelleft=position[1] == 0 or position[0] not in alike)
    legend_below(figure, axes[:2, 0], columns=4)
    figure.suptitle(settings["protocols"][found[0].protocol]["label"])
    open_frame(figure)
    return figure
