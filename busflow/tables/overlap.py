"""Segmenters on the same images: what may stand in one table, and their Dice image by image."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pandas as pd

from busflow.errors import BusflowError
from busflow.labels import LESIONS
from busflow.metrics.resamples import read_metrics
from busflow.metrics.uncertainty import Estimate, resampled
from busflow.units import units

THIRDS = ("smallest", "middle", "largest")
# Which lesions two segmenters are compared on.
SUBSETS = {
    "lesions": "All lesions",
    "smallest": "Smallest third",
    "malignant": "Malignant",
    "malignant_smallest": "Smallest third of the malignant",
}
SAME_SHARE = 1e-9

Metrics = dict[tuple[str, str], list[dict]]


def comparable(metrics_paths: Iterable[Path], settings: dict) -> Metrics:
    """The metrics of all seeds of each (protocol, model), in config order.

    Raises BusflowError when two units of a protocol were not scored on the same images with the same masks:
    another ``images_sha256``, or a ``lesion_pixel_share`` further off than 1e-9.
    """
    first, grouped = {}, {}
    for unit in units(metrics_paths, settings):
        metrics = read_metrics(unit.path)
        other, path = first.setdefault(unit.protocol, (metrics, unit.path))
        for what, same in (
            ("images_sha256", metrics["images_sha256"] == other["images_sha256"]),
            (
                "lesion_pixel_share",
                abs(metrics["lesion_pixel_share"] - other["lesion_pixel_share"]) <= SAME_SHARE,
            ),
        ):
            if not same:
                raise BusflowError(
                    f"{unit.path}: {what} is {metrics[what]}, but {other[what]} in {path}; what is shown "
                    "together must share its test images and masks: predict and evaluate both again"
                )
        grouped.setdefault((unit.protocol, unit.model), []).append(metrics)
    return grouped


def protocols_of(found: Metrics) -> list[str]:
    """The protocols, in config order."""
    return list(dict.fromkeys(protocol for protocol, _ in found))


def models_of(found: Metrics, protocol: str) -> list[str]:
    """The models of a protocol, in config order."""
    return [model for of, model in found if of == protocol]


def dice_per_image(found: Metrics, protocol: str) -> pd.DataFrame:
    """Dice (lesion against background) of each test image with a lesion, a column per model.

    Over several seeds an image's Dice is their mean. Before the models stand ``image_id, label, group,
    relative_area`` (share of the image, 0..1); sorted by image_id.
    """
    models = models_of(found, protocol)
    first = pd.DataFrame(found[protocol, models[0]][0]["images"]).set_index("image_id")
    table = first[["label", "group", "relative_area"]]
    for model in models:
        seeds = [
            pd.DataFrame(each["images"]).set_index("image_id")["dice"] for each in found[protocol, model]
        ]
        table = table.join(pd.concat(seeds, axis=1).mean(axis=1).rename(model))
    return table[table["label"].isin(LESIONS)].sort_index().reset_index()


def subset_of(table: pd.DataFrame, subset: str) -> pd.DataFrame:
    """The rows of ``dice_per_image`` that belong to one of the SUBSETS."""
    if subset.startswith("malignant"):
        table = table[table["label"] == "malignant"]
    if subset.endswith("smallest"):
        table = table[thirds(table["relative_area"]) == 0]
    return table


def thirds(areas: pd.Series) -> np.ndarray:
    """Number [N] of the third by size, 0 the smallest; equal sizes stay together."""
    return np.searchsorted(third_bounds(areas), areas, side="left")


def third_bounds(areas: pd.Series) -> list[float]:
    """The greatest size of the smallest and of the middle third."""
    return np.quantile(areas, [1 / 3, 2 / 3]).tolist() if len(areas) else [0.0, 0.0]


def mean_dice(table: pd.DataFrame, models: list[str]) -> dict[str, Estimate]:
    """Mean Dice over rows of ``dice_per_image`` by model, all over the same resamples of the groups.

    Empty without rows.
    """
    if table.empty:
        return {}
    groups = table.groupby("group")
    images = groups.size().to_numpy(float)[:, None]
    drawn = resampled(np.column_stack([groups[models].sum(), images]))
    with np.errstate(invalid="ignore"):  # all but the only group: 0/0
        means = drawn[:, :-1] / drawn[:, -1:]
    return {model: Estimate(means[:, k], images) for k, model in enumerate(models)}
