"""Images that show the same thing: exact copies and near ones, and the groups they tie together.

Two images are a pair when their pixels are equal, or when their perceptual hashes (pHash: signs of the
lowest 8 × 8 cosine coefficients against their median; Zauner, 2010) differ in few bits and their
thumbnails correlate. The hash tolerates the small shifts that copies cropped twice have, and the
correlation rejects what only has the same layout of light and dark.
"""

import numpy as np
import pandas as pd
import scipy.fft
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

HASH_SIDE = 8
BLOCK = 256


def perceptual_hashes(thumbnails: np.ndarray) -> np.ndarray:
    """64-bit pHash of each thumbnail; uint8 [N, 64, 64] → uint64 [N]."""
    hashes = np.empty(len(thumbnails), np.uint64)
    for start in range(0, len(thumbnails), BLOCK):
        block = thumbnails[start : start + BLOCK].astype(np.float64)
        low = scipy.fft.dctn(block, axes=(1, 2))[:, :HASH_SIDE, :HASH_SIDE].reshape(len(block), -1)
        bits = low > np.median(low, axis=1, keepdims=True)
        hashes[start : start + BLOCK] = np.packbits(bits, axis=1).view(np.uint64).ravel()
    return hashes


def similar_hashes(hashes: np.ndarray, units: np.ndarray, distance: int) -> np.ndarray:
    """Pairs of different units whose hashes differ in at most ``distance`` bits.

    Args:
        hashes: uint64 [N].
        units: int [N]; pairs inside a unit (frames of one video) are skipped.

    Returns:
        int [M, 2], first index below the second, in lexicographic order.
    """
    found = [np.empty((0, 2), np.int64)]
    for start in range(0, len(hashes), BLOCK):
        block = slice(start, start + BLOCK)
        differing = np.bitwise_count(hashes[block, None] ^ hashes[None, start:])
        pairs = np.argwhere(differing <= distance) + start
        first, second = pairs.T
        found.append(pairs[(first < second) & (units[first] != units[second])])
    return np.concatenate(found)


def correlations(thumbnails: np.ndarray, pairs: np.ndarray) -> np.ndarray:
    """Normalised cross-correlation (-1..1) of thumbnails uint8 [N, 64, 64] for index pairs [M, 2].

    A thumbnail without contrast correlates with nothing: 0.
    """
    flat = thumbnails.reshape(len(thumbnails), -1).astype(np.float32)
    flat -= flat.mean(axis=1, keepdims=True)
    flat /= np.maximum(np.linalg.norm(flat, axis=1, keepdims=True), np.finfo(np.float32).tiny)
    result = np.empty(len(pairs), np.float32)
    for start in range(0, len(pairs), BLOCK):
        first, second = pairs[start : start + BLOCK].T
        result[start : start + BLOCK] = np.einsum("ij,ij->i", flat[first], flat[second])
    return result


def find_duplicates(
    images: pd.DataFrame, thumbnails: np.ndarray, hash_distance: int, ncc: float
) -> pd.DataFrame:
    """All duplicate pairs between units, across sources.

    Args:
        images: ``image_id, unit, pixel_sha256``, one row per thumbnail.
        thumbnails: uint8 [N, 64, 64].
        hash_distance: bits (0..64) in which near duplicates' hashes may differ.
        ncc: correlation (0..1) that near duplicates reach at least.

    Returns:
        ``image_a, image_b, kind, ncc``; kind is ``exact`` (equal pixels; ncc 1) or ``near``.
    """
    units, _ = pd.factorize(images["unit"])
    pixels, _ = pd.factorize(images["pixel_sha256"])
    # Equal pixels have equal hashes: exact copies are among these candidates.
    pairs = similar_hashes(perceptual_hashes(thumbnails), units, hash_distance)
    exact = pixels[pairs[:, 0]] == pixels[pairs[:, 1]]
    correlation = np.where(exact, 1, correlations(thumbnails, pairs))
    keep = correlation >= ncc
    ids = images["image_id"].to_numpy()
    return pd.DataFrame(
        {
            "image_a": ids[pairs[keep, 0]],
            "image_b": ids[pairs[keep, 1]],
            "kind": np.where(exact[keep], "exact", "near"),
            "ncc": correlation[keep].round(4),
        }
    )


def groups(images: pd.DataFrame, pairs: pd.DataFrame) -> pd.Series:
    """The independent group of each image: what units, duplicate pairs and known patients tie together.

    Args:
        images: ``image_id, source, unit, patient`` (unique within a source; empty: unknown).
        pairs: ``image_a, image_b``.

    Returns:
        Group names with the index of ``images``; a group bears the name of its first unit.
    """
    rows = pd.Series(np.arange(len(images)), index=images["image_id"])
    known = (images["patient"] != "").to_numpy()
    patients = (images["source"] + "/" + images["patient"])[known]
    first_of_unit = rows.groupby(images["unit"].to_numpy()).transform("min")
    first_of_patient = rows[known].groupby(patients.to_numpy()).transform("min")
    start = np.concatenate([rows, rows[known], rows[pairs["image_a"]]])
    end = np.concatenate([first_of_unit, first_of_patient, rows[pairs["image_b"]]])
    graph = coo_array((np.ones(len(start), bool), (start, end)), shape=(len(images),) * 2)
    _, component = connected_components(graph, directed=False)
    return images["unit"].groupby(component).transform("min")
