import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from busflow.data.images import decode, pixel_sha256, thumbnail
from busflow.data.inspection import read_source
from busflow.errors import BusflowError
from layouts import (
    LESION,
    TRAIN,
    LinLayout,
    busi_layout,
    mask_of,
    read,
    reasons,
    rodrigues_layout,
    save,
)

SCRIPT = Path(__file__).parents[2] / "scripts" / "read_source.py"


@pytest.fixture
def busi(tmp_path) -> Path:
    return busi_layout(tmp_path)


@pytest.fixture
def rodrigues(tmp_path) -> Path:
    return rodrigues_layout(tmp_path)


@pytest.fixture
def lin(tmp_path) -> LinLayout:
    return LinLayout(tmp_path)


def test_image_rows_describe_the_decoded_image(busi):
    images, _, _ = read(busi.parent, "busi")
    path = busi / "benign" / "benign (1).png"
    grey = decode(path.read_bytes(), ".png")
    row = images.iloc[0]
    assert row["image_id"] == "busi/benign/benign (1)" == row["unit"]
    assert (row["source"], row["path"], row["width"], row["height"]) == ("busi", path.as_posix(), 50, 40)
    assert row["pixel_sha256"] == pixel_sha256(grey)
    thumbnails = np.load(busi.parent.parent / "index" / "busi" / "thumbnails.npy")
    assert thumbnails.shape == (6, 64, 64)
    np.testing.assert_array_equal(thumbnails[0], thumbnail(grey))


@pytest.mark.parametrize("mode", ["1", "L", "RGB", "RGBA", "P"])
def test_masks_of_every_colour_mode_are_read_by_their_colour(busi, mode):
    path = busi / "benign" / "benign (1)_mask.png"
    mask = Image.fromarray(mask_of((3, 4, 5, 6))).convert("L").convert(mode)
    if mode == "RGBA":
        mask.putalpha(255)
    mask.save(path)
    _, annotations, quarantine = read(busi.parent, "busi")
    assert quarantine.empty
    assert annotations.iloc[0][["x", "y", "w", "h", "area"]].tolist() == [3, 4, 5, 6, 30]


def test_a_mask_level_of_one_counts_as_lesion(busi):
    save(busi / "benign" / "benign (1)_mask.png", mask_of((3, 4, 5, 6)).astype(np.uint8))
    _, annotations, quarantine = read(busi.parent, "busi")
    assert quarantine.empty
    assert annotations["area"].iloc[0] == 30


def test_images_are_sorted_and_equal_for_any_number_of_threads(lin):
    one = read(lin.raw, "lin", threads=1)
    for table, again in zip(one, read(lin.raw, "lin", threads=4), strict=True):
        pd.testing.assert_frame_equal(table, again)
    assert one[0]["image_id"].is_monotonic_increasing


def test_an_unknown_reader_is_an_error_that_names_the_key(tmp_path):
    with pytest.raises(BusflowError, match=r"sources.mine.reader is 'bussi'.*known are lin, busi, rodrigues"):
        read_source("mine", {"reader": "bussi"}, tmp_path, tmp_path / "out", threads=1)


def test_unusable_images_are_left_out_with_their_masks_and_a_reason(busi):
    (busi / "benign" / "benign (1).png").write_bytes(b"")
    images, annotations, quarantine = read(busi.parent, "busi")
    assert reasons(quarantine, busi) == {
        "benign/benign (1).png": "empty file: it has no bytes",
        "benign/benign (1)_mask.png": "left out with its image: empty file: it has no bytes",
    }
    assert set(quarantine["image_id"]) == {"busi/benign/benign (1)"}
    assert "busi/benign/benign (1)" not in {*images["image_id"], *annotations["image_id"]}
    assert len(np.load(busi.parent.parent / "index" / "busi" / "thumbnails.npy")) == len(images) == 5


def damage(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:60])


SMOOTH_EDGE = np.where(LESION, 255, 0).astype(np.uint8)
SMOOTH_EDGE[5, 10:30] = 128

MASKS = {
    "another size": (
        "benign",
        lambda path: save(path, mask_of((1, 1, 5, 5), width=49)),
        "mask of another size: benign (1)_mask.png is 49 × 40 px, the image 50 × 40 px",
    ),
    "empty": (
        "malignant",
        lambda path: save(path, mask_of()),
        "empty mask: malignant (1)_mask.png shows no lesion",
    ),
    "lesion in normal": (
        "normal",
        lambda path: save(path, LESION),
        "lesion in a normal: normal (1)_mask.png is not empty",
    ),
    "missing": ("benign", Path.unlink, "missing mask: a lesion needs at least one"),
    "three levels": (
        "benign",
        lambda path: save(path, SMOOTH_EDGE),
        "mask not binary: benign (1)_mask.png has 3 grey levels, 0 the lowest",
    ),
    "no background": (
        "benign",
        lambda path: save(path, np.full((40, 50), 255, np.uint8)),
        "mask not binary: benign (1)_mask.png has 1 grey levels, 255 the lowest",
    ),
    "swapped": (
        "benign",
        lambda path: save(path, ~LESION),
        "swapped mask: benign (1)_mask.png marks 85% of the image or all its corners as lesion",
    ),
    "swapped around a large lesion": (
        "malignant",
        lambda path: save(path, ~mask_of((1, 1, 48, 38))),
        "swapped mask: malignant (1)_mask.png marks 9% of the image or all its corners as lesion",
    ),
    "swapped around a lesion in a corner": (
        "benign",
        lambda path: save(path, ~mask_of((0, 0, 20, 15))),
        "swapped mask: benign (1)_mask.png marks 85% of the image or all its corners as lesion",
    ),
    "truncated": ("benign", damage, "unusable mask: benign (1)_mask.png is damaged: "),
}


@pytest.mark.parametrize("case", MASKS)
def test_an_image_whose_mask_is_wrong_is_left_out_with_its_masks(busi, case):
    label, harm, reason = MASKS[case]
    mask = busi / label / f"{label} (1)_mask.png"
    harm(mask)
    images, annotations, quarantine = read(busi.parent, "busi")
    assert set(quarantine["path"]) == {
        path.as_posix() for path in (busi / label / f"{label} (1).png", mask) if path.exists()
    }
    assert quarantine["reason"].str.removeprefix("left out with its image: ").str.startswith(reason).all()
    assert set(quarantine["image_id"]) == {f"busi/{label}/{label} (1)"}
    assert f"busi/{label}/{label} (1)" not in {*images["image_id"], *annotations["image_id"]}
    assert len(images) == 5


@pytest.mark.parametrize(
    "lesion", [mask_of((0, 0, 37, 40)), mask_of((0, 0, 50, 30)), mask_of((0, 11, 50, 29), (0, 0, 1, 1))]
)
def test_a_large_lesion_at_up_to_three_corners_is_one(busi, lesion):
    save(busi / "benign" / "benign (1)_mask.png", lesion)
    _, annotations, quarantine = read(busi.parent, "busi")
    assert quarantine.empty
    assert annotations["area"].iloc[0] == lesion.sum()


@pytest.mark.parametrize("pixels", [np.zeros((40, 50), np.uint8), np.full((40, 50), 255, np.uint8), LESION])
def test_an_image_without_contrast_is_left_out_with_its_masks(busi, pixels):
    save(busi / "benign" / "benign (1).png", pixels)
    images, _, quarantine = read(busi.parent, "busi")
    assert len(images) == 5
    assert (
        quarantine["reason"].str.contains("no ultrasound image: it has [12] grey levels").tolist()
        == [True] * 2
    )
    assert set(quarantine["image_id"]) == {"busi/benign/benign (1)"}


@pytest.mark.parametrize(
    ("key", "values", "reason"),
    [
        (
            "images",
            {"width": 50, "height": 41},
            "size of another frame: annotation 1 of {} is for 50 × 41 px",
        ),
        (
            "images",
            {"width": 40, "height": 50},
            "size of another frame: annotation 1 of {} is for 40 × 50 px",
        ),
        ("images", {"width": 50}, "size of another frame: annotation 1 of {} is for 50 × None px"),
        (
            "annotations",
            {"category_id": 2},
            "contradictory label: annotation 1 of {} is malignant, its frame lies",
        ),
    ],
)
def test_a_box_of_another_frame_or_label_is_left_out_and_its_frame_stays(lin, key, values, reason):
    lin.lists["train"][key][0].update(values)
    lin.write()
    images, annotations, quarantine = read(lin.raw, "lin")
    assert (len(images), len(annotations)) == (9, 5)
    assert quarantine["reason"].str.startswith(reason.format(TRAIN)).tolist() == [True]
    assert quarantine["image_id"].tolist() == [""]


def test_a_box_of_a_frame_of_the_listed_size_is_taken(lin):
    lin.lists["train"]["images"][0].update(width=50, height=40.0)
    lin.write()
    assert len(read(lin.raw, "lin")[1]) == 6


def test_a_name_that_no_file_can_have_does_not_stop_the_source(lin):
    lin.lists["train"]["images"][0]["file_name"] = "\ud800.png"
    lin.write()
    images, annotations, quarantine = read(lin.raw, "lin")
    assert (len(images), len(annotations), len(quarantine)) == (9, 5, 2)
    assert quarantine["reason"].str.contains(r"images\[0\] lacks a proper file_name").any()


def test_a_normal_needs_no_mask(busi):
    (busi / "normal" / "normal (1)_mask.png").unlink()
    images, _, quarantine = read(busi.parent, "busi")
    assert (len(images), len(quarantine)) == (6, 0)


@pytest.mark.parametrize(
    ("bbox", "expected"),
    [
        ([-5, -5, 20, 15], [0, 0, 15, 10]),
        ([40, 30, 20, 15], [40, 30, 10, 10]),
        ([-10, -10, 100, 100], [0, 0, 50, 40]),
        ([0.5, 1.5, 2.25, 3], [0.5, 1.5, 2.25, 3]),
    ],
)
def test_boxes_over_the_border_are_clipped_to_the_frame(lin, bbox, expected):
    lin.lists["train"]["annotations"][0]["bbox"] = bbox
    lin.write()
    _, annotations, quarantine = read(lin.raw, "lin")
    assert quarantine.empty
    assert annotations.iloc[0][["x", "y", "w", "h"]].tolist() == expected
    assert annotations.iloc[0]["area"] == pytest.approx(expected[2] * expected[3])


@pytest.mark.parametrize(
    ("bbox", "reason"),
    [
        (
            [10, 5, -20, 15],
            f"box without area: annotation 1 of {TRAIN} is -20 × 15 px",
        ),
        ([10, 5, 20, 0], f"box without area: annotation 1 of {TRAIN} is 20 × 0 px"),
        (
            [50, 5, 20, 15],
            f"box outside: annotation 1 of {TRAIN} is [50, 5, 20, 15], the",
        ),
        (
            [10, -20, 20, 15],
            f"box outside: annotation 1 of {TRAIN} is [10, -20, 20, 15]",
        ),
        (
            [10, float("nan"), 20, 15],
            f"box without bounds: annotation 1 of {TRAIN} is",
        ),
        (
            [10, 5, float("inf"), 15],
            f"box without bounds: annotation 1 of {TRAIN} is",
        ),
        ([10, 5, 10**400, 15], f"box without bounds: annotation 1 of {TRAIN} is"),
        (
            [10, 5, 20],
            f"broken box: annotation 1 of {TRAIN} is [10, 5, 20], not four",
        ),
        (
            [10, 5, "20", 15],
            f"broken box: annotation 1 of {TRAIN} is [10, 5, '20', 15]",
        ),
    ],
)
def test_an_impossible_box_is_left_out_and_its_frame_stays(lin, bbox, reason):
    lin.lists["train"]["annotations"][0]["bbox"] = bbox
    lin.write()
    images, annotations, quarantine = read(lin.raw, "lin")
    assert (len(images), len(annotations)) == (9, 5)
    row = quarantine.iloc[0]
    assert (len(quarantine), row["image_id"], row["scope"]) == (1, "", "all")
    assert row["path"] == (lin.root / "rawframes/benign/x1a/000000.png").as_posix()
    assert row["reason"].startswith(reason)


def test_the_script_writes_the_tables_and_says_errors_in_one_line(rodrigues, tmp_path):
    command = [sys.executable, SCRIPT, "--source", "rodrigues", "--settings", '{"reader": "rodrigues"}']
    command += ["--output", tmp_path / "out", "--threads", "2", "--raw"]
    subprocess.run([*command, rodrigues.parent], check=True)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "annotations.csv",
        "images.csv",
        "quarantine.csv",
        "thumbnails.npy",
    ]
    failed = subprocess.run([*command, tmp_path / "out"], check=False, capture_output=True, text=True)
    assert failed.returncode == 1
    assert failed.stderr.startswith("read_source.py: error: ")
    assert len(failed.stderr.splitlines()) == 1
