"""Packed arrays: right pixels in the right row, and nothing stale or damaged passes unseen."""

import runpy
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from busflow.data.images import pixel_sha256
from busflow.data.packing import PackedImages, letterbox, pack
from busflow.errors import BusflowError

SCRIPT = Path(__file__).parents[2] / "scripts/pack.py"


@pytest.fixture
def index(tmp_path):
    """Six images of various sizes, of which the last is a copy of the first."""
    random = np.random.default_rng(0)
    pixels = [
        random.integers(0, 256, shape, np.uint8) for shape in [(40, 60), (60, 40), (9, 90), (32, 32), (8, 8)]
    ]
    rows = []
    for number, grey in enumerate([*pixels, pixels[0]]):
        path = tmp_path / f"{number}.png"
        cv2.imwrite(str(path), grey)
        rows.append(
            {"image_id": f"busi/benign/{number}", "path": str(path), "pixel_sha256": pixel_sha256(grey)}
        )
    return pd.DataFrame(rows)


@pytest.fixture
def packed(index, tmp_path):
    paths = tmp_path / "packed/images.npy", tmp_path / "packed/index.csv"
    pack(index, 32, 2, *paths)
    return paths


def test_each_distinct_image_has_one_row_sorted_by_hash(index, packed):
    table = pd.read_csv(packed[1])
    assert table["pixel_sha256"].to_list() == sorted(set(index["pixel_sha256"]))
    assert table["row"].to_list() == [0, 1, 2, 3, 4]
    images = np.load(packed[0])
    assert images.shape == (5, 32, 32) and images.dtype == np.uint8


def test_rows_lead_to_the_letterboxed_image(index, packed):
    store = PackedImages(*packed)
    for path, row in zip(index["path"], store.rows(index["pixel_sha256"]), strict=True):
        grey = cv2.imread(path, cv2.IMREAD_GRAYSCALE)
        np.testing.assert_array_equal(store.images[row], letterbox(grey, 32))
    assert isinstance(store.images, np.memmap)


def test_threads_and_order_of_the_index_do_not_change_a_byte(index, packed, tmp_path):
    others = tmp_path / "images.npy", tmp_path / "index.csv"
    pack(index.sample(frac=1, random_state=1), 32, 1, *others)
    for first, second in zip(packed, others, strict=True):
        assert first.read_bytes() == second.read_bytes()


@settings(max_examples=50)
@given(st.integers(1, 200), st.integers(1, 200), st.integers(8, 64))
def test_letterbox_keeps_proportions_and_centres_on_zeros(height, width, size):
    packed = letterbox(np.full((height, width), 255, np.uint8), size)
    rows, columns = packed.any(axis=1), packed.any(axis=0)
    assert packed.shape == (size, size)
    assert max(rows.sum(), columns.sum()) == size
    assert rows.sum() == pytest.approx(max(1, height * size / max(height, width)), abs=0.5)
    assert columns.sum() == pytest.approx(max(1, width * size / max(height, width)), abs=0.5)
    for filled in (rows, columns):
        before, after = np.flatnonzero(filled)[0], np.flatnonzero(filled[::-1])[0]
        assert after - before in (0, 1)
    assert set(np.unique(packed)) <= {0, 255}


def test_letterbox_averages_areas_when_it_shrinks():
    grey = np.random.default_rng(0).integers(0, 256, (64, 64), np.uint8)
    means = grey.reshape(16, 4, 16, 4).mean(axis=(1, 3))
    assert np.abs(letterbox(grey, 16) - means).max() <= 0.5


def test_letterbox_leaves_an_image_of_the_right_size_alone():
    grey = np.random.default_rng(0).integers(0, 256, (16, 16), np.uint8)
    np.testing.assert_array_equal(letterbox(grey, 16), grey)


def test_a_file_changed_after_indexing_is_named_and_nothing_is_written(index, tmp_path):
    changed = index["path"].iloc[2]
    cv2.imwrite(changed, np.zeros((9, 90), np.uint8))
    with pytest.raises(BusflowError, match=f"{changed} has changed since it was indexed"):
        pack(index, 32, 2, tmp_path / "out/images.npy", tmp_path / "out/index.csv")
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.parametrize("damage", ["missing", "truncated"])
def test_a_file_that_cannot_be_read_any_more_is_named(index, tmp_path, damage):
    path = tmp_path / "1.png"
    content = path.read_bytes()
    path.unlink()
    if damage == "truncated":
        path.write_bytes(content[: len(content) // 2])
    with pytest.raises(BusflowError, match=f"{path} cannot be read any more"):
        pack(index, 32, 1, tmp_path / "out/images.npy", tmp_path / "out/index.csv")


def test_an_image_that_was_never_packed_is_named(packed):
    with pytest.raises(BusflowError, match=r"1 images are not in the packed array .*pixel_sha256 abc"):
        PackedImages(*packed).rows(["abc"])


@pytest.mark.parametrize("length", [0, 5, 100, 1000, -1])
def test_a_truncated_array_is_named_with_the_remedy(packed, length):
    packed[0].write_bytes(packed[0].read_bytes()[:length])
    with pytest.raises(BusflowError, match=rf"{packed[0]} .* is missing or damaged .*delete both and run"):
        PackedImages(*packed)


@pytest.mark.parametrize("content", ["", "row,pixel\n0,a\n", "row,pixel_sha256\nx,a\n"])
def test_a_damaged_index_is_named(packed, content):
    packed[1].write_text(content)
    with pytest.raises(BusflowError, match=rf"its index {packed[1]} is missing or damaged"):
        PackedImages(*packed)


def test_an_index_of_another_array_is_refused(packed):
    packed[1].write_text("row,pixel_sha256\n0,a\n")
    with pytest.raises(BusflowError, match=r"has 5 images, its index .* has 1"):
        PackedImages(*packed)


def test_a_missing_array_is_named(packed):
    packed[0].unlink()
    with pytest.raises(BusflowError, match=f"{packed[0]} .* is missing or damaged"):
        PackedImages(*packed)


def test_the_script_packs_the_images_of_the_sources_asked_for(index, packed, tmp_path, monkeypatch):
    foreign = index.iloc[:1].assign(source="other", pixel_sha256="0" * 64, path="nowhere.png")
    pd.concat([index.assign(source="busi"), foreign]).to_csv(tmp_path / "images.csv", index=False)
    out = tmp_path / "script.npy", tmp_path / "script.csv"
    arguments = ["--settings", '{"size": 32, "sources": ["busi"]}', "--threads", "1"]
    arguments += ["--images", str(tmp_path / "images.csv")]
    arguments += ["--output-images", str(out[0]), "--output-index", str(out[1])]
    monkeypatch.setattr("sys.argv", ["pack.py", *arguments])
    runpy.run_path(SCRIPT, run_name="__main__")
    assert out[0].read_bytes() == packed[0].read_bytes() and out[1].read_bytes() == packed[1].read_bytes()


def test_what_a_killed_run_left_is_swept_away_and_nothing_else(index, tmp_path):
    folder = tmp_path / "packed"
    folder.mkdir()
    mine = [".images.npy.ab_d1234.npy", ".index.csv.abcd1234.csv"]
    others = ["notes.npy", ".images.npy.backup", ".other.npy.abcd1234.npy"]
    for name in mine + others:
        (folder / name).write_bytes(b"1")
    pack(index, 32, 1, folder / "images.npy", folder / "index.csv")
    assert {path.name for path in folder.iterdir()} == {"images.npy", "index.csv", *others}
