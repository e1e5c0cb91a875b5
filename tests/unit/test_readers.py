from pathlib import Path

import pytest

from busflow.errors import BusflowError
from layouts import (
    LESION,
    TRAIN,
    VAL,
    LinLayout,
    busi_layout,
    mask_of,
    picture,
    read,
    reasons,
    rodrigues_layout,
    save,
)


@pytest.fixture
def busi(tmp_path) -> Path:
    return busi_layout(tmp_path)


@pytest.fixture
def rodrigues(tmp_path) -> Path:
    return rodrigues_layout(tmp_path)


@pytest.fixture
def lin(tmp_path) -> LinLayout:
    return LinLayout(tmp_path)


def test_busi_counts_one_annotation_per_mask_file_with_its_bounds(busi):
    save(busi / "benign" / "benign (1)_mask.png", mask_of((10, 5, 20, 15), (48, 38, 1, 1)))  # with a speck
    save(busi / "benign" / "benign (1)_mask_1.png", mask_of((0, 30, 6, 10)))
    images, annotations, quarantine = read(busi.parent, "busi")
    assert images["label"].value_counts().to_dict() == {"benign": 2, "malignant": 2, "normal": 2}
    assert quarantine.empty
    mine = annotations[annotations["image_id"] == "busi/benign/benign (1)"]
    assert mine[["x", "y", "w", "h", "area"]].to_numpy().tolist() == [
        [10, 5, 39, 34, 301],
        [0, 30, 6, 10, 60],
    ]
    assert [Path(path).name for path in mine["mask_path"]] == ["benign (1)_mask.png", "benign (1)_mask_1.png"]
    assert set(annotations["label"]) == {"benign", "malignant"}
    assert annotations["annotation_id"].is_unique


def test_rodrigues_series_are_five_consecutive_numbers(rodrigues):
    images, annotations, _ = read(rodrigues.parent, "rodrigues")
    units = images.set_index("image_id")["unit"]
    assert annotations.empty
    assert units["rodrigues/benign/us5"] == units["rodrigues/benign/us1"] == "rodrigues/benign/us1-us5"
    assert units["rodrigues/malignant/us6"] == units["rodrigues/malignant/us10"]
    assert units.nunique() == 3


def test_lin_frames_on_disk_are_images_and_lists_give_split_and_boxes(lin):
    images, annotations, quarantine = read(lin.raw, "lin")
    images = images.set_index("image_id")
    assert len(images) == 9
    assert quarantine.empty
    assert images.loc["lin/benign/x1a/000000", ["unit", "upstream_split"]].tolist() == [
        "lin/benign/x1a",
        "train",
    ]
    assert images.loc["lin/malignant/3c/000001", "upstream_split"] == "val"
    assert images.loc["lin/benign/x1a/000002", "upstream_split"] == ""
    # Both lists count from 1; each id is looked up in its own list.
    assert annotations.groupby("label").size().to_dict() == {"benign": 2, "malignant": 4}
    assert annotations["mask_path"].eq("").all()
    assert annotations.iloc[0][["x", "y", "w", "h", "area"]].tolist() == [10, 5, 20, 15, 300]


def test_mac_and_hidden_files_are_ignored(busi):
    save(busi.parent / "__MACOSX" / busi.name / "benign" / "._benign (1).png", picture())
    (busi.parent / "__MACOSX" / busi.name / "malignant").mkdir()
    (busi.parent / "__MACOSX" / busi.name / "normal").mkdir()
    (busi / "benign" / ".DS_Store").write_bytes(b"x")
    images, _, quarantine = read(busi.parent, "busi")
    assert (len(images), len(quarantine)) == (6, 0)


def test_stray_files_are_named_in_the_quarantine(busi, rodrigues, lin):
    (busi / "benign" / "notes.txt").write_text("x")
    (busi / "benign" / "old").mkdir()
    assert reasons(read(busi.parent, "busi")[2], busi) == {
        "benign/notes.txt": "unexpected file: not .png",
        "benign/old": "unexpected file: not .png",
    }
    save(rodrigues / "benign" / "copy of us1.bmp", picture())
    assert reasons(read(rodrigues.parent, "rodrigues")[2], rodrigues) == {
        "benign/copy of us1.bmp": "unexpected name: not us<number>.bmp, so its series is unknown"
    }
    save(lin.root / "rawframes" / "benign" / "000009.png", picture())
    assert reasons(read(lin.raw, "lin")[2], lin.root) == {
        "rawframes/benign/000009.png": "unexpected file: it lies outside the video folders"
    }


def test_the_later_of_two_files_with_one_id_is_left_out(rodrigues):
    save(rodrigues / "benign" / "us1.BMP", picture())
    images, _, quarantine = read(rodrigues.parent, "rodrigues")
    assert images["image_id"].is_unique
    assert len(images) == 15
    assert reasons(quarantine, rodrigues) == {
        "benign/us1.bmp": "duplicate id: rodrigues/benign/us1 is us1.BMP already"
    }


def test_an_orphan_mask_is_left_out(busi):
    save(busi / "benign" / "benign (9)_mask_1.png", LESION)
    images, _, quarantine = read(busi.parent, "busi")
    assert len(images) == 6
    assert reasons(quarantine, busi) == {
        "benign/benign (9)_mask_1.png": "orphan mask: the image it belongs to is missing"
    }


def test_a_listed_frame_that_is_not_on_disk_is_named(lin):
    lin.lists["train"]["images"][0]["file_name"] = "benign/x1a/000077.png"
    lin.write()
    images, annotations, quarantine = read(lin.raw, "lin")
    assert (len(images), len(annotations)) == (9, 5)
    assert reasons(quarantine, lin.root) == {
        "rawframes/benign/x1a/000077.png": f"missing image: {TRAIN} lists it, but it is not on disk"
    }


def test_a_frame_in_both_lists_stays_with_the_first(lin):
    lin.lists["val"]["images"][0]["file_name"] = "benign/x1a/000000.png"
    lin.write()
    images, _, quarantine = read(lin.raw, "lin")
    assert images["upstream_split"].iloc[0] == "train"
    assert reasons(quarantine, lin.root) == {
        "rawframes/benign/x1a/000000.png": f"listed twice: {VAL} repeats a frame of another list"
    }


def test_bad_records_of_a_list_are_named_with_the_frame_or_else_the_list(lin):
    lin.lists["train"]["annotations"][0]["category_id"] = 9
    lin.lists["train"]["annotations"][1]["image_id"] = 99
    lin.write()
    images, annotations, quarantine = read(lin.raw, "lin")
    assert (len(images), len(annotations)) == (9, 4)
    assert {path: reason.split(":")[0] for path, reason in reasons(quarantine, lin.root).items()} == {
        "rawframes/benign/x1a/000000.png": "unknown category",
        TRAIN: "no such frame",
    }
    assert quarantine["image_id"].eq("").all()


def test_a_missing_list_is_an_error(lin):
    lin.paths["val"].unlink()
    with pytest.raises(
        BusflowError, match=r"should have one folder with imagenet_vid_val\.json, but has none"
    ):
        read(lin.raw, "lin")


@pytest.mark.parametrize("reader", ["busi", "rodrigues", "lin"])
def test_another_layout_is_one_clear_error(tmp_path, reader):
    (tmp_path / "raw" / "cats").mkdir(parents=True)
    with pytest.raises(BusflowError, match=r"raw should have one folder with .*benign.*, but has none"):
        read(tmp_path / "raw", reader)


def test_two_copies_of_a_dataset_are_an_error(busi):
    for label in ("benign", "malignant", "normal"):
        save(busi.parent / "copy" / label / "a.png", picture())
    with pytest.raises(BusflowError, match=r"but has .*Dataset_BUSI_with_GT and .*copy"):
        read(busi.parent, "busi")


def test_an_empty_image_folder_is_an_error(busi, rodrigues, lin):
    for path in (busi / "normal").iterdir():
        path.unlink()
    with pytest.raises(BusflowError, match=r"normal holds no \.png file: unpack the archive again"):
        read(busi.parent, "busi")
    for path in (rodrigues / "benign").iterdir():
        path.unlink()
    with pytest.raises(BusflowError, match=r"benign holds no \.bmp file"):
        read(rodrigues.parent, "rodrigues")
    (lin.root / "rawframes" / "benign" / "x9").mkdir()
    with pytest.raises(BusflowError, match=r"x9 holds no \.png file"):
        read(lin.raw, "lin")


def test_a_class_without_images_is_an_error(busi, lin):
    for path in (busi / "malignant").glob("*).png"):
        path.unlink()
    with pytest.raises(BusflowError, match="malignant holds masks but no image"):
        read(busi.parent, "busi")
    (lin.root / "rawframes" / "benign").rename(lin.root / "elsewhere")
    (lin.root / "rawframes" / "benign").mkdir()
    with pytest.raises(BusflowError, match="benign holds no video folder"):
        read(lin.raw, "lin")
