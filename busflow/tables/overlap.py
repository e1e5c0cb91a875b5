"""Segmenters on the same images: what may stand in one table, and how sure a difference of two is."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pandas as pd

from busflow.errors import BusflowError
from busflow.files import read_json
from busflow.labels import LESIONS
from busflow.metrics.uncertainty import cluster_bootstrap
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
# With fewer groups not even a difference of one sign in all of them is significant: 2 / 2**5 > 0.05. A
# bootstrap over so few would feign certainty.
MIN_GROUPS = 6

Metrics = dict[tuple[str, str], list[dict]]


def comparable(metrics_paths: Iterable[Path], settings: dict) -> Metrics:
    """The metrics of all seeds of each (protocol, model), in config order.

    Raises BusflowError when two units of a protocol were not scored on the same images with the same masks:
    another ``images_sha256``, or a ``lesion_pixel_share`` further off than 1e-9.
    """
    first, grouped = {}, {}
    for unit in units(metrics_paths, settings):
        metrics = read_json(unit.path)
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


def mean_dice(table: pd.DataFrame, models: list[str]) -> pd.DataFrame:
    """Mean Dice over rows of ``dice_per_image`` by model: ``mean, low, high`` (NaN where undefined)."""
    weights = {model: {model: 1} for model in models}
    return pd.DataFrame(_contrasts(table, models, weights), index=["mean", "low", "high"]).T


def differences(table: pd.DataFrame, pairs: list[tuple[str, str]]) -> dict[tuple[str, str], list[float]]:
    """Mean Dice of the first of each pair less the second's, and the ends of its 95 % interval.

    Both meet the same resamples of the groups, so what is hard for both does not widen the interval.
    """
    models = list(dict.fromkeys(model for pair in pairs for model in pair))
    return _contrasts(table, models, {(a, b): {a: 1, b: -1} for a, b in pairs})


def _contrasts(table: pd.DataFrame, models: list[str], weights: dict) -> dict[object, list[float]]:
    """Weighted sums of the models' mean Dice, each with its interval: name -> [value, low, high].

    Undefined (no images; the interval of fewer than MIN_GROUPS groups) is NaN.
    """
    if table.empty or not weights:
        return dict.fromkeys(weights, [np.nan] * 3)
    groups = table.groupby("group")
    sums = np.column_stack([groups[models].sum(), groups.size()])  # [G, models, and the count last]
    factors = np.array([[weight.get(model, 0) for model in models] for weight in weights.values()])

    def statistics(sums: np.ndarray) -> dict[object, np.ndarray]:
        return dict(zip(weights, factors @ (sums[..., :-1].T / sums[..., -1].T), strict=True))

    values = statistics(sums.sum(axis=0))
    ends = cluster_bootstrap(sums, statistics) if len(sums) >= MIN_GROUPS else {}
    return {name: [float(value), *ends.get(name, [np.nan] * 2)] for name, value in values.items()}
