"""Phantom archives have the layouts, modes, schema and known faults of the upstream ones."""

import io
import json
import re
import zipfile
from collections import Counter
from itertools import pairwise
from pathlib import Path

import numpy as np
import py7zr
import pytest
from PIL import Image

from busflow.data import phantom_archives
from busflow.data.phantom_archives import LIN_IDENTICAL, LIN_ONE_PATIENT, write_archive
from busflow.data.phantoms import Phantom
from busflow.errors import BusflowError

ROOT = "Miccai 2022 BUV Dataset"
BUSI = "Dataset_BUSI_with_GT"


def unpack(url: str, folder: Path) -> dict[str, bytes]:
    """Members of the archive that the URL describes."""
    path = folder / "archive"
    write_archive(url, path)
    if url.startswith("phantom:lin"):
        with py7zr.SevenZipFile(path) as archive:
            archive.extractall(folder / "unpacked")
        files = [file for file in (folder / "unpacked").rglob("*") if file.is_file()]
        return {file.relative_to(folder / "unpacked").as_posix(): file.read_bytes() for file in files}
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None
        return {name: archive.read(name) for name in archive.namelist()}


def decode(content: bytes) -> Image.Image:
    image = Image.open(io.BytesIO(content))
    image.load()
    return image


def listings(members: dict[str, bytes]) -> tuple[dict, dict]:
    names = ("imagenet_vid_train_15frames", "imagenet_vid_val")
    return tuple(json.loads(members[f"{ROOT}/{name}.json"]) for name in names)


def unpack_small(url: str, folder: Path) -> dict[str, bytes]:
    """The same with smaller pictures, which take a fifth of the time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(phantom_archives, "_shape", lambda rng: (96, int(rng.integers(120, 140))))
        return unpack(url, folder)


@pytest.fixture(scope="module")
def faulty_busi(tmp_path_factory):
    return unpack_small(
        "phantom:busi?seed=1&benign=41&malignant=40&normal=1", tmp_path_factory.mktemp("busi")
    )


@pytest.fixture(scope="module")
def faulty_lin(tmp_path_factory):
    return unpack_small("phantom:lin?seed=1&videos=30&frames=2", tmp_path_factory.mktemp("lin"))


@pytest.mark.parametrize(
    "url",
    [
        "phantom:lin?seed=5&videos=4&frames=2",
        "phantom:busi?seed=5&benign=2&malignant=1&normal=1",
        "phantom:rodrigues?seed=5&benign=5&malignant=5",
    ],
)
def test_the_same_url_gives_the_same_bytes_and_another_seed_others(url, tmp_path):
    for name, address in (("first", url), ("again", url), ("other", url.replace("seed=5", "seed=6"))):
        write_archive(address, tmp_path / name)
    first, again, other = ((tmp_path / name).read_bytes() for name in ("first", "again", "other"))
    assert first == again
    assert first != other


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("phantom:ct?seed=1", r"no phantom layout 'ct'; use one of busi, lin, rodrigues"),
        (
            "phantom:lin?seed=1&videos=4&frames=1&fps=3",
            r"'fps'; layout lin takes .* seed, videos, frames, defects",
        ),
        ("phantom:lin?seed=1&videos=4", r"missing .* 'frames'; layout lin takes"),
        ("phantom:lin", r"missing .*; layout lin takes"),
        ("phantom:busi?seed=1&benign=two&malignant=1&normal=1", r"'two'; layout busi takes whole numbers"),
        ("phantom:busi?seed=1&benign=-2&malignant=1&normal=1", r"negative; layout busi takes"),
        ("phantom:rodrigues?seed=1&benign=7&malignant=5", r"benign=7 .* multiples of 5"),
        ("phantom:lin?seed=1&videos=3&frames=1", r"videos=3, frames=1: at least 4 and 1"),
    ],
)
def test_a_bad_url_is_named_and_leaves_no_file(url, message, tmp_path):
    with pytest.raises(BusflowError, match=message):
        write_archive(url, tmp_path / "archive")
    assert list(tmp_path.iterdir()) == []


def test_busi_has_the_names_and_modes_of_the_original(tmp_path):
    members = unpack("phantom:busi?seed=2&benign=3&malignant=2&normal=2", tmp_path)
    kinds = Counter()
    for name, content in members.items():
        match = re.fullmatch(rf"{BUSI}/(\w+)/\1 \(\d+\)(|_mask|_mask_1)\.png", name)
        kinds[match[1], match[2], decode(content).mode] += 1
    assert kinds == {
        ("benign", "", "RGB"): 3,
        ("benign", "_mask", "1"): 3,
        ("benign", "_mask_1", "RGBA"): 1,
        ("malignant", "", "RGB"): 2,
        ("malignant", "_mask", "1"): 2,
        ("normal", "", "RGB"): 2,
        ("normal", "_mask", "RGB"): 2,
    }
    pictures = [decode(content) for name, content in members.items() if "_mask" not in name]
    assert len({picture.size for picture in pictures}) > 1
    assert all(np.ptp(np.asarray(picture), axis=2).max() == 0 for picture in pictures)


def test_busi_masks_fit_their_pictures_and_are_empty_for_normals_only(tmp_path):
    members = unpack("phantom:busi?seed=3&benign=2&malignant=2&normal=1", tmp_path)
    for name, content in members.items():
        if "_mask" in name:
            mask = decode(content)
            assert mask.size == decode(members[re.sub(r"_mask(_1)?", "", name)]).size
            assert np.asarray(mask.convert("L")).any() == ("normal" not in name)
    first, second = (
        np.asarray(decode(members[f"{BUSI}/benign/benign (2)_mask{suffix}.png"]).convert("L")) > 0
        for suffix in ("", "_1")
    )
    assert not (first & second).any()


def test_busi_defects_are_those_documented(faulty_busi):
    pixels, undecodable, empty = {}, [], []
    for name, content in faulty_busi.items():
        try:
            pixels[name] = np.asarray(decode(content).convert("L"))
        except OSError:
            undecodable.append(name)
    assert undecodable == [f"{BUSI}/benign/benign (14).png"]
    empty = [name for name, image in pixels.items() if "_mask" in name and not image.any()]
    assert empty == [f"{BUSI}/benign/benign (13)_mask.png", f"{BUSI}/normal/normal (1)_mask.png"]
    pictures = {name: image.tobytes() for name, image in pixels.items() if "_mask" not in name}
    twins = [name for name, image in pictures.items() if list(pictures.values()).count(image) > 1]
    assert twins == [f"{BUSI}/benign/benign (41).png", f"{BUSI}/malignant/malignant (40).png"]
    for label in ("benign", "malignant"):
        first, second = (pixels[f"{BUSI}/{label}/{label} ({k}).png"] for k in (11, 12))
        common = first[1:-1, 1:-1]
        assert common.shape == second.shape
        assert np.corrcoef(common.ravel(), second.ravel())[0, 1] > 0.99
        assert not np.array_equal(common, second)


@pytest.mark.parametrize(
    "options", ["benign=41&malignant=40&normal=0&defects=0", "benign=14&malignant=14&normal=0"]
)
def test_busi_without_defects_or_without_room_for_them_is_sound(options, tmp_path):
    members = unpack_small(f"phantom:busi?seed=1&{options}", tmp_path)
    pixels = {name: np.asarray(decode(content).convert("L")) for name, content in members.items()}
    assert all(image.any() for image in pixels.values())
    pictures = [image.tobytes() for name, image in pixels.items() if "_mask" not in name]
    assert len(set(pictures)) == len(pictures)


def test_rodrigues_shows_each_lesion_in_five_consecutive_grey_bitmaps(tmp_path):
    members = unpack("phantom:rodrigues?seed=4&benign=10&malignant=5", tmp_path)
    expected = [f"originals/{'benign' if k <= 10 else 'malignant'}/us{k}.bmp" for k in range(1, 16)]
    assert sorted(members) == sorted(expected)
    images = [decode(members[name]) for name in expected]
    assert {(image.mode, image.format) for image in images} == {("L", "BMP")}
    for first in range(0, 15, 5):
        series = [np.asarray(image, float) for image in images[first : first + 5]]
        assert len({image.shape for image in series}) == 1
        assert len({image.tobytes() for image in series}) == 5
        neighbours = pairwise(series)
        assert min(np.corrcoef(a.ravel(), b.ravel())[0, 1] for a, b in neighbours) > 0.9
    assert len({image.size for image in images}) == 3


def test_lin_has_the_files_and_records_of_the_original(tmp_path):
    members = unpack("phantom:lin?seed=6&videos=6&frames=2", tmp_path)
    listed = []
    for listing in listings(members):
        assert list(listing) == ["categories", "videos", "images", "annotations"]
        assert listing["categories"] == [
            {"id": 1, "name": "benign", "encode_name": "benign"},
            {"id": 2, "name": "malignant", "encode_name": "malignant"},
        ]
        assert [image["id"] for image in listing["images"]] == list(range(1, len(listing["images"]) + 1))
        videos = {video["id"]: video for video in listing["videos"]}
        for image, annotation in zip(listing["images"], listing["annotations"], strict=True):
            video = videos[image["video_id"]]
            label = video["name"].split("/")[0]
            assert re.fullmatch(r"(benign|malignant)/x[0-9a-f]{16}", video["name"])
            assert video["vid_train_frames"] == [0, 1]
            assert image["file_name"] == f"{video['name']}/{image['frame_id']:06d}.png"
            assert image["is_vid_train_frame"] is True
            assert list(annotation) == [
                *("id", "video_id", "image_id", "category_id", "instance_id"),
                *("bbox", "area", "iscrowd", "occluded", "generated"),
            ]
            assert annotation["image_id"] == image["id"]
            assert annotation["category_id"] == {"benign": 1, "malignant": 2}[label]
            picture = decode(members[f"{ROOT}/rawframes/{image['file_name']}"])
            assert (picture.mode, picture.size) == ("L", (image["width"], image["height"]))
            listed.append(image["file_name"])
    assert len(set(listed)) == 12
    assert len(members) == 12 + 2


def test_lin_boxes_are_the_bounds_of_the_lesions(monkeypatch, tmp_path):
    def one_pixel_more(rng, label, shape, *, frames):
        for k in range(frames):
            mask = np.zeros((1, 90, 100), bool)
            mask[0, 20:50, 30 : 41 + k] = True
            yield Phantom(np.full((90, 100), 7, np.uint8), mask)

    monkeypatch.setattr(phantom_archives, "video", one_pixel_more)
    for listing in listings(unpack("phantom:lin?seed=6&videos=4&frames=3", tmp_path)):
        boxes = [(annotation["bbox"], annotation["area"]) for annotation in listing["annotations"]]
        expected = [([30, 20, 11, 30], 330), ([30, 20, 12, 30], 360), ([30, 20, 13, 30], 390)]
        assert boxes == expected * len(listing["videos"])


def test_lin_keeps_its_class_shares_in_val(faulty_lin):
    train, val = (Counter(v["name"].split("/")[0] for v in part["videos"]) for part in listings(faulty_lin))
    assert train + val == {"benign": 12, "malignant": 18}
    assert val.total() / 30 == pytest.approx(0.2, abs=0.04)
    assert val["malignant"] / val.total() == pytest.approx(train["malignant"] / train.total(), abs=0.05)


def test_lin_defects_are_those_documented(faulty_lin):
    train, val = listings(faulty_lin)
    frames = {name.removeprefix(f"{ROOT}/rawframes/"): content for name, content in faulty_lin.items()}
    for k in range(2):
        assert frames[f"{LIN_IDENTICAL[0]}/{k:06d}.png"] == frames[f"{LIN_IDENTICAL[1]}/{k:06d}.png"]
    assert set(LIN_IDENTICAL) <= {video["name"] for video in val["videos"]}
    assert set(LIN_ONE_PATIENT) <= {video["name"] for video in train["videos"]}
    patient = {decode(frames[f"{name}/000000.png"]).size for name in LIN_ONE_PATIENT}
    assert len(patient) == 1
    negative = [a for a in train["annotations"] + val["annotations"] if min(a["bbox"][2:]) < 0]
    assert len(negative) == 1
    assert negative[0]["bbox"][2] < 0
    listed = {image["file_name"] for part in (train, val) for image in part["images"]}
    unlisted = [name for name in frames if name.endswith(".png") and name not in listed]
    assert len(unlisted) == 2


@pytest.mark.parametrize("options", ["videos=30&frames=1&defects=0", "videos=29&frames=1"])
def test_lin_without_defects_or_without_room_for_them_is_sound(options, tmp_path):
    members = unpack_small(f"phantom:lin?seed=1&{options}", tmp_path)
    parts = listings(members)
    assert all(min(a["bbox"][2:]) > 0 for part in parts for a in part["annotations"])
    frames = [content for name, content in members.items() if name.endswith(".png")]
    assert len(set(frames)) == len(frames) == sum(len(part["images"]) for part in parts)
