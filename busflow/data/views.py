"""Detection views: what a detector trains on and is judged by, one COCO file per split."""

import json
from pathlib import Path

import numpy as np
import pandas as pd

from busflow.errors import BusflowError
from busflow.files import remove_temporaries, write_json
from busflow.labels import LESIONS, SPLITS


def make_views(split: pd.DataFrame, images: pd.DataFrame, annotations: pd.DataFrame, output: Path) -> None:
    """Write ``{train,val,test}.json`` in the COCO schema, of the splits that there are.

    An image's ``id`` counts from 1 in the order of image ids, its ``file_name`` is its image_id. Every box
    of an image has the label that the split gives the image, and is cut at the image's border.

    Args:
        split: ``data/splits/{protocol}/detection.csv``.
        images: ``data/index/images.csv``.
        annotations: ``data/index/annotations.csv``.
        output: folder of the three files.

    Raises:
        BusflowError: an image is not in the index, a box is broken or of an unknown category, or a split
            has no box at all.
    """
    split = with_sizes(split, images)
    boxes = _clipped(annotations.merge(split, on="image_id", suffixes=("_upstream", "")))
    names = [name for name in SPLITS if name in set(split["split"])]
    remove_temporaries(*(output / f"{name}.json" for name in names))
    for name in names:
        view = _coco(split[split["split"] == name], boxes[boxes["split"] == name])
        if not view["annotations"]:
            raise BusflowError(
                f"no image of the {name} split has a box; "
                "check sources.<id>.tasks and data/index/quarantine.csv"
            )
        write_json(output / f"{name}.json", view)


def with_sizes(split: pd.DataFrame, images: pd.DataFrame) -> pd.DataFrame:
    """The split sorted by image_id, with the ``width`` and ``height`` that the index gives each image.

    Raises BusflowError when an image is not in the index.
    """
    sizes = images[["image_id", "width", "height"]]
    sized = split.merge(sizes, on="image_id", how="left").sort_values("image_id")
    for image_id in sized.loc[sized["width"].isna(), "image_id"]:
        raise BusflowError(f"the split names {image_id}, which images.csv lacks; run rule build_index again")
    return sized


def load_view(path: Path) -> dict:
    """Read a view.

    Raises:
        BusflowError: the file is missing, truncated or no COCO file.
    """
    try:
        view = json.loads(path.read_text(encoding="utf-8"))
        if [category["name"] for category in view["categories"]] != list(LESIONS):
            raise ValueError(f"its categories are not {', '.join(LESIONS)}")
        if not (view["images"] and view["annotations"]):
            raise ValueError("it has no images or no boxes")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BusflowError(
            f"{path} is no intact view ({error}); delete it and run the workflow again"
        ) from error
    return view


def _clipped(boxes: pd.DataFrame) -> pd.DataFrame:
    """The boxes as ``left, top, right, bottom`` inside their images."""
    corners = pd.DataFrame(
        {
            "left": boxes["x"].clip(lower=0),
            "top": boxes["y"].clip(lower=0),
            "right": (boxes["x"] + boxes["w"]).clip(upper=boxes["width"]),
            "bottom": (boxes["y"] + boxes["h"]).clip(upper=boxes["height"]),
        }
    )
    size = boxes[["x", "y", "w", "h"]]
    # Comparisons with NaN are false.
    sound = np.isfinite(size).all(axis=1) & (boxes["w"] > 0) & (boxes["h"] > 0)
    inside = (corners["left"] < corners["right"]) & (corners["top"] < corners["bottom"])
    for problem, wrong in (
        ("is not a box", ~sound),
        ("is outside of its image", ~inside),
        ("has a label that is no category", ~boxes["label"].isin(LESIONS)),
    ):
        for _, box in boxes[wrong].iterrows():
            numbers = ", ".join(f"{box[key]:g}" for key in ("x", "y", "w", "h"))
            raise BusflowError(
                f"annotation {box['annotation_id']} ({numbers}; {box['label']}) {problem}; "
                "run rule build_index again"
            )
    return boxes.join(corners)


def _coco(images: pd.DataFrame, boxes: pd.DataFrame) -> dict:
    ids = {image_id: number for number, image_id in enumerate(images["image_id"], start=1)}
    boxes = boxes.sort_values(["image_id", "annotation_id"])
    return {
        "images": [
            {
                "id": ids[row.image_id],
                "file_name": row.image_id,
                "width": int(row.width),
                "height": int(row.height),
            }
            for row in images.itertuples()
        ],
        "categories": [{"id": k, "name": name} for k, name in enumerate(LESIONS, start=1)],
        "annotations": [
            {
                "id": number,
                "image_id": ids[row.image_id],
                "category_id": LESIONS.index(row.label) + 1,
                "bbox": [float(v) for v in (row.left, row.top, row.right - row.left, row.bottom - row.top)],
                "area": float((row.right - row.left) * (row.bottom - row.top)),
                "iscrowd": 0,
            }
            for number, row in enumerate(boxes.itertuples(), start=1)
        ],
    }
