"""Read the masks that a segmenter predicts and those that it should, and refuse what cannot be scored.

Masks are COCO's run-length codes (RLE), ``{"size": [height, width], "counts": text}``: most questions about a
mask are answered from its runs, and a whole test set takes a few megabytes.
"""

from pathlib import Path

import numpy as np
import pandas as pd
from faster_coco_eval.core import mask as rle
from faster_coco_eval.mask_api_new_cpp import toUncompressedRLE

from busflow.data.masks import CLASSES, load_mask
from busflow.labels import LABELS, LESIONS
from busflow.metrics.inputs import read_entries, read_test_images, refuse
from busflow.metrics.mask_geometry import areas, intersections


def read_truth(split_path: Path | str, masks_folder: Path | str) -> pd.DataFrame:
    """The test images with their lesions, sorted by image_id.

    Columns: ``image_id, label, group``; ``rle``, the lesion, empty for a normal; ``n_pixels`` of the image
    and ``area`` of the lesion, pixels.

    Raises BusflowError when the split has no test image, or a mask is missing or at odds with the label.
    """
    truth = read_test_images(split_path)
    refuse(
        truth,
        ~truth["label"].isin(LABELS),
        split_path,
        f"label is not one of {', '.join(LABELS)}",
        "make the splits again",
    )
    codes, differs = [], []
    for image in truth.itertuples():
        mask = load_mask(Path(masks_folder), image.image_id)
        shown = {CLASSES[k] for k in np.unique(mask)} & set(LESIONS)
        differs.append(shown != {image.label} & set(LESIONS))
        codes.append(rle.encode((mask > 0).view(np.uint8)))
    refuse(truth, differs, masks_folder, "a mask differs from the split's label", "run the workflow again")
    n_pixels = [int(np.prod(code["size"])) for code in codes]
    return truth.assign(rle=codes, n_pixels=n_pixels, area=areas(codes))


def read_segmentations(path: Path | str, truth: pd.DataFrame) -> dict[str, list[dict]]:
    """Read predicted masks: JSON, a list of ``{"image_id", "label", "segmentation": RLE}``.

    Every image of ``truth`` has one entry for each of the two lesion labels, be it an empty mask.

    Returns:
        The RLEs of each label, in the order of ``truth``.

    Raises:
        BusflowError: names the file, the image and the fault: another image or label, an entry that is
            missing or there twice, an RLE of another size or damaged, a pixel that is both.
    """
    entries = read_entries(path, "segmentations", ("image_id", "label", "segmentation"))
    table = pd.DataFrame(
        {key: [str(value) for value in entries[key]] for key in ("image_id", "label")}, dtype=object
    )
    refuse(table, ~table["image_id"].isin(truth["image_id"]), path, "not an image of the test split")
    refuse(table, ~table["label"].isin(LESIONS), path, f"a label is not {' or '.join(LESIONS)}")
    refuse(table, table.duplicated(), path, "an image has more than one mask of a label")
    wanted = pd.MultiIndex.from_product([truth["image_id"], LESIONS], names=["image_id", "label"])
    absent = wanted.difference(pd.MultiIndex.from_frame(table)).to_frame(index=False)
    refuse(absent, np.ones(len(absent)), path, f"a mask of {' or '.join(LESIONS)} is missing")

    sizes = {image.image_id: list(image.rle["size"]) for image in truth.itertuples()}
    of_each = [sizes[image_id] for image_id in table["image_id"]]
    for words, is_faulty in (
        ("a mask is not of its image's size", _has_other_size),
        ("a mask is no intact run-length code", _is_damaged),
    ):
        refuse(table, list(map(is_faulty, entries["segmentation"], of_each)), path, words)
    codes = pd.Series(entries["segmentation"], pd.MultiIndex.from_frame(table), dtype=object)
    masks = {label: codes.xs(label, level="label")[truth["image_id"]].to_list() for label in LESIONS}
    refuse(truth, intersections(*masks.values()) > 0, path, "a pixel is both benign and malignant")
    return masks


def _has_other_size(code: object, size: list[int]) -> bool:
    return not isinstance(code, dict) or code.get("size") != size


def _is_damaged(code: dict, size: list[int]) -> bool:
    """Whether the runs cannot be read or do not fill the image: such a code stops or misleads the library."""
    try:
        return sum(toUncompressedRLE([code])[0]["counts"]) != np.prod(size)
    except (KeyError, RuntimeError, TypeError, ValueError):
        return True
