"""Detection views: COCO files whose boxes are true, or an error that says which is not."""

import json

import numpy as np
import pandas as pd
import pytest
from pycocotools.coco import COCO

from busflow.data.views import load_view, make_views
from busflow.errors import BusflowError

SPLITS = ["train", "train", "val", "test"]


@pytest.fixture
def tables() -> dict[str, pd.DataFrame]:
    """Four images of 100 × 80 px, not in order; the first has two boxes."""
    ids = ["lin/b/1", "lin/b/0", "lin/m/2", "lin/m/3"]
    images = pd.DataFrame({"image_id": ids, "width": 100, "height": 80})
    split = pd.DataFrame(
        {
            "image_id": ids,
            "split": SPLITS,
            "label": ["malignant", "benign", "malignant", "benign"],
            "group": ids,
        }
    )
    boxes = [("lin/b/1", 10, 5, 20, 15), ("lin/b/1", 60, 40, 30, 30), ("lin/b/0", 1, 2, 3, 4)]
    boxes += [("lin/m/2", 0, 0, 100, 80), ("lin/m/3", 50, 50, 25.5, 20)]
    annotations = pd.DataFrame(boxes, columns=["image_id", "x", "y", "w", "h"])
    annotations["annotation_id"] = [f"{image_id}#{k}" for k, image_id in enumerate(annotations["image_id"])]
    annotations["label"] = "benign"  # upstream's
    return {"split": split, "images": images, "annotations": annotations}


def test_views_are_coco_files_with_the_splits_labels(tables, tmp_path):
    make_views(**tables, output=tmp_path)
    train = COCO(tmp_path / "train.json")
    assert [train.imgs[k]["file_name"] for k in (1, 2)] == ["lin/b/0", "lin/b/1"]
    assert train.imgs[1]["width"] == 100 and train.imgs[1]["height"] == 80
    assert {k: category["name"] for k, category in train.cats.items()} == {1: "benign", 2: "malignant"}
    found = train.loadAnns(train.getAnnIds(imgIds=[2]))
    assert [box["bbox"] for box in found] == [[10, 5, 20, 15], [60, 40, 30, 30]]
    assert [box["category_id"] for box in found] == [2, 2] and [box["area"] for box in found] == [300, 900]
    assert [len(load_view(tmp_path / f"{name}.json")["images"]) for name in ("val", "test")] == [1, 1]


def test_boxes_are_cut_at_the_images_border(tables, tmp_path):
    tables["annotations"].loc[0, ["x", "y", "w", "h"]] = [-10, 70, 30, 30]
    make_views(**tables, output=tmp_path)
    box = load_view(tmp_path / "train.json")["annotations"][1]
    assert box["bbox"] == [0, 70, 20, 10] and box["area"] == 200


def test_an_image_without_boxes_stays_in_its_view(tables, tmp_path):
    tables["annotations"] = tables["annotations"].query("image_id != 'lin/b/0'")
    tables["split"].loc[1, "label"] = "normal"
    make_views(**tables, output=tmp_path)
    view = load_view(tmp_path / "train.json")
    assert len(view["images"]) == 2 and {box["image_id"] for box in view["annotations"]} == {2}


def test_the_order_of_the_tables_does_not_matter(tables, tmp_path):
    make_views(**tables, output=tmp_path / "a")
    shuffled = {name: table.sample(frac=1, random_state=1) for name, table in tables.items()}
    make_views(**shuffled, output=tmp_path / "b")
    for name in ("train", "val", "test"):
        assert (tmp_path / f"a/{name}.json").read_bytes() == (tmp_path / f"b/{name}.json").read_bytes()


@pytest.mark.parametrize(
    ("box", "message"),
    [
        ([np.nan, 5, 20, 15], r"lin/b/1#0 \(nan, 5, 20, 15; malignant\) is not a box"),
        ([10, 5, np.inf, 15], r"lin/b/1#0 .* is not a box"),
        ([10, 5, -20, 15], r"lin/b/1#0 .* is not a box"),
        ([10, 5, 20, 0], r"lin/b/1#0 .* is not a box"),
        ([100, 5, 20, 15], r"lin/b/1#0 .* is outside of its image"),
    ],
)
def test_a_broken_box_is_named(tables, tmp_path, box, message):
    tables["annotations"] = tables["annotations"].astype(dict.fromkeys("xywh", float))
    tables["annotations"].loc[0, ["x", "y", "w", "h"]] = box
    with pytest.raises(BusflowError, match=message):
        make_views(**tables, output=tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_box_in_an_image_that_is_no_category_is_named(tables, tmp_path):
    tables["split"].loc[0, "label"] = "normal"
    with pytest.raises(BusflowError, match=r"lin/b/1#0 .*; normal\) has a label that is no category"):
        make_views(**tables, output=tmp_path)


def test_an_image_that_the_index_lacks_is_named(tables, tmp_path):
    tables["images"] = tables["images"].iloc[1:]
    with pytest.raises(BusflowError, match=r"lin/b/1, which images\.csv lacks"):
        make_views(**tables, output=tmp_path)


@pytest.mark.parametrize("name", ["train", "val", "test"])
def test_a_split_without_boxes_is_named(tables, tmp_path, name):
    ids = tables["split"].loc[tables["split"]["split"] == name, "image_id"]
    tables["annotations"] = tables["annotations"][~tables["annotations"]["image_id"].isin(ids)]
    with pytest.raises(BusflowError, match=f"no image of the {name} split has a box"):
        make_views(**tables, output=tmp_path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"images": [', "is no intact view"),
        ("[]", "is no intact view"),
        ("{}", "'categories'"),
        ('{"categories": [{"id": 1, "name": "cat"}], "images": [], "annotations": []}', "categories are not"),
        (
            json.dumps(
                {"categories": [{"name": "benign"}, {"name": "malignant"}], "images": [1], "annotations": []}
            ),
            "no boxes",
        ),
    ],
)
def test_a_damaged_view_is_named(tmp_path, content, message):
    path = tmp_path / "train.json"
    path.write_text(content)
    with pytest.raises(BusflowError, match=rf"train\.json is no intact view.*{message}|{message}"):
        load_view(path)


def test_a_missing_view_is_named(tmp_path):
    with pytest.raises(BusflowError, match=r"train\.json is no intact view"):
        load_view(tmp_path / "train.json")


def test_what_a_killed_run_left_is_swept_away(tables, tmp_path):
    (tmp_path / ".val.json.abcd1234.json").write_text("half")
    make_views(**tables, output=tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["test.json", "train.json", "val.json"]
