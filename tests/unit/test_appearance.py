"""Whether an image looks like those that a model was trained on."""

import cv2
import numpy as np
import pytest

from busflow.data.appearance import LOOKED_AT, colourfulness, departures, measure, ranges, remarks
from busflow.data.packing import letterbox

GREY = np.random.default_rng(0).integers(0, 256, (48, 96), dtype=np.uint8)


def test_padding_is_no_part_of_an_image():
    measured = measure(letterbox(GREY, 96), 96, 48)
    assert measured == pytest.approx(
        {"brightness": GREY.mean(), "contrast": GREY.std(), "aspect": 2.0}, rel=1e-9
    )


def test_ranges_are_those_of_the_rows_that_are_asked_for():
    images = np.stack([np.full((32, 32), k, np.uint8) for k in (10, 200, 50)])
    found = ranges(images, np.array([2, 0]), np.array([[32, 32], [64, 32]]))
    assert found == {"brightness": [10, 50], "contrast": [0, 0], "aspect": [1, 2]}


def test_of_many_training_images_the_first_and_last_are_among_those_looked_at():
    n = 5 * LOOKED_AT
    images = np.zeros((n, 8, 8), np.uint8)
    images[0], images[-1] = 7, 9
    assert ranges(images, np.arange(n), np.full((n, 2), 8))["brightness"] == [0, 9]


def test_colourfulness_is_that_of_hasler_and_suesstrunk():
    colours = np.random.default_rng(1).integers(0, 256, (40, 50, 3)).astype(np.uint8)
    red, green, blue = colours.astype(float).reshape(-1, 3).T
    rg, yb = red - green, (red + green) / 2 - blue
    expected = np.sqrt(rg.var() + yb.var()) + 0.3 * np.sqrt(rg.mean() ** 2 + yb.mean() ** 2)
    assert colourfulness(colours) == pytest.approx(expected)
    assert colourfulness(np.repeat(GREY[..., None], 3, axis=2)) == 0


def test_a_photograph_and_a_picture_of_nothing_are_remarked_and_ultrasound_is_not():
    blocks = np.random.default_rng(2).integers(0, 256, (3, 4, 3)).astype(np.uint8)
    assert "colour photograph?" in remarks(GREY, cv2.resize(blocks, (96, 48)))[0]
    assert remarks(np.zeros((9, 9), np.uint8), None)[0].startswith(
        "no ultrasound image: it has 1 grey levels"
    )
    assert remarks(GREY, None) == remarks(GREY, np.repeat(GREY[..., None], 3, axis=2)) == []


@pytest.mark.parametrize(("value", "told"), [(10.0, 0), (7.6, 0), (7.4, 1), (22.4, 0), (22.6, 1)])
def test_a_quarter_of_the_range_is_allowed_beyond_it(value, told):
    known = {"brightness": [10.0, 20.0], "contrast": [1.0, 2.0], "aspect": [1.0, 1.5]}
    assert len(departures({"brightness": value, "contrast": 1.5, "aspect": 1.0}, known)) == told
