"""Figure 2 (examples), the leakage of the splits, and pairs of images that straddle them."""

import textwrap
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from PIL import Image

from busflow.data.packing import PackedImages
from busflow.errors import BusflowError
from busflow.figures.style import INK, MUTED, legend_below, open_frame, protocol_colours
from busflow.files import read_json
from busflow.labels import CLASS_COLOURS
from busflow.metrics.inputs import read_table
from busflow.units import by_protocol

EXAMPLES = ("benign", "malignant")
LEAKS = {
    "exact_duplicate": "Pixel-identical\nin training",
    "near_duplicate": "Near copy\nin training",
    "same_group": "Same group\nin training",
    "nearest_neighbour_accuracy": "Right by the most\nsimilar training image",
}


def fig2(images_path: Path, settings: dict) -> Figure:
    """A benign and a malignant image of each source, untouched (paper, Fig. 2).

    Which: ``figures.examples.<source>.<class>`` of the config, else the first of that class by image_id.
    """
    images = read_table(images_path, ["image_id", "source", "label", "path"]).set_index("image_id")
    sources = list(settings["sources"])
    figure, axes = plt.subplots(len(EXAMPLES), len(sources), figsize=(3.1 * len(sources), 6.2), squeeze=False)
    for column, source in enumerate(sources):
        for row, label in enumerate(EXAMPLES):
            panel = axes[row, column]
            panel.axis("off")
            panel.set_anchor("NW")
            image_id = _example(images, source, label, settings)
            if image_id is None:
                continue
            with Image.open(images.loc[image_id, "path"]) as image:
                panel.imshow(image.convert("RGB"))
            letter = chr(ord("a") + len(EXAMPLES) * column + row)
            panel.set_title(f"({letter}) {label.capitalize()}", color=CLASS_COLOURS[label], fontsize=9.5)
            at = {"xycoords": "axes fraction", "textcoords": "offset points"}
            panel.annotate(image_id, (0, 0), (0, -9), **at, fontsize=5.5, color=MUTED)
            if row == 0:
                name = settings["sources"][source]["label"]
                panel.annotate(name, (0, 1), (0, 24), **at, fontsize=9.5, weight="bold")
    return figure


def leakage(leakage_paths: list[Path], settings: dict) -> Figure:
    """Share of test images that the training set already knows, and what recognising them alone scores.

    One panel for the whole test set and one per source; one bar per protocol. Reads
    ``.../{protocol}/{task}.json`` as written by ``busflow.metrics.leakage.measure_leakage``.
    """
    measured = {protocol: read_json(path) for protocol, path in by_protocol(leakage_paths, settings).items()}
    colours = protocol_colours(settings)
    used = [s for s in settings["sources"] if any(s in each["sources"] for each in measured.values())]
    figure, axes = plt.subplots(1, 1 + len(used), figsize=(3.1 * (1 + len(used)), 3.0), sharey=True)
    y = np.arange(len(LEAKS))
    height = 0.8 / len(measured)
    for panel, source in zip(axes, [None, *used], strict=True):
        title = "All sources" if source is None else settings["sources"][source]["label"]
        panel.set_title(textwrap.fill(title, 26), fontsize=9)
        for i, (protocol, whole) in enumerate(measured.items()):
            values = whole if source is None else whole["sources"].get(source, {})
            place = y + height * (i - (len(measured) - 1) / 2)
            shares = [100 * values[name] if values.get(name) is not None else np.nan for name in LEAKS]
            label = settings["protocols"][protocol]["label"]
            bars = panel.barh(
                place, np.nan_to_num(shares), 0.92 * height, color=colours[protocol], label=label
            )
            words = ["n/a" if np.isnan(share) else f"{share:.0f}" for share in shares]
            panel.bar_label(bars, words, padding=2, fontsize=8)
            majority = values.get("majority_accuracy")
            if majority is not None:
                edge = (place[-1] - height / 2, place[-1] + height / 2)
                panel.plot([100 * majority] * 2, edge, color=INK, lw=2, label="Always the largest class")
        panel.set(xlim=(0, 112), xlabel="Test images (%)", xticks=range(0, 101, 25))
        panel.grid(axis="y", visible=False)
    axes[0].set_yticks(y, LEAKS.values())
    axes[0].invert_yaxis()
    legend_below(figure, axes, columns=3)
    open_frame(figure, left=True)
    return figure


def straddling(
    leakage_paths: list[Path], images_path: Path, packed_images: Path, packed_index: Path, settings: dict
) -> Figure:
    """The test images that are most like a training image, each beside it; a row per protocol and source.

    Which: ``pairs`` of ``.../{protocol}/{task}.json`` as written by ``busflow.metrics.leakage``.
    """
    rows = [
        (protocol, source, pairs)
        for protocol, path in by_protocol(leakage_paths, settings).items()
        for source, pairs in _by_source(read_json(path)["pairs"]).items()
    ]
    pixels = read_table(images_path, ["image_id", "pixel_sha256"]).set_index("image_id")["pixel_sha256"]
    packed = PackedImages(packed_images, packed_index)
    columns = max((len(pairs) for *_, pairs in rows), default=1)
    figure, axes = plt.subplots(len(rows), columns, figsize=(3.0 * columns, 1.95 * len(rows)), squeeze=False)
    for panels, (protocol, source, pairs) in zip(axes, rows, strict=True):
        labels = settings["protocols"][protocol]["label"], settings["sources"][source]["label"]
        heading = panels[0].annotate(
            " · ".join(labels), (0, 1), (0, 18), xycoords="axes fraction", textcoords="offset points"
        )
        heading.set_in_layout(False)  # or the first column would be as wide as the longest
        for panel in panels:
            panel.axis("off")
        for panel, pair in zip(panels, pairs, strict=False):
            ids = [pair["test"], pair["train"]]
            panel.imshow(np.hstack([packed.images[row] for row in packed.rows(pixels[ids])]), "gray")
            group = "same group" if pair["same_group"] else "other group"
            # Below the room for the heading.
            panel.set_title(f"\n\nr = {pair['correlation']:.3f}, {group}", fontsize=8.5, loc="left")
            panel.text(
                0, -0.04, "\n".join(ids), transform=panel.transAxes, va="top", fontsize=5.5, color=MUTED
            )
    return figure


def _by_source(pairs: list[dict]) -> dict[str, list[dict]]:
    found: dict[str, list[dict]] = {}
    for pair in pairs:
        found.setdefault(pair["source"], []).append(pair)
    return found


def _example(images: pd.DataFrame, source: str, label: str, settings: dict) -> str | None:
    chosen = settings["figures"]["examples"].get(source, {}).get(label)
    if chosen is not None:
        if chosen not in images.index:
            raise BusflowError(
                f"config key figures.examples.{source}.{label}: no image {chosen} in the index"
            )
        return chosen
    candidates = images[(images["source"] == source) & (images["label"] == label)]
    return min(candidates.index, default=None)
