"""How far a test set leaks into the training set.

A random division of video frames leaves a sibling of every test frame in train; a classifier that only
looks up the most similar training image then scores far above what it would on new patients. The share
of such images, and the score of that very classifier, say how much of a result may be recognition.
"""

import cv2
import numpy as np
import pandas as pd
import sklearn
from sklearn.neighbors import KNeighborsClassifier

from busflow.data.packing import PackedImages
from busflow.errors import BusflowError

THUMBNAIL_SIDE = 32
WORKING_MEMORY_MIB = 128


def measure_leakage(
    images: pd.DataFrame, duplicates: pd.DataFrame, split: pd.DataFrame, packed: PackedImages
) -> dict:
    """Measure what of the test set is already in the training set.

    Args:
        images: ``image_id, source, pixel_sha256`` of ``data/index/images.csv``.
        duplicates: ``image_a, image_b`` of ``data/index/duplicates.csv``.
        split: ``image_id, split, label, group``.
        packed: the packed array with all images of the split.

    Returns:
        The measures of the whole test set, and under ``sources`` of each source's part of it:

        * ``n_train, n_test``: images; in ``sources``, of that source;
        * ``exact_duplicate``, ``near_duplicate``, ``same_group``: share (0..1) of the test images of
          which train holds an image with equal pixels, one with equal pixels or a listed duplicate, one
          of the same group (frames of a video are not listed as each other's duplicates);
        * ``nearest_neighbour_accuracy``: share of test images whose label is that of the most similar
          training image of any source, by correlation of 32 × 32 thumbnails;
        * ``majority_accuracy``: the same for always answering the most frequent label in train.

        A share of nothing is None.

    Raises:
        BusflowError: the tables name an image that is not in the index or not in the packed array.
    """
    named = pd.concat([split["image_id"], duplicates["image_a"], duplicates["image_b"]])
    unknown = named[~named.isin(images["image_id"])]
    if len(unknown):
        raise BusflowError(f"images.csv lacks {unknown.iloc[0]}, which the split or duplicates.csv names")
    table = split.merge(images[["image_id", "source", "pixel_sha256"]], on="image_id")
    train, test = (table[table["split"] == name].reset_index(drop=True) for name in ("train", "test"))
    pixels = images.set_index("image_id")["pixel_sha256"]
    first, second = (pixels[duplicates[side]].to_list() for side in ("image_a", "image_b"))
    near = pd.Series(first + second)[pd.Series(second + first).isin(train["pixel_sha256"])]

    test["exact_duplicate"] = test["pixel_sha256"].isin(train["pixel_sha256"])
    test["near_duplicate"] = test["exact_duplicate"] | test["pixel_sha256"].isin(near)
    test["same_group"] = test["group"].isin(train["group"])
    test["nearest_neighbour_accuracy"] = _nearest_labels(train, test, packed) == test["label"]
    return _summary(train, test) | {
        "sources": {
            source: _summary(train[train["source"] == source], test[test["source"] == source])
            for source in sorted(table["source"].unique())
        }
    }


def _nearest_labels(train: pd.DataFrame, test: pd.DataFrame, packed: PackedImages) -> np.ndarray:
    if train.empty or test.empty:
        return np.full(len(test), None)
    classifier = KNeighborsClassifier(n_neighbors=1, metric="cosine")
    classifier.fit(_thumbnails(train, packed), train["label"])
    with sklearn.config_context(working_memory=WORKING_MEMORY_MIB):
        return classifier.predict(_thumbnails(test, packed))


def _thumbnails(table: pd.DataFrame, packed: PackedImages) -> np.ndarray:
    """Zero-mean thumbnails, whose cosine is the correlation; float32 [n, 1024]."""
    size = (THUMBNAIL_SIDE, THUMBNAIL_SIDE)
    rows = packed.rows(table["pixel_sha256"])
    thumbnails = np.stack(
        [cv2.resize(packed.images[row], size, interpolation=cv2.INTER_AREA) for row in rows]
    )
    flat = thumbnails.reshape(len(rows), -1).astype(np.float32)
    return flat - flat.mean(axis=1, keepdims=True)


def _summary(train: pd.DataFrame, test: pd.DataFrame) -> dict:
    shares = ("exact_duplicate", "near_duplicate", "same_group", "nearest_neighbour_accuracy")
    majority = sorted(train["label"].mode())[:1]
    return {
        "n_train": len(train),
        "n_test": len(test),
        **{name: float(test[name].mean()) if len(test) else None for name in shares},
        "majority_accuracy": float((test["label"] == majority[0]).mean()) if majority and len(test) else None,
    }
