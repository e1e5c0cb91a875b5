"""Datasets that COCO files describe."""

import json

import pytest
from pycocotools import mask as coco

from layouts import LESION, TRAIN, VAL, LinLayout, picture, read, read_described, reasons, save

POLYGON = [[10, 5, 30, 5, 30, 20, 10, 20]]


@pytest.fixture
def layout(tmp_path):
    """Three images, two annotations; dump ``content`` after bending it."""
    raw = tmp_path / "raw"
    for name in ("a", "b", "c"):
        save(raw / "images" / f"{name}.png", picture())
    content = {
        "categories": [{"id": 1, "name": "B"}, {"id": 2, "name": "malignant"}],
        "images": [
            {"id": k, "file_name": f"{name}.png", "width": 50, "height": 40, "patient": k // 2}
            for k, name in enumerate("abc")
        ],
        "annotations": [
            {"id": k, "image_id": k, "category_id": k + 1, "bbox": [10, 5, 20, 15]} for k in range(2)
        ],
    }
    return raw, content


SPEC = {
    "file": "coco.json",
    "images": "images",
    "labels": {"b": "benign"},
    "unannotated": "normal",
    "unit": "patient",
}


def load(layout, **spec):
    raw, content = layout
    (raw / "coco.json").write_text(json.dumps(content))
    return read_described(raw, {"coco": {**SPEC, **spec}})


def test_boxes_labels_and_units(layout):
    images, annotations, quarantine = load(layout)
    assert images["label"].tolist() == ["benign", "malignant", "normal"]
    assert images["unit"].tolist() == ["mine/0", "mine/0", "mine/1"]
    assert annotations[["x", "y", "w", "h"]].to_numpy().tolist() == [[10, 5, 20, 15]] * 2
    assert quarantine["reason"].str.split(":").str[0].tolist() == ["several labels"]


@pytest.mark.parametrize("kind", ["polygons", "compressed", "plain"])
def test_outlines_become_masks(layout, kind):
    encoded = coco.encode(LESION.astype("uint8", order="F"))
    outline = {
        "polygons": POLYGON,
        "compressed": {"size": encoded["size"], "counts": encoded["counts"].decode()},
        "plain": {"size": [40, 50], "counts": [405, *([15, 25] * 19), 15, 2000 - 405 - 15 - 19 * 40]},
    }[kind]
    for annotation in layout[1]["annotations"]:
        annotation["segmentation"] = outline
    images, annotations, _ = load(layout)
    assert len(images) == 3 and annotations["mask_path"].str.endswith("_1.png").all()
    assert annotations[["x", "y", "w", "h", "area"]].to_numpy().tolist() == [[10, 5, 20, 15, 300]] * 2


@pytest.mark.parametrize("outline", [[[1, 2]], {"size": [4, 5], "counts": [20]}, "x", {"counts": 3}])
def test_a_broken_outline_leaves_its_image_out(layout, outline):
    layout[1]["annotations"][0]["segmentation"] = outline
    layout[1]["annotations"][1]["segmentation"] = POLYGON
    images, _, quarantine = load(layout)
    assert images["image_id"].tolist() == ["mine/b", "mine/c"]
    assert reasons(quarantine, layout[0])["images/a.png"].split(":")[0] in (
        "broken outline",
        "mask of another size",
        "empty mask",
    )


def test_what_is_wrong_has_its_line(layout):
    raw, content = layout
    save(raw / "images" / "d.png", picture())
    content["images"] += [{"id": 7, "file_name": "../x.png"}, {"id": 8, "file_name": "gone.png"}]
    content["annotations"].append({"id": 5, "image_id": 0, "category_id": 2, "bbox": [1, 1, 5, 5]})
    images, _, quarantine = load(layout)
    assert images["image_id"].tolist() == ["mine/b", "mine/c"]
    assert {path: reason.split(":")[0] for path, reason in reasons(quarantine, raw).items()} == {
        "coco.json": "impossible path",
        "images/a.png": "two labels",
        "images/d.png": "not listed",
        "images/gone.png": "missing image",
    }


def test_an_image_without_annotations_has_no_label_unless_it_is_said(layout):
    raw, content = layout
    (raw / "coco.json").write_text(json.dumps(content))
    spec = {key: value for key, value in SPEC.items() if key != "unannotated"}
    images, _, quarantine = read_described(raw, {"coco": spec})
    assert images["image_id"].tolist() == ["mine/a", "mine/b"]
    assert reasons(quarantine, raw)["images/c.png"].startswith("no label: it has no annotation that counts")


def test_lin_by_description_is_lin_by_its_reader(tmp_path):
    lin = LinLayout(tmp_path)
    spec = {"file": {"train": TRAIN, "val": VAL}, "images": "rawframes"}
    spec |= {"label": "^(?P<label>[^/]+)/", "unit": "^(?P<unit>[^/]+/[^/]+)/"}
    for ours, theirs in zip(
        read_described(lin.raw, {"coco": spec}, "lin"), read(lin.raw, "lin"), strict=True
    ):
        assert ours.equals(theirs)
