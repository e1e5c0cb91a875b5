"""Figure 7: what the segmenters outline on their best, a median and their worst lesion."""

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from faster_coco_eval.core import mask as rle
from matplotlib import patheffects
from matplotlib.axes import Axes
from matplotlib.colors import to_rgba
from matplotlib.contour import QuadContourSet
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from busflow.data.images import UnusableImage, decode
from busflow.data.masks import load_mask
from busflow.errors import BusflowError
from busflow.figures.style import MUTED
from busflow.files import read_json
from busflow.labels import CLASS_COLOURS, LESIONS
from busflow.metrics.inputs import read_table
from busflow.tables.overlap import comparable, dice_per_image
from busflow.units import units

FILL = 0.45  # opacity of a predicted area
DASHES = (0, (3.5, 2))
HALO = [patheffects.withStroke(linewidth=2.4, foreground="#000000b0")]


def predicted_masks(
    predictions_paths: list[Path], metrics_paths: list[Path], masks: Path, images_path: Path, settings: dict
) -> Figure:
    """The best, a median and the worst test lesion: the truth, and each segmenter's mask (paper, Fig. 7).

    The cases are chosen by Dice (lesion against background), with several models by its mean over them. One
    column a model (its first seed) beside the bare image; all files of one protocol.

    Args:
        predictions_paths: ``predictions.json`` of the models.
        metrics_paths: their ``metrics.json``.
        masks: folder of the protocol's index masks, ``<image_id>.png``.
        images_path: the index of the images, whose files are shown in their original size.
    """
    first = {unit.model: unit for unit in reversed(units(predictions_paths, settings))}
    models = [model for model in settings["models"]["segmentation"] if model in first]
    scored = [
        u.path for u in units(metrics_paths, settings) if u.model in first and u.seed == first[u.model].seed
    ]
    found = comparable(scored, settings)
    protocol = first[models[0]].protocol
    for model in models:
        if (protocol, model) not in found:
            raise BusflowError(f"{first[model].path}: its metrics.json is not given; evaluate it first")
    table = dice_per_image(found, protocol).set_index("image_id")
    images = read_table(images_path, ["image_id", "path"]).set_index("image_id")
    cases = _cases(table, models)
    pictures = {image_id: _grey(images, image_id) for image_id in cases.values()}
    truth = {image_id: _truth(masks, image_id, grey.shape) for image_id, grey in pictures.items()}
    predicted = {model: _predicted(first[model].path, pictures) for model in models}

    heights = [grey.shape[0] / grey.shape[1] for grey in pictures.values()]
    columns = 1 + len(models)
    width = 3.2 if columns <= 3 else 2.0
    figure, axes = plt.subplots(
        len(cases),
        columns,
        figsize=(width * columns, width * sum(heights) + 0.34 * len(cases) + 0.5),
        squeeze=False,
        height_ratios=heights,
    )
    for line, (name, image_id) in enumerate(cases.items()):
        for column, panel in enumerate(axes[line]):
            panel.imshow(pictures[image_id], cmap="gray", vmin=0, vmax=255)
            panel.set(xticks=[], yticks=[])
            panel.spines[:].set_visible(False)
            if column:
                model = models[column - 1]
                _draw(panel, truth[image_id], predicted[model][image_id])
                words = [f"Dice {table.loc[image_id, model]:.3f}", _named(predicted[model][image_id])]
                panel.set_xlabel(": ".join(words), fontsize=7, labelpad=2)
        lesion = table.loc[image_id, "label"]
        axes[line, 0].set_ylabel(f"{name}, {lesion}", color=CLASS_COLOURS[lesion], weight="bold")
        axes[line, 0].set_xlabel(image_id, fontsize=5.5, color=MUTED, loc="left")
    for column, model in enumerate(models, start=1):
        name = settings["models"]["segmentation"][model]["label"]
        axes[0, column].set_title(f"({chr(ord('a') + column - 1)}) {name}", fontsize=8.5)
    axes[0, 0].set_title("Image", fontsize=8.5)
    keys = [Line2D([], [], color=MUTED, ls=DASHES, label="Truth")]
    keys += [
        Patch(
            facecolor=to_rgba(CLASS_COLOURS[each], FILL),
            edgecolor=CLASS_COLOURS[each],
            label=f"Predicted {each}",
        )
        for each in LESIONS
    ]
    figure.legend(handles=keys, loc="upper center", bbox_to_anchor=(0.5, 0), ncols=3)
    figure.suptitle(settings["protocols"][protocol]["label"])
    return figure


def _cases(table: pd.DataFrame, models: list[str]) -> dict[str, str]:
    """The image_ids of the best, the median and the worst lesion; fewer where there are not three."""
    if table.empty:
        raise BusflowError("the test split has no lesion to show in Figure 7; check sources.<id>.tasks")
    order = table[models].mean(axis=1).sort_values(kind="stable").index  # ties by image_id
    cases = {"Best": order[-1], "Median": order[(len(order) - 1) // 2], "Worst": order[0]}
    return {
        name: each for k, (name, each) in enumerate(cases.items()) if each not in list(cases.values())[:k]
    }


def _draw(panel: Axes, truth: np.ndarray, predicted: np.ndarray) -> None:
    """The predicted classes as coloured areas, the outline of the truth above them, dashed."""
    for k, lesion in enumerate(LESIONS, start=1):
        area = predicted == k
        if area.any():
            colour = CLASS_COLOURS[lesion]
            panel.imshow(np.where(area[..., None], to_rgba(colour, FILL), 0.0))
            _outline(panel, area, colors=colour, linewidths=1.1)
    _outline(panel, truth > 0, colors="white", linewidths=1.2, linestyles=[DASHES]).set_path_effects(HALO)


def _named(predicted: np.ndarray) -> str:
    """The predicted classes in words, as not everybody tells the colours apart."""
    return (
        " and ".join(each for k, each in enumerate(LESIONS, start=1) if (predicted == k).any()) or "nothing"
    )


def _outline(panel: Axes, area: np.ndarray, **style) -> QuadContourSet:
    """The border of an area; one that touches the image's edge is closed along it."""
    padded = np.pad(area, 1).astype(float)
    rows, columns = (np.arange(-1, side + 1) for side in area.shape)
    contour = panel.contour(columns, rows, padded, levels=[0.5], **style)
    panel.set(xlim=(-0.5, area.shape[1] - 0.5), ylim=(area.shape[0] - 0.5, -0.5))
    return contour


def _grey(images: pd.DataFrame, image_id: str) -> np.ndarray:
    if image_id not in images.index:
        raise BusflowError(f"the index of images lacks {image_id}; build the index again")
    path = Path(images.loc[image_id, "path"])
    try:
        return decode(path.read_bytes(), path.suffix)
    except (UnusableImage, OSError) as error:
        raise BusflowError(f"{path}: cannot be shown: {error}; fetch and index the data again") from None


def _truth(masks: Path, image_id: str, shape: tuple[int, int]) -> np.ndarray:
    """Index mask [height, width] of an image."""
    mask = load_mask(masks, image_id)
    if mask.shape != shape:
        raise BusflowError(
            f"{masks}: the mask of {image_id} is {mask.shape}, but its image is {shape}; make the masks again"
        )
    return mask


def _predicted(path: Path, pictures: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Predicted index mask [height, width] of each picture, from COCO run lengths."""
    predicted = {image_id: np.zeros(grey.shape, np.uint8) for image_id, grey in pictures.items()}
    for entry in read_json(path):
        mask = predicted.get(entry["image_id"])
        if mask is None:
            continue
        code = entry["segmentation"]
        if tuple(code["size"]) != mask.shape:
            raise BusflowError(
                f"{path}: the mask of {entry['image_id']} is {code['size']}, but the image is "
                f"{list(mask.shape)}; predict again"
            )
        mask[rle.decode(code).astype(bool)] = 1 + LESIONS.index(entry["label"])
    return predicted
