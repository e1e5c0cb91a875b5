"""Augmentation: deterministic per sample, and true to what ultrasound allows."""

import pytest
import torch
from torchvision.transforms import v2

from busflow.engine.augmentation import DRAWS, UltrasoundAugmentation, amplify, move
from busflow.models.inputs import to_float, to_network


@pytest.fixture
def images() -> torch.Tensor:
    return torch.rand(6, 1, 32, 32, generator=torch.Generator().manual_seed(0))


def test_movement_by_zero_draws_changes_nothing(images):
    assert torch.allclose(move(images, torch.zeros(6, 5)), images, atol=1e-5)


def test_a_negative_first_draw_mirrors_left_to_right(images):
    draws = torch.zeros(6, 5)
    draws[:, 0] = -1
    assert torch.allclose(move(images, draws), v2.functional.horizontal_flip(images), atol=1e-5)


def test_rotation_agrees_with_torchvision(images):
    draws = torch.zeros(6, 5)
    draws[:, 1] = 1
    expected = v2.functional.rotate(images, 10, interpolation=v2.InterpolationMode.BILINEAR)
    inner = (..., slice(8, 24), slice(8, 24))
    rotated = move(images, draws)[inner]
    other_way = v2.functional.rotate(images, -10, interpolation=v2.InterpolationMode.BILINEAR)[inner]
    assert min((rotated - expected[inner]).abs().max(), (rotated - other_way).abs().max()) < 1e-3


def test_scaling_keeps_the_aspect_ratio():
    square = torch.zeros(1, 1, 64, 64)
    square[..., 24:40, 24:40] = 1
    draws = torch.zeros(1, 5)
    draws[:, 2] = -1
    grown = move(square, draws)[0, 0] > 0.5
    assert grown.sum() > (square > 0.5).sum()
    assert grown.any(0).sum() == grown.any(1).sum()


def test_amplification_keeps_black_black_and_stays_in_range(images):
    images[:, :, :8] = 0
    changed = amplify(images, torch.ones(6, 3))
    assert (changed[:, :, :8] == 0).all()
    assert changed.min() >= 0 and changed.max() <= 1
    assert not torch.equal(changed, images)


def test_a_sample_is_augmented_alike_whatever_its_batch(images):
    augmentation = UltrasoundAugmentation(seed=3, samples=6)
    together = augmentation(images, torch.arange(6))
    backwards = augmentation(images.flip(0), torch.arange(5, -1, -1)).flip(0)
    assert torch.equal(together, backwards)


def test_epochs_and_seeds_augment_differently(images):
    first, other_seed = UltrasoundAugmentation(0, 6), UltrasoundAugmentation(1, 6)
    before = first(images, torch.arange(6))
    assert not torch.equal(before, other_seed(images, torch.arange(6)))
    first.set_epoch(1)
    assert not torch.equal(before, first(images, torch.arange(6)))
    first.set_epoch(0)
    assert torch.equal(before, first(images, torch.arange(6)))


def test_at_no_strength_images_are_mirrored_or_left(images):
    augmented = UltrasoundAugmentation(0, 6, strength=0)(images, torch.arange(6))
    for before, after in zip(images, augmented, strict=True):
        assert torch.allclose(after, before, atol=1e-5) or torch.allclose(after, before.flip(2), atol=1e-5)
    assert not torch.allclose(augmented, images, atol=1e-5)


def test_every_draw_is_used(images):
    """Changing any one of an image's random numbers changes that image."""
    augmentation = UltrasoundAugmentation(0, 6)
    before = augmentation(images, torch.arange(6))
    for k in range(DRAWS):
        changed = UltrasoundAugmentation(0, 6)
        changed.draws[:, k] = -changed.draws[:, k] + 0.01
        assert not torch.allclose(before, changed(images, torch.arange(6)))


def test_network_input_is_three_normalised_channels():
    images = torch.full((2, 1, 4, 4), 255, dtype=torch.uint8)
    out = to_network(to_float(images), (0.5, 0.4, 0.3), (0.5, 0.5, 0.5))
    assert out.shape == (2, 3, 4, 4)
    assert torch.allclose(out[0, :, 0, 0], torch.tensor([1.0, 1.2, 1.4]))
