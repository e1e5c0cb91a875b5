"""Datasets whose folders and file names say everything."""

import numpy as np
import pytest
from PIL import Image

from busflow.data.readers import read_layout
from busflow.errors import BusflowError
from layouts import (
    LESION,
    busi_layout,
    mask_of,
    picture,
    read,
    read_described,
    reasons,
    rodrigues_layout,
    save,
)


@pytest.fixture
def raw(tmp_path):
    """Two images of each lesion label in a folder of an archive."""
    raw = tmp_path / "raw"
    for name in ("benign/p1_a.png", "benign/p1_b.JPG", "malignant/sub/p2_a.bmp", "malignant/p3_a.tiff"):
        (raw / "set" / name).parent.mkdir(parents=True, exist_ok=True)
        kind = {"JPG": "JPEG"}.get(name.rpartition(".")[2])
        Image.fromarray(picture()).save(raw / "set" / name, kind)
    return raw


def test_one_folder_per_label_is_enough(raw):
    images, annotations, quarantine = read_described(raw, {"folders": {"unit": r"(?P<unit>p\d+)_"}})
    assert images.set_index("image_id")["unit"].to_dict() == {
        "mine/benign/p1_a": "mine/p1",
        "mine/benign/p1_b": "mine/p1",
        "mine/malignant/p3_a": "mine/p3",
        "mine/malignant/sub/p2_a": "mine/p2",
    }
    assert annotations.empty and quarantine.empty


def test_folders_of_other_names_are_mapped_and_unknown_ones_told(raw):
    (raw / "set" / "benign").rename(raw / "set" / "B")
    save(raw / "set" / "doppler" / "x.png", picture())
    spec = {"labels": {"b": "benign"}, "unit": "(?P<unit>.+)"}
    images, _, quarantine = read_described(raw, {"folders": spec})
    assert images["label"].value_counts().to_dict() == {"benign": 2, "malignant": 2}
    unknown = "unknown label: 'doppler' is none of benign, malignant, normal, and labels does not map it"
    assert reasons(quarantine, raw / "set") == {"doppler/x.png": unknown}
    assert quarantine["image_id"].tolist() == ["mine/doppler/x"]
    assert read_described(raw, {"folders": {**spec, "ignore": ["doppler/*"]}})[2].empty


def test_without_a_unit_the_index_says_so(raw):
    images, _, quarantine = read_described(raw, {"folders": {}})
    assert images["unit"].tolist() == images["image_id"].tolist()
    assert list(reasons(quarantine, raw)) == ["set"]


def test_an_image_whose_name_does_not_tell_its_unit_is_left_out(raw):
    images, _, quarantine = read_described(raw, {"folders": {"unit": r"(?P<unit>p[12])_"}})
    assert len(images) == 3
    assert reasons(quarantine, raw / "set")["malignant/p3_a.tiff"].startswith(
        "unknown unit: the name does not tell"
    )


def test_the_label_may_stand_in_the_name(tmp_path):
    raw = tmp_path / "raw"
    for name in ("001_02_X.png", "002_01_X.png", "003_00_X.png", "004_09_X.png"):
        save(raw / name, picture())
    spec = {
        "image": "{unit}_*.png",
        "label": r"_0(?P<label>\d)_",
        "labels": {"0": "normal", "1": "benign", "2": "malignant"},
    }
    images, _, quarantine = read_described(raw, {"folders": spec})
    assert images["label"].tolist() == ["malignant", "benign", "normal"]
    assert images["unit"].tolist() == ["mine/001", "mine/002", "mine/003"]
    assert reasons(quarantine, raw)["004_09_X.png"].startswith("unknown label: '9' is none of")


def test_two_labels_of_one_unit_are_told(tmp_path):
    for name in ("benign/case1_a.png", "malignant/case1_b.png"):
        save(tmp_path / "raw" / name, picture())
    images, _, quarantine = read_described(tmp_path / "raw", {"folders": {"unit": r"case(?P<unit>\d+)"}})
    assert len(images) == 2
    assert quarantine["reason"].str.startswith(
        "several labels: unit 1 has 1 benign, 1 malignant"
    ).tolist() == [True]


def test_another_layout_is_one_clear_error(tmp_path):
    save(tmp_path / "raw" / "cats" / "a.png", picture())
    with pytest.raises(BusflowError, match=r"holds no image whose name is like .* and tells a known label"):
        read_described(tmp_path / "raw", {"folders": {}})


# --- pairs


def test_busi_by_description_is_busi_by_its_reader(tmp_path):
    raw = busi_layout(tmp_path)
    save(raw / "benign" / "benign (1)_mask_1.png", mask_of((0, 30, 6, 10)))
    spec = {"image": "{label}/{name}.png", "mask": "{label}/{name}_mask*.png", "unit": "^(?P<unit>.+)$"}
    for ours, theirs in zip(
        read_described(raw.parent, {"pairs": spec}, "busi"), read(raw.parent, "busi"), strict=True
    ):
        assert ours.equals(theirs)


def test_rodrigues_by_description_is_rodrigues_by_its_reader(tmp_path):
    raw = rodrigues_layout(tmp_path)
    spec = {"unit": r"/us(?P<unit>\d+)$", "series": 5}
    for ours, theirs in zip(
        read_described(raw.parent, {"folders": spec}, "rodrigues"), read(raw.parent, "rodrigues"), strict=True
    ):
        assert ours.equals(theirs)


@pytest.fixture
def parallel(tmp_path):
    raw = tmp_path / "raw"
    for label in ("Benign", "Malignant"):
        for name in ("1.png", "2.png"):
            save(raw / label / "images" / name, picture())
            save(raw / label / "masks" / name, LESION)
    return raw


PARALLEL = {"image": "{label}/images/{name}", "mask": "{label}/masks/{name}", "unit": "(?P<unit>.+)"}


def test_parallel_folders(parallel):
    images, annotations, quarantine = read_described(parallel, {"pairs": PARALLEL})
    assert (len(images), len(annotations), len(quarantine)) == (4, 4, 0)
    assert annotations["mask_path"].iloc[0] == (parallel / "Benign/masks/1.png").as_posix()


def test_orphans_of_both_kinds_and_strays_have_their_lines(parallel):
    (parallel / "Benign/images/1.png").unlink()
    (parallel / "Benign/masks/2.png").unlink()
    (parallel / "notes.txt").write_text("x")
    images, _, quarantine = read_described(parallel, {"pairs": PARALLEL})
    assert len(images) == 2
    assert reasons(quarantine, parallel) == {
        "Benign/masks/1.png": "orphan mask: the image it belongs to is missing",
        "Benign/images/2.png": "missing mask: a lesion needs at least one",
        "notes.txt": "unexpected file: its name is neither an image's nor a mask's",
    }


def test_colours_may_tell_the_label(tmp_path):
    raw = tmp_path / "raw"
    green, red = np.zeros((2, 40, 50, 3), np.uint8)
    green[LESION], red[LESION] = (0, 255, 0), (255, 0, 0)
    both = green.copy()
    both[30:35, :5] = (255, 0, 0)
    for name, mask in {"A_1": green, "A_2": red, "B_1": np.zeros_like(red), "B_2": both}.items():
        save(raw / "images" / f"{name}.png", picture())
        save(raw / "masks" / f"{name}.png", mask)
    save(raw / "images" / "C_1.png", picture())
    spec = {"image": "images/{unit}_{n}.png", "mask": "masks/{unit}_{n}.png"}
    spec |= {"colours": {"benign": "#00ff00", "malignant": "#FF0000"}}
    images, annotations, quarantine = read_described(raw, {"pairs": spec})
    assert images.set_index("image_id")["label"].to_dict() == {
        "mine/images/A_1": "benign",
        "mine/images/A_2": "malignant",
        "mine/images/B_1": "normal",
    }
    assert annotations["label"].tolist() == ["benign", "malignant"]
    told = reasons(quarantine, raw)
    assert told["images/B_2.png"] == "two labels: its masks show benign and malignant lesions"
    assert told["images/C_1.png"] == "missing mask: its colours would tell the label"


# --- descriptions that cannot be followed


@pytest.mark.parametrize(
    ("reader", "said"),
    [
        ({"folders": {"unit": "case("}}, r"folders\.unit is 'case\('|expected a pattern"),
        ({"folders": {"unit": "(?P<unit>case"}}, "is no regular expression"),
        ({"folders": {"unit": "(?P<case>x)"}}, r"it needs a group \(\?P<unit>"),
        ({"folders": {"image": "../{label}/*"}}, "expected a path below the dataset's folder"),
        ({"folders": {"image": "{label!r}/{0}"}}, "expected a path below the dataset's folder"),
    ],
)
def test_a_broken_pattern_or_template_names_its_key(raw, reader, said):
    with pytest.raises(BusflowError, match=said):
        from busflow.data.describing import check_reader

        check_reader("sources.mine.reader", reader)
        read_layout("sources.mine.reader", reader, raw)
