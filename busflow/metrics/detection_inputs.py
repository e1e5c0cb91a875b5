"""Read the boxes that a detector predicts and those that it should, and refuse what cannot be scored."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from busflow.labels import LESIONS
from busflow.metrics.inputs import read_entries, read_table, read_test_images, refuse

BOX = ["x", "y", "w", "h"]


class Truth(NamedTuple):
    """What the test split holds.

    ``images``, one row per test image, sorted: ``image_id, label, group, video, path, width, height``, where
    the video is the image_id without its last part.
    ``boxes``, one row per lesion: ``image`` (row of ``images``), ``label`` (the split's), ``x, y, w, h``,
    ``area`` (pixels) and ``relative_area`` (share of the image).
    """

    images: pd.DataFrame
    boxes: pd.DataFrame


def read_truth(split_path: Path | str, annotations_path: Path | str, images_path: Path | str) -> Truth:
    """The test split's images and boxes; an image may have none.

    Raises BusflowError when the split has no test image, or an image or a box of it cannot be scored.
    """
    test = read_test_images(split_path)
    sizes = read_table(images_path, ["image_id", "path", "width", "height"])
    images = test.merge(sizes[["image_id", "path", "width", "height"]], on="image_id", how="left")
    rebuild = "build the index again"
    refuse(images, images["width"].isna(), split_path, f"{images_path} lacks the image", rebuild)
    images["video"] = images["image_id"].str.rpartition("/")[0]
    annotations = read_table(annotations_path, ["annotation_id", "image_id", *BOX])
    boxes = annotations[["image_id", *BOX]].merge(images[["image_id", "label"]], on="image_id")
    boxes[BOX] = boxes[BOX].apply(pd.to_numeric, errors="coerce").astype(float)
    values = boxes[BOX].to_numpy()
    fault = ~np.isfinite(values).all(axis=1) | (values[:, 2:] <= 0).any(axis=1)
    refuse(boxes, fault, annotations_path, "a box without a positive size", rebuild)
    mislabelled = ~boxes["label"].isin(LESIONS)
    refuse(boxes, mislabelled, split_path, f"has boxes but is not {' or '.join(LESIONS)}", rebuild)
    return Truth(images, _on_images(boxes, images))


def read_detections(path: Path | str, truth: Truth) -> pd.DataFrame:
    """Read predicted boxes: JSON, a list of ``{"image_id", "label", "bbox": [x, y, w, h], "score"}``.

    The list may be empty. Returns ``image, label, x, y, w, h, score, area, relative_area`` in the order of
    ``truth.images``, each image's boxes by falling score (ties in file order).

    Raises BusflowError that names the file, the image and the fault: another category, a box that is not four
    numbers or has a negative size, a score outside [0, 1], an image that is not in the test split.
    """
    entries = read_entries(path, "detections", ("image_id", "label", "bbox", "score"))
    boxes = entries["bbox"]
    columns = {key: [str(value) for value in entries[key]] for key in ("image_id", "label")}
    table = pd.DataFrame(columns, dtype=object)
    fault = [not isinstance(box, list) or len(box) != len(BOX) for box in boxes]
    refuse(table, fault, path, "a box is not [x, y, w, h]")
    table[BOX] = _numbers([number for box in boxes for number in box]).reshape(-1, len(BOX))
    table["score"] = _numbers(entries["score"])
    values = table[BOX].to_numpy()
    for fault, words in (
        (~table["image_id"].isin(truth.images["image_id"]), "not an image of the test split"),
        (~table["label"].isin(LESIONS), f"a category is not {' or '.join(LESIONS)}"),
        (~np.isfinite(values).all(axis=1), "a box is not four numbers"),
        ((values[:, 2:] < 0).any(axis=1), "a box has a negative size"),
        (~table["score"].between(0, 1), "a score is not in [0, 1]"),
    ):
        refuse(table, fault, path, words)
    table = _on_images(table, truth.images)
    order = np.lexsort((-table["score"], table["image"]))
    return table.iloc[order].reset_index(drop=True)


def _on_images(boxes: pd.DataFrame, images: pd.DataFrame) -> pd.DataFrame:
    """Boxes with the row of their image instead of its id, and with their areas; sorted by image."""
    rows = pd.Index(images["image_id"]).get_indexer(boxes["image_id"])
    boxes = boxes.drop(columns="image_id").assign(image=rows, area=boxes["w"] * boxes["h"])
    pixels = (images["width"] * images["height"]).to_numpy(float)
    boxes["relative_area"] = boxes["area"] / pixels[rows]
    return boxes.sort_values("image", kind="stable", ignore_index=True)


def _numbers(values: list) -> np.ndarray:
    """Floats [N]; whatever is no number becomes NaN."""
    return pd.to_numeric(pd.Series(values, dtype=object), errors="coerce").to_numpy(float)
