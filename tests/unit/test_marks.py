"""Marks are found where they are drawn, and nowhere else; the step names a bad file."""

from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest

from busflow.data.marks import find_marks, has_marks
from busflow.data.phantoms import phantom
from busflow.errors import BusflowError

LABELS = ("benign", "malignant", "normal")
SEEDS = range(6)


def picture(seed: int) -> np.ndarray:
    """A bare phantom; uint8 [300, 340]."""
    rng = np.random.default_rng([7, seed])
    return phantom(rng, LABELS[seed % 3], (300, 340)).image


def cross(image: np.ndarray, grey: int, width: int) -> np.ndarray:
    return cv2.drawMarker(image.copy(), (120, 150), grey, cv2.MARKER_CROSS, 15, width)


def text(image: np.ndarray, width: int) -> np.ndarray:
    return cv2.putText(image.copy(), "RT 9", (60, 200), cv2.FONT_HERSHEY_SIMPLEX, 0.6, 230, width)


def pictogram(image: np.ndarray) -> np.ndarray:
    return cv2.circle(image.copy(), (250, 240), 22, 230, 1)


def box(image: np.ndarray) -> np.ndarray:
    return cv2.rectangle(image.copy(), (80, 60), (240, 180), 200, 1)


def dotted_line(image: np.ndarray) -> np.ndarray:
    """Short dashes one below the other, as of a steep measuring line."""
    drawn = image.copy()
    for row in range(80, 220, 10):
        drawn[row : row + 6, 170:172] = 230
    return drawn


@pytest.mark.parametrize("seed", SEEDS)
def test_a_bare_phantom_has_no_marks(seed):
    assert not has_marks(picture(seed))


@pytest.mark.parametrize(
    "draw",
    [
        lambda image: cross(image, 230, 1),
        lambda image: cross(image, 230, 3),
        lambda image: text(image, 1),
        lambda image: text(image, 2),
        pictogram,
        box,
        dotted_line,
    ],
    ids=["thin cross", "bold cross", "thin text", "bold text", "pictogram", "box", "dotted line"],
)
@pytest.mark.parametrize("seed", SEEDS)
def test_what_is_drawn_on_a_phantom_is_found(seed, draw):
    assert has_marks(draw(picture(seed)))


@pytest.mark.parametrize("seed", SEEDS)
def test_a_cross_blurred_by_lossy_compression_is_found(seed):
    code = cv2.imencode(".jpg", cross(picture(seed), 230, 3), [cv2.IMWRITE_JPEG_QUALITY, 60])[1]
    assert has_marks(cv2.imdecode(code, cv2.IMREAD_GRAYSCALE))


def test_a_faint_cross_is_found_where_a_faint_bar_is_not():
    flat = np.full((100, 100), 90, np.uint8)
    bar = cv2.line(flat.copy(), (50, 40), (50, 60), 115)
    assert has_marks(cv2.line(bar.copy(), (40, 50), (60, 50), 115))
    assert not has_marks(bar)


def test_the_makers_name_along_the_upper_edge_is_no_mark():
    image = np.full((400, 400), 60, np.uint8)
    named = cv2.putText(image.copy(), "LOGIQ", (4, 20), cv2.FONT_HERSHEY_SIMPLEX, 0.5, 230, 1)
    lower = cv2.putText(image.copy(), "LOGIQ", (4, 50), cv2.FONT_HERSHEY_SIMPLEX, 0.5, 230, 1)
    assert not has_marks(named)
    assert has_marks(lower)


def test_a_bright_echo_and_a_bright_layer_are_no_marks():
    rows, columns = np.mgrid[:200, :200] - 100
    echo = 50 + 200 * np.exp(-(rows**2) / (2 * 1.5**2) - columns**2 / (2 * 2.5**2))
    layer = np.where(abs(rows) < 3, 230, 50)
    assert not has_marks(echo.astype(np.uint8))
    assert not has_marks(layer.astype(np.uint8))


@pytest.mark.parametrize("grey", [0, 128, 255])
@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (9, 1), (2, 3), (4, 1), (1, 4), (8, 8), (300, 400)])
def test_an_image_of_one_grey_level_has_no_marks_whatever_its_size(shape, grey):
    assert not has_marks(np.full(shape, grey, np.uint8))


@pytest.fixture
def index(tmp_path):
    """Four images, in an order that is not that of their names."""
    rows = []
    for number in (3, 1, 2, 0):
        image = picture(number)
        path = tmp_path / f"{number}.png"
        cv2.imwrite(str(path), text(image, 2) if number % 2 else image)
        rows.append({"image_id": f"busi/benign/{number}", "path": str(path)})
    return pd.DataFrame(rows)


def test_each_image_of_the_index_has_a_row_in_its_place(index):
    found = find_marks(index, threads=2)
    assert found["image_id"].to_list() == index["image_id"].to_list()
    assert found["marked"].to_list() == ["true", "true", "false", "false"]


@pytest.mark.parametrize("content", [None, b"", b"no image"])
def test_a_missing_or_damaged_file_is_named(index, content):
    path = index["path"][2]
    if content is None:
        index.loc[2, "path"] = path = path + ".png"
    else:
        Path(path).write_bytes(content)
    with pytest.raises(BusflowError, match=path):
        find_marks(index, threads=2)
