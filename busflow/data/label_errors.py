"""Images whose label is probably wrong: those that look like images of another class.

Each image is compared with all others by the correlation of 32 × 32 thumbnails, and its neighbours vote for
their labels. An image whose own label gets little of the vote is probably mislabelled. That share is the
self-confidence by which confident learning ranks labels (Northcutt, Jiang & Chuang 2021, J. Artif. Intell.
Res. 70), with neighbours in place of a network, which would have to be trained once more for each part of the
data.
"""

import numpy as np
import pandas as pd
from sklearn.metrics import pairwise_distances_chunked

from busflow.data.packing import PackedImages
from busflow.data.thumbnails import WORKING_MEMORY_MIB, thumbnails
from busflow.labels import LABELS

NEIGHBOURS = 10
# A copy that was saved anew is about this far (1 - correlation); nearer ones weigh no more.
NEAREST = 1e-3


def find_label_errors(images: pd.DataFrame, packed: PackedImages) -> pd.DataFrame:
    """All images, the least confident label first.

    Neighbours are the ten images that correlate most with an image. Those of its own group with its own label
    do not vote: frames of one video were labelled together, so that they confirm nothing. A vote weighs
    1 / (1 - correlation)² (Shepard 1968): one near copy outweighs all that is only alike. Besides, the
    median total weight of an image's votes is divided among the labels (an m-estimate, Cestnik 1990), so that
    an image without any close neighbour is neither confirmed nor suspected.

    Args:
        images: ``image_id, source, label, group, pixel_sha256``.
        packed: the packed array with all of them.

    Returns:
        ``image_id, source, label``; ``probable_label``, that of the greatest vote; ``confidence``, the share
        (0 ... 1) of the image's own label; ``nearest_image_id``, of the neighbours with the probable label
        the most similar, and ``similarity``, its correlation (empty and NaN where no image is comparable).
        Ties by image_id.

    Raises:
        BusflowError: an image was never packed.
    """
    images = images.sort_values("image_id", ignore_index=True)
    labels = pd.Categorical(images["label"], categories=LABELS).codes.astype(int)
    together = pd.factorize(images["group"] + "\n" + images["label"])[0]
    neighbours, distances = _neighbours(thumbnails(packed, images["pixel_sha256"]), together)
    weights = 1 / np.maximum(distances, NEAREST) ** 2  # 0 where there is no neighbour
    votes = np.stack([(weights * (labels[neighbours] == k)).sum(axis=1) for k in range(len(LABELS))], axis=1)
    typical = max(np.median(weights.sum(axis=1)), np.finfo(float).tiny)
    shares = (votes + typical / len(LABELS)) / (weights.sum(axis=1, keepdims=True) + typical)
    probable = np.where(
        shares.max(axis=1) > shares[np.arange(len(labels)), labels], shares.argmax(axis=1), labels
    )
    # Sorted by distance, so that the first of the right label is the nearest.
    agrees = (labels[neighbours] == probable[:, None]) & np.isfinite(distances)
    first, any_agrees = agrees.argmax(axis=1), agrees.any(axis=1)
    rows = np.arange(len(images))
    nearest = images["image_id"].to_numpy()[neighbours[rows, first]]
    found = images[["image_id", "source", "label"]].assign(
        probable_label=np.array(LABELS)[probable],
        confidence=shares[rows, labels],
        nearest_image_id=np.where(any_agrees, nearest, ""),
        similarity=np.where(any_agrees, 1 - distances[rows, first], np.nan),
    )
    return found.sort_values("confidence", kind="stable", ignore_index=True)


def _neighbours(small: np.ndarray, together: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The nearest images and their cosine distances [N, K], the nearest first; infinite where there is none.

    scikit-learn's NearestNeighbors cannot leave images out, and a video has more frames than there are
    neighbours; so all distances are computed here, some rows at a time.
    """
    count = min(NEIGHBOURS, len(small))

    def nearest(distances: np.ndarray, start: int) -> tuple[np.ndarray, np.ndarray]:
        distances[together[start : start + len(distances), None] == together] = np.inf
        rows = np.argpartition(distances, count - 1, axis=1)[:, :count]
        found = np.take_along_axis(distances, rows, axis=1)
        order = np.argsort(found, axis=1, kind="stable")
        return np.take_along_axis(rows, order, axis=1), np.take_along_axis(found, order, axis=1)

    chunks = pairwise_distances_chunked(
        small, metric="cosine", reduce_func=nearest, working_memory=WORKING_MEMORY_MIB
    )
    rows, distances = zip(*chunks, strict=True)
    return np.concatenate(rows), np.concatenate(distances).astype(float)
