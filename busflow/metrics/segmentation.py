"""Metrics of a segmenter from its predicted masks: no torch.

There are two views of the same predictions: three classes (background, benign, malignant), and two, where
both lesions are one. In each, the pixels of the whole test set are pooled, as mmseg does, so that large
lesions weigh most; beside that stand means over images, to which all lesions count alike.

A value that is not defined, such as the accuracy of a class that no image shows, is null, and the number of
images stands beside it: never 0.000.
"""

import hashlib
import math
from pathlib import Path

import numpy as np
import pandas as pd

from busflow.data.masks import CLASSES
from busflow.files import sha256
from busflow.labels import LABELS, LESIONS
from busflow.metrics.detection import BINS, relative_thirds
from busflow.metrics.inputs import read_split
from busflow.metrics.mask_geometry import areas, hd95, intersections, surface, union
from busflow.metrics.relatives import relatives
from busflow.metrics.resamples import intervals
from busflow.metrics.segmentation_inputs import read_segmentations, read_truth
from busflow.metrics.uncertainty import DISTANCE, SHARE, Estimate, mean_of, resampled, sums_of

TWO_CLASSES = (CLASSES[0], "lesion")
TO_TWO_CLASSES = np.array([[1, 0, 0], [0, 1, 1]])


def evaluate(predictions_path: Path | str, split_path: Path | str, masks_folder: Path | str) -> dict:
    """All metrics of one unit of study; shares, IoU, accuracy and Dice range 0..1.

    Ready for JSON, but for the estimates under ``resamples``.

    ``lesion_pixel_share`` and ``images_sha256`` tell whether two units were judged on the same pixels.
    ``images`` are in the two-class view, where an image with neither a true nor a predicted lesion has Dice
    and IoU 1. ``relatives`` are of images with a lesion: see ``busflow.metrics.relatives``.

    Raises BusflowError when the files do not fit together or hold what cannot be scored.
    """
    truth = read_truth(split_path, masks_folder)
    masks = read_segmentations(predictions_path, truth)
    matrices = confusions(truth, masks)
    pooled = matrices.sum(axis=0)
    images = score_images(truth, masks, matrices)
    related = relatives(read_split(split_path), truth["group"])
    estimates = _estimates(images, matrices, related)
    found = _plain(
        {
            "n": len(truth),
            "n_groups": truth["group"].nunique(),
            "n_pixels": pooled.sum(),
            "split_sha256": sha256(split_path),
            "images_sha256": hashlib.sha256("\n".join(sorted(truth["image_id"])).encode()).hexdigest(),
            "labels": list(CLASSES),
            "lesion_pixel_share": pooled[1:].sum() / pooled.sum(),
            "confusion_matrix": pooled.tolist(),
            "views": {
                "three_class": _view(matrices, CLASSES),
                "two_class": _view(two_classes(matrices), TWO_CLASSES),
            },
            "per_image": _per_image(images, matrices),
            "sizes": _sizes(images),
            "coco_sizes": _coco_sizes(images),
            **({"relatives": _of_relatives(images, related)} if related else {}),
            "intervals": intervals(estimates),
            "images": images.drop(columns=["area", "predicted_share"]).to_dict("records"),
        }
    )
    return found | {"resamples": estimates}


def confusions(truth: pd.DataFrame, masks: dict[str, list[dict]]) -> np.ndarray:
    """Pixels of each image by true class (rows) and predicted class, int [N, 3, 3], in the order of CLASSES.

    ``truth`` and ``masks`` are those of `read_truth` and `read_segmentations`; an image shows one true class
    of lesion at most.
    """
    images = np.arange(len(truth))
    true_class = np.array([CLASSES.index(label) if label in CLASSES else 0 for label in truth["label"]])
    matrices = np.zeros((len(truth), len(CLASSES), len(CLASSES)), int)
    matrices[:, 0, 0] = truth["n_pixels"] - truth["area"]
    matrices[images, true_class, 0] += truth["area"]
    for k, label in enumerate(LESIONS, start=1):
        hit = intersections(truth["rle"].to_list(), masks[label])
        for row, pixels in ((true_class, hit), (0, areas(masks[label]) - hit)):
            matrices[images, row, k] += pixels
            matrices[images, row, 0] -= pixels
    return matrices


def two_classes(matrices: np.ndarray) -> np.ndarray:
    """Confusion matrices [..., 2, 2] of background and lesion, from those of three classes [..., 3, 3]."""
    return TO_TWO_CLASSES @ matrices @ TO_TWO_CLASSES.T


def overlap(matrices: np.ndarray) -> dict[str, np.ndarray]:
    """IoU, accuracy and Dice per class [..., K] of confusion matrices [..., K, K].

    Accuracy of a class is mmseg's name for its recall. 0/0 is NaN: the accuracy of a class without true
    pixels, the IoU and Dice of one without predicted pixels either.
    """
    matrices = np.asarray(matrices, dtype=float)
    hits = np.diagonal(matrices, axis1=-2, axis2=-1)
    true, predicted = matrices.sum(axis=-1), matrices.sum(axis=-2)
    with np.errstate(invalid="ignore"):
        return {
            "iou": hits / (true + predicted - hits),
            "acc": hits / true,
            "dice": 2 * hits / (true + predicted),
        }


def summary(matrices: np.ndarray) -> dict[str, np.ndarray]:
    """mIoU, aAcc and mAcc [...] of confusion matrices [..., K, K]: means over the classes where defined."""
    scores = overlap(matrices)
    with np.errstate(invalid="ignore"):  # of no pixels at all
        means = {
            f"m{name}": np.nansum(scores[name], axis=-1) / np.sum(~np.isnan(scores[name]), axis=-1)
            for name in ("iou", "acc")
        }
        return means | {"aacc": np.trace(matrices, axis1=-2, axis2=-1) / np.sum(matrices, axis=(-2, -1))}


def score_images(truth: pd.DataFrame, masks: dict[str, list[dict]], matrices: np.ndarray) -> pd.DataFrame:
    """Lesion against background, a row per image.

    Columns: ``image_id, label, group, dice, iou, hd95_px`` (NaN where a mask is empty), ``relative_area``
    and ``predicted_share`` (of the image's pixels), ``area`` (pixels).
    """
    scores = {name: values[:, 1] for name, values in overlap(two_classes(matrices)).items()}
    return truth[["image_id", "label", "group"]].assign(
        dice=np.nan_to_num(scores["dice"], nan=1.0),
        iou=np.nan_to_num(scores["iou"], nan=1.0),
        hd95_px=surface_distances(truth, masks),
        relative_area=truth["area"] / truth["n_pixels"],
        predicted_share=matrices[:, :, 1:].sum(axis=(1, 2)) / truth["n_pixels"],
        area=truth["area"],
    )


def surface_distances(truth: pd.DataFrame, masks: dict[str, list[dict]]) -> np.ndarray:
    """`hd95` of each image's true and predicted lesion, pixels of the original image; float [N]."""
    distances = np.full(len(truth), np.nan)
    predicted = sum(areas(codes) for codes in masks.values())
    for i in np.flatnonzero((truth["area"] > 0) & (predicted > 0)):
        found = union(*(codes[i] for codes in masks.values()))
        distances[i] = hd95(surface(truth["rle"].iloc[i]), surface(found))
    return distances


def _estimates(
    images: pd.DataFrame, matrices: np.ndarray, related: dict[str, np.ndarray]
) -> dict[str, Estimate]:
    """Every overlap and distance, and what it is in resamples, by its place in ``metrics.json``.

    Four have names of their own: ``two_class_miou``, ``two_class_lesion_iou``, ``three_class_miou``, and
    ``dice_mean`` over images with a lesion.
    """
    group = pd.factorize(images["group"], sort=True)[0]
    sums = sums_of(matrices, group)
    drawn = resampled(sums)
    found = {}
    for view, classes, of_groups, of_drawn in (
        ("two_class", TWO_CLASSES, two_classes(sums), two_classes(drawn)),
        ("three_class", CLASSES, sums, drawn),
    ):
        pixels = of_groups.sum(axis=2)
        present = pixels[:, pixels.sum(axis=0) > 0]
        for name, values in summary(of_drawn).items():
            cases = pixels.sum(axis=1, keepdims=True) if name == "aacc" else present
            found[f"views.{view}.{name}"] = Estimate(values, cases)
        for name, values in overlap(of_drawn).items():
            for k, label in enumerate(classes):
                place = f"views.{view}.per_class.{label}.{name}"
                found[place] = Estimate(values[:, k], pixels[:, [k]])
    found |= {
        "two_class_miou": found.pop("views.two_class.miou"),
        "two_class_lesion_iou": found.pop("views.two_class.per_class.lesion.iou"),
        "three_class_miou": found.pop("views.three_class.miou"),
    }
    for place, chosen in _parts(images, related).items():
        for score, bounds in (("dice", SHARE), ("iou", SHARE), ("hd95_px", DISTANCE)):
            found[f"{place}.{score}"] = mean_of(images[score].where(chosen), group, bounds)
    found["dice_mean"] = found.pop("per_image.lesion.dice")
    return found


def _parts(images: pd.DataFrame, related: dict[str, np.ndarray]) -> dict[str, pd.Series]:
    """Which images (bool [N]) the means over images are about, by their place in ``metrics.json``."""
    lesions = images["relative_area"] > 0
    thirds, pixels = relative_thirds(images[lesions]), BINS["coco"]
    return {
        "per_image.lesion": images["label"].isin(LESIONS),
        **{f"per_image.{label}": images["label"] == label for label in LESIONS},
        **{
            f"sizes.{size}": lesions & images["relative_area"].between(*bounds)
            for size, bounds in thirds.items()
        },
        **{
            f"coco_sizes.{size}": lesions & images["area"].between(*bounds, inclusive="left")
            for size, bounds in pixels.items()
        },
        **{f"relatives.{name}": lesions & here for name, here in related.items()},
    }


def _view(matrices: np.ndarray, classes: tuple[str, ...]) -> dict:
    """The pooled values of one view from its images' matrices."""
    pooled, true = matrices.sum(axis=0), matrices.sum(axis=2)
    columns = {**overlap(pooled), "n_pixels": true.sum(axis=0), "n_images": (true > 0).sum(axis=0)}
    per_class = {
        label: {name: values[k] for name, values in columns.items()} for k, label in enumerate(classes)
    }
    return {**summary(pooled), "per_class": per_class}


def _per_image(images: pd.DataFrame, matrices: np.ndarray) -> dict:
    """Means over images with a lesion and over normals, and the Dice of the right class."""
    by_label = {label: images[images["label"] == label] for label in LABELS}
    lesions, normals = pd.concat([by_label[label] for label in LESIONS]), by_label["normal"]
    of_class = overlap(matrices)["dice"]
    return {
        **{
            name: {**_scores(part), "n_missed": (part["predicted_share"] == 0).sum()}
            for name, part in [("lesion", lesions), *((label, by_label[label]) for label in LESIONS)]
        },
        "normal": {
            "n": len(normals),
            "false_positive_images": (normals["predicted_share"] > 0).sum(),
            "false_positive_area": _spread(normals["predicted_share"]),
            "dice": _spread(normals["dice"]),
        },
        "class_dice": {
            label: _spread(pd.Series(of_class[images["label"] == label, k]))
            for k, label in enumerate(LESIONS, start=1)
        },
    }


def _sizes(images: pd.DataFrame) -> dict:
    """Thirds of the lesions by their share of the image; ``bounds`` are the least and the greatest share."""
    lesions = images[images["relative_area"] > 0]
    result = {}
    for size, bounds in relative_thirds(lesions).items():
        part = lesions[lesions["relative_area"].between(*bounds)]
        shares = part["relative_area"]
        result[size] = {**_scores(part), "bounds": [shares.min(), shares.max()]}
    return result


def _coco_sizes(images: pd.DataFrame) -> dict:
    """COCO's sizes by all lesion pixels of an image; a lesion of exactly 32² or 96² is of the larger size."""
    lesions = images[images["relative_area"] > 0]
    return {
        size: _scores(lesions[lesions["area"].between(*bounds, inclusive="left")])
        for size, bounds in BINS["coco"].items()
    }


def _of_relatives(images: pd.DataFrame, related: dict[str, np.ndarray]) -> dict:
    """Images with a lesion that have a relative in training, and those that have none."""
    parts = {name: images[here & (images["relative_area"] > 0)] for name, here in related.items()}
    return {name: {"n_groups": part["group"].nunique(), **_scores(part)} for name, part in parts.items()}


def _scores(images: pd.DataFrame) -> dict:
    return {
        "n": len(images),
        "dice": _spread(images["dice"]),
        "iou": _spread(images["iou"]),
        "hd95_px": {**_spread(images["hd95_px"]), "median": images["hd95_px"].median()},
    }


def _spread(values: pd.Series) -> dict:
    """Mean and standard deviation (of a sample: n - 1) of the defined values, and how many there are."""
    return {"mean": values.mean(), "sd": values.std(), "n": values.count()}


def _plain(value: object) -> object:
    """The same in JSON's types: numbers are Python's own, NaN is null."""
    if isinstance(value, dict):
        return {key: _plain(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_plain(each) for each in value]
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and math.isnan(value) else value
