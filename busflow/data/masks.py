"""Segmentation views: an index mask per image, what a segmenter trains on and is judged by."""

from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from busflow.data.images import UnusableImage, decode, decode_mask
from busflow.data.views import with_sizes
from busflow.errors import BusflowError
from busflow.files import atomic, below
from busflow.labels import LESIONS

CLASSES = ("background", *LESIONS)  # the values of an index mask, and a segmenter's outputs


def make_masks(split: pd.DataFrame, images: pd.DataFrame, annotations: pd.DataFrame, output: Path) -> None:
    """Write ``<image_id>.png`` for every image of the split: see `load_mask`.

    Several masks of an image are united. All its lesions have the label that the split gives the image;
    a normal has an empty mask.

    Args:
        split: ``data/splits/{protocol}/segmentation.csv``.
        images: ``data/index/images.csv``.
        annotations: ``data/index/annotations.csv``; ``mask_path`` is NaN where there is only a box.
        output: folder of the masks.

    Raises:
        BusflowError: an image is not in the index; its id is no name of a file; its masks are missing, of
            another size, not binary, or at odds with its label; or no image of the train split (if there is
            such a split) has one of the two lesion labels. The other splits may lack one: what is not defined
            without it is null in the metrics.
    """
    trained_on = split[split["split"] == "train"]
    for label in LESIONS if len(trained_on) else ():
        if not (trained_on["label"] == label).any():
            raise BusflowError(
                f"no image of the train split is {label}, so that no segmenter can learn it; "
                "check sources.<id>.tasks and data/index/quarantine.csv"
            )
    paths = annotations.dropna(subset="mask_path").groupby("image_id")["mask_path"].agg(list).to_dict()
    for image in with_sizes(split, images).itertuples():
        mask = _united(image, [Path(path) for path in paths.get(image.image_id, [])])
        with atomic(_path(output, image.image_id)) as path:
            Image.fromarray(mask).save(path)


def load_mask(folder: Path, image_id: str) -> np.ndarray:
    """An image's index mask, uint8 [height, width] of the original image: 0, 1 ... are `CLASSES`.

    Raises:
        BusflowError: the id is no name of a file, or the file is missing, damaged or no index mask.
    """
    path = _path(folder, image_id)
    try:
        mask = decode(path.read_bytes(), path.suffix)
        if mask.max() >= len(CLASSES):
            raise UnusableImage(f"it holds the value {mask.max()}, which is no class")
    except (FileNotFoundError, UnusableImage) as error:
        raise BusflowError(
            f"{path} is no intact index mask ({error}); delete {folder} and run the workflow again"
        ) from error
    return mask


def _path(folder: Path, image_id: str) -> Path:
    return below(folder, f"{image_id}.png")


def _united(image: tuple, paths: list[Path]) -> np.ndarray:
    """The index mask of a row of the split with sizes."""
    lesion = np.zeros((int(image.height), int(image.width)), bool)
    for path in paths:
        try:
            lesion |= decode_mask(path, lesion.shape)
        except (FileNotFoundError, UnusableImage) as error:
            raise BusflowError(
                f"{path} cannot be the mask of {image.image_id} ({error}); unpack its archive again"
            ) from error
    if lesion.any() != (image.label in LESIONS):
        names = ", ".join(path.name for path in paths) or "none"
        raise BusflowError(
            f"{image.image_id} is labelled {image.label}, but its masks (files: {names}) show "
            f"{'a' if lesion.any() else 'no'} lesion; run rule build_index again"
        )
    return lesion * np.uint8(CLASSES.index(image.label) if lesion.any() else 0)
