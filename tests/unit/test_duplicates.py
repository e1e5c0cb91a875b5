import imagehash
import numpy as np
import pandas as pd
import pytest
from PIL import Image
from scipy.ndimage import gaussian_filter

from busflow.data.duplicates import (
    BLOCK,
    correlations,
    find_duplicates,
    groups,
    perceptual_hashes,
    similar_hashes,
)


def textures(count: int, seed: int = 0) -> np.ndarray:
    noise = np.random.default_rng(seed).standard_normal((count, 64, 64))
    smooth = gaussian_filter(noise, (0, 3, 3), mode="wrap")
    return np.clip(120 + 600 * smooth, 0, 255).astype(np.uint8)


def table(thumbnails: np.ndarray, units: list | None = None) -> pd.DataFrame:
    ids = [f"s/{row:03d}" for row in range(len(thumbnails))]
    pixels = [thumbnail.tobytes() for thumbnail in thumbnails]
    return pd.DataFrame({"image_id": ids, "unit": ids if units is None else units, "pixel_sha256": pixels})


def listed(pairs: pd.DataFrame) -> list[tuple[str, str, str]]:
    return list(pairs[["image_a", "image_b", "kind"]].itertuples(index=False, name=None))


def test_hashes_are_those_of_imagehash():
    thumbnails = textures(BLOCK + 20)
    expected = [
        int(str(imagehash.phash(Image.fromarray(thumbnail), hash_size=8, highfreq_factor=8)), 16)
        for thumbnail in thumbnails
    ]
    assert perceptual_hashes(thumbnails).byteswap().tolist() == expected


def test_hash_pairs_equal_brute_force():
    rng = np.random.default_rng(1)
    hashes = rng.integers(0, 2**64, 40, dtype=np.uint64)
    hashes = np.repeat(hashes, 20) ^ (np.uint64(1) << rng.integers(0, 64, 800, dtype=np.uint64))
    units = rng.integers(0, 400, 800)
    expected = [
        (first, second)
        for first in range(800)
        for second in range(first + 1, 800)
        if units[first] != units[second] and (int(hashes[first]) ^ int(hashes[second])).bit_count() <= 1
    ]
    assert 0 < len(expected) < len(similar_hashes(hashes, units, 2))
    assert list(map(tuple, similar_hashes(hashes, units, 1))) == expected


def test_correlations_are_pearsons():
    thumbnails = textures(30)
    pairs = np.argwhere(np.triu(np.ones((30, 30)), 1))
    expected = np.corrcoef(thumbnails.reshape(30, -1))
    np.testing.assert_allclose(correlations(thumbnails, pairs), expected[tuple(pairs.T)], atol=1e-5)


def test_an_image_without_contrast_correlates_with_nothing():
    thumbnails = np.concatenate([np.full((2, 64, 64), 7, np.uint8), textures(1)])
    assert correlations(thumbnails, np.array([[0, 1], [0, 2]])).tolist() == [0, 0]


def test_exact_and_near_copies_are_found_and_strangers_are_not():
    thumbnails = textures(40)
    thumbnails[11] = thumbnails[3]
    thumbnails[30] = np.clip(thumbnails[5] * 0.8 + 10, 0, 255)  # another gain
    thumbnails[31] = np.roll(thumbnails[6], 1, axis=1)  # cropped one column aside
    pairs = find_duplicates(table(thumbnails), thumbnails, hash_distance=10, ncc=0.9)
    assert listed(pairs) == [
        ("s/003", "s/011", "exact"),
        ("s/005", "s/030", "near"),
        ("s/006", "s/031", "near"),
    ]
    assert pairs["ncc"][0] == 1
    assert pairs["ncc"].between(0.9, 1).all()


def test_equal_pixels_without_contrast_are_exact_copies():
    thumbnails = np.zeros((2, 64, 64), np.uint8)
    assert listed(find_duplicates(table(thumbnails), thumbnails, 10, 0.9)) == [("s/000", "s/001", "exact")]


def test_equal_thumbnails_of_different_images_are_near_copies():
    thumbnails = textures(1).repeat(2, axis=0)
    images = table(thumbnails).assign(pixel_sha256=["a", "b"])
    assert listed(find_duplicates(images, thumbnails, 0, 1 - 1e-6)) == [("s/000", "s/001", "near")]


def test_pairs_inside_a_unit_are_not_listed():
    thumbnails = textures(2).repeat(3, axis=0)
    images = table(thumbnails, units=["v1", "v1", "v2", "w1", "w1", "w1"])
    assert listed(find_duplicates(images, thumbnails, 10, 0.9)) == [
        ("s/000", "s/002", "exact"),
        ("s/001", "s/002", "exact"),
    ]


@pytest.mark.parametrize("count", [1, 2])
def test_few_images_have_no_pairs(count):
    pairs = find_duplicates(table(textures(count)), textures(count), 10, 0.9)
    assert pairs.empty
    assert list(pairs) == ["image_a", "image_b", "kind", "ncc"]


def test_groups_close_units_copies_and_patients_transitively():
    rows = [  # image, source, unit, patient
        ("a0", "s", "a", ""),
        ("a1", "s", "a", ""),
        ("b0", "s", "b", "p"),
        ("c0", "s", "c", "p"),
        ("d0", "s", "d", ""),
        ("e0", "t", "e", "p"),  # another source's patient of the same name
    ]
    images = pd.DataFrame(rows, columns=["image_id", "source", "unit", "patient"], index=range(10, 16))
    pairs = pd.DataFrame([("a1", "c0")], columns=["image_a", "image_b"])
    result = groups(images, pairs)
    assert result.to_dict() == {10: "a", 11: "a", 12: "a", 13: "a", 14: "d", 15: "e"}
