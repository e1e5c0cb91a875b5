"""Phantoms have the statistics of ultrasound, and lesions the signs of their class."""

from dataclasses import replace
from itertools import pairwise

import cv2
import numpy as np
import pytest
from scipy import stats

from busflow.data.anatomy import MARGIN, breast
from busflow.data.phantoms import Probe, View, envelope, phantom, scatter, video

SHAPE = (220, 260)
LABELS = ("benign", "malignant", "normal")
PROBE = Probe(frequency=10, focus=20, f_number=3, angles=(0.0,), dynamic_range=55, gain=0, noise=60, fade=0.2)
PITCH = 0.13


def make(label: str, seed: int, **options):
    return phantom(np.random.default_rng([seed, LABELS.index(label)]), label, SHAPE, **options)


def homogeneous(probe: Probe, seed: int = 0) -> np.ndarray:
    shape = (300, 400)
    points = scatter(np.random.default_rng(seed), shape)
    return envelope(points, np.ones(shape), np.zeros(shape), pitch=PITCH, probe=probe, view=View())


def thumbnail(image: np.ndarray) -> np.ndarray:
    small = cv2.resize(image, (64, 64), interpolation=cv2.INTER_AREA).astype(float).ravel()
    small -= small.mean()
    return small / np.linalg.norm(small)


def box(mask: np.ndarray) -> tuple[int, int, int, int]:
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return columns[0], rows[0], columns[-1] - columns[0] + 1, rows[-1] - rows[0] + 1


def test_the_same_seed_gives_the_same_picture_and_another_seed_another():
    first, again, other = make("benign", 1), make("benign", 1), make("benign", 2)
    assert np.array_equal(first.image, again.image)
    assert np.array_equal(first.masks, again.masks)
    assert not np.array_equal(first.image, other.image)


@pytest.mark.parametrize(
    ("label", "lesions", "expected"), [("benign", 1, 1), ("malignant", 2, 2), ("normal", 1, 0)]
)
def test_a_picture_is_grey_bytes_with_one_mask_per_lesion(label, lesions, expected):
    picture = make(label, 3, lesions=lesions)
    assert picture.image.shape == SHAPE
    assert picture.image.dtype == np.uint8
    assert picture.masks.shape == (expected, *SHAPE)
    assert picture.masks.dtype == bool
    assert all(mask.any() for mask in picture.masks)
    assert picture.masks.sum(axis=0).max() <= 1, "lesions do not overlap"
    assert np.array_equal(picture.mask, picture.masks.any(axis=0))


def test_speckle_of_homogeneous_tissue_follows_rayleigh():
    amplitude = homogeneous(PROBE)[20:-20, 20:-20]
    assert np.mean(amplitude**2) == pytest.approx(1, rel=0.05)
    assert amplitude.mean() / amplitude.std() == pytest.approx(1.913, rel=0.1)
    independent = amplitude[::8, ::20].ravel()  # samples more than a resolution cell apart
    assert stats.kstest(independent, stats.rayleigh(scale=np.sqrt(0.5)).cdf).pvalue > 0.01


def test_compounding_of_angles_smooths_speckle():
    single = homogeneous(PROBE)
    compound = homogeneous(replace(PROBE, angles=(-8.0, 0.0, 8.0)))
    assert compound.mean() / compound.std() > 1.3 * single.mean() / single.std()


def test_a_point_scatterer_shows_the_point_spread_function():
    shape, row, column = (300, 201), round(PROBE.focus / PITCH), 100
    point = np.array([[row + 0.5], [column + 0.5], [1.0], [0.0]])
    seen = envelope(point, np.ones(shape), np.zeros(shape), pitch=PITCH, probe=PROBE, view=View())
    assert np.unravel_index(seen.argmax(), shape) == (row, column)
    x = np.arange(shape[1]) - column
    lateral = np.sqrt((seen[row] * x**2).sum() / seen[row].sum()) * PITCH
    wavelength = 1.54 / PROBE.frequency
    assert lateral == pytest.approx(0.5 * wavelength * PROBE.f_number, rel=0.05)


def test_the_beam_is_narrowest_at_the_focus():
    amplitude = homogeneous(PROBE)

    def correlation(depth: float) -> float:
        rows = amplitude[round(depth / PITCH) - 12 : round(depth / PITCH) + 12]
        return np.corrcoef(rows[:, :-3].ravel(), rows[:, 3:].ravel())[0, 1]

    assert correlation(PROBE.focus) < correlation(4) - 0.1
    assert correlation(PROBE.focus) < correlation(36) - 0.1


@pytest.mark.parametrize("label", ["benign", "malignant"])
def test_a_lesion_is_darker_than_what_surrounds_it(label):
    for seed in range(12):
        picture = make(label, seed)
        ring = cv2.dilate(picture.mask.astype(np.uint8), np.ones((25, 25))).astype(bool) & ~picture.mask
        assert picture.image[picture.mask].mean() < picture.image[ring].mean()


def test_benign_lesions_are_wide_and_smooth_malignant_ones_tall_and_spiculated():
    aspect, solidity = {}, {}
    for label in ("benign", "malignant"):
        masks = [breast(np.random.default_rng(seed), label, SHAPE).masks[0] for seed in range(25)]
        aspect[label] = [box(mask)[2] / box(mask)[3] for mask in masks]
        hulls = [cv2.convexHull(np.argwhere(mask).astype(np.int32)) for mask in masks]
        solidity[label] = [mask.sum() / cv2.contourArea(h) for mask, h in zip(masks, hulls, strict=True)]
    assert min(aspect["benign"]) > 1
    assert np.median(aspect["malignant"]) < 1
    assert min(solidity["benign"]) > 0.95
    assert np.median(solidity["malignant"]) < 0.85


def test_behind_benign_lesions_it_is_brighter_and_behind_malignant_ones_darker():
    def behind(label: str, seed: int) -> float:
        """Mean grey under the middle of the lesion less that beside it, at the same depths."""
        picture = make(label, seed)
        x, y, w, h = box(picture.mask)
        band = picture.image[y + h + 4 : y + h + 34].astype(float)
        beside = np.r_[max(x - w, 0) : max(x - 6, 1), min(x + w + 6, SHAPE[1] - 1) : min(x + 2 * w, SHAPE[1])]
        return band[:, x + w // 3 : x + w - w // 3].mean() - band[:, beside].mean()

    assert np.mean([behind("benign", seed) for seed in range(12)]) > 5
    assert np.mean([behind("malignant", seed) for seed in range(12)]) < -15


def test_lesions_come_in_all_three_coco_sizes():
    areas = [breast(np.random.default_rng(seed), "benign", (256, 320)).masks.sum() for seed in range(30)]
    small, large = np.mean(np.array(areas) < 32**2), np.mean(np.array(areas) > 96**2)
    assert 0.02 < small < 0.3
    assert 0.02 < large < 0.4


def test_neighbouring_frames_of_a_video_are_alike_but_differ_and_the_lesion_moves():
    frames = list(video(np.random.default_rng(4), "malignant", SHAPE, frames=10))
    small = [thumbnail(frame.image) for frame in frames]
    assert len(frames) == 10
    assert min(a @ b for a, b in pairwise(small)) > 0.95
    assert all(not np.array_equal(a.image, b.image) for a, b in pairwise(frames))
    columns = [np.argwhere(frame.mask).mean(axis=0)[1] for frame in frames]
    assert 2 < np.ptp(columns) < MARGIN


def test_different_breasts_are_not_near_duplicates():
    small = np.array([thumbnail(make(label, s).image) for label in LABELS for s in range(10)])
    likeness = small @ small.T - 2 * np.eye(len(small))
    assert likeness.max() < 0.9
