import json
from pathlib import Path

import pytest

from busflow.data.coco_vid import Box, read_frame_list
from busflow.errors import BusflowError

LABELS = ("benign", "malignant", "normal")


def content() -> dict:
    """Two frames with one box each."""
    return {
        "categories": [{"id": 1, "name": "benign"}, {"id": 2, "name": "malignant"}],
        "videos": [{"id": 1, "name": "benign/x1"}],
        "images": [{"id": 1, "file_name": "a.png"}, {"id": 2, "file_name": "b.png"}],
        "annotations": [
            {"id": 1, "image_id": 1, "category_id": 1, "bbox": [1, 2, 3, 4]},
            {"id": 2, "image_id": 2, "category_id": 2, "bbox": [5, 6, 7, 8]},
        ],
    }


def read(folder: Path, value: object) -> tuple[dict, list]:
    path = folder / "val.json"
    path.write_text(json.dumps(value))
    frames = read_frame_list(path, LABELS)
    return frames.boxes, frames.problems


def test_frames_have_their_boxes_with_the_category_as_label(tmp_path):
    boxes, problems = read(tmp_path, content())
    assert problems == []
    assert boxes == {
        "a.png": [Box("benign", (1, 2, 3, 4), "annotation 1 of val.json")],
        "b.png": [Box("malignant", (5, 6, 7, 8), "annotation 2 of val.json")],
    }


def test_a_frame_may_have_several_boxes_or_none(tmp_path):
    value = content()
    value["annotations"][1]["image_id"] = 1
    boxes, problems = read(tmp_path, value)
    assert {frame: len(found) for frame, found in boxes.items()} == {"a.png": 2, "b.png": 0}
    assert problems == []


def test_whole_numbers_written_as_floats_are_the_same_ids(tmp_path):
    value = content()
    value["annotations"][0].update(image_id=1.0, category_id=1.0)
    assert read(tmp_path, value) == read(tmp_path, content())


BAD_RECORDS = {
    "annotation id used twice": (
        ("annotations", 1, {"id": 1}),
        [("b.png", "duplicate id: annotation 1 of val.json is there twice")],
    ),
    "category that no list knows": (
        ("annotations", 0, {"category_id": 9}),
        [("a.png", "unknown category: annotation 1 of val.json has 9 (none)")],
    ),
    "annotation of no frame": (
        ("annotations", 0, {"image_id": 9}),
        [("", "no such frame: annotation 1 of val.json is for image id 9, which names no frame")],
    ),
    "category that is no label": (
        ("categories", 0, {"name": "cyst"}),
        [("a.png", "unknown category: annotation 1 of val.json has 1 (cyst)")],
    ),
    "box of three numbers": (
        ("annotations", 0, {"bbox": [1, 2, 3]}),
        [("a.png", "broken box: annotation 1 of val.json is [1, 2, 3], not four numbers")],
    ),
    "box with text": (
        ("annotations", 0, {"bbox": [1, "2", 3, None]}),
        [("a.png", "broken box: annotation 1 of val.json is [1, '2', 3, None], not four numbers")],
    ),
    "missing box": (
        ("annotations", 0, {"bbox": None}),
        [("", "broken record: val.json, annotations[0] lacks a proper bbox")],
    ),
    "true as an id": (
        ("annotations", 0, {"id": True, "image_id": True, "category_id": True}),
        [("", "broken record: val.json, annotations[0] lacks a proper id, image_id, category_id")],
    ),
    "true as a number of pixels": (
        ("annotations", 0, {"bbox": [True, 2, 3, 4]}),
        [("a.png", "broken box: annotation 1 of val.json is [True, 2, 3, 4], not four numbers")],
    ),
    "the box of another annotation": (
        ("annotations", 1, {"image_id": 1, "bbox": [1.0, 2, 3, 4]}),
        [("a.png", "box twice: annotation 2 of val.json is [1.0, 2, 3, 4], as another of its frame")],
    ),
    "unhashable ids": (
        ("annotations", 0, {"image_id": [1], "category_id": {}}),
        [("", "broken record: val.json, annotations[0] lacks a proper image_id, category_id")],
    ),
}


@pytest.mark.parametrize("case", BAD_RECORDS)
def test_a_bad_annotation_is_left_out_and_named(tmp_path, case):
    (key, number, values), expected = BAD_RECORDS[case]
    value = content()
    value[key][number].update(values)
    boxes, problems = read(tmp_path, value)
    assert problems == expected
    assert sorted(len(found) for found in boxes.values()) == [0, 1]


@pytest.mark.parametrize("name", ["\ud800.png", "a\0.png", "a\n.png", ""])
def test_a_frame_whose_name_no_file_can_have_is_left_out(tmp_path, name):
    value = content()
    value["images"][0]["file_name"] = name
    boxes, problems = read(tmp_path, value)
    assert list(boxes) == ["b.png"]
    assert problems[0] == ("", "broken record: val.json, images[0] lacks a proper file_name")


def test_names_in_any_script_are_frames(tmp_path):
    value = content()
    value["images"][0]["file_name"] = "échographie\u202f1\u3000\U0001f600.png"
    boxes, problems = read(tmp_path, value)
    assert (len(boxes), problems) == (2, [])


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        (
            '"id": 1, "image_id"',
            '"bbox": [], "id": 1, "image_id"',
            "annotations[0] has the keys ['bbox'] twice",
        ),
        ('"file_name": "a.png"', '"file_name": "a.png", "id": 9', "images[0] has the keys ['id'] twice"),
    ],
)
def test_a_record_with_a_key_twice_is_left_out(tmp_path, old, new, problem):
    text = json.dumps(content())
    assert old in text
    (tmp_path / "val.json").write_text(text.replace(old, new))
    frames = read_frame_list(tmp_path / "val.json", LABELS)
    assert frames.problems[0] == ("", f"broken record: val.json, {problem}")
    assert frames.boxes["b.png"]
    assert not frames.boxes.get("a.png")


def test_the_sizes_that_a_list_gives_are_kept(tmp_path):
    value = content()
    value["images"][0].update(width=50, height=40)
    (tmp_path / "val.json").write_text(json.dumps(value))
    assert read_frame_list(tmp_path / "val.json", LABELS).sizes == {"a.png": (50, 40)}


def test_frames_that_share_an_id_have_no_boxes_since_no_one_knows_whose(tmp_path):
    value = content()
    value["images"][1]["id"] = 1
    value["annotations"][1]["image_id"] = 1
    assert read(tmp_path, value) == (
        {},
        [
            ("a.png", "duplicate id: val.json uses image id 1 twice"),
            ("b.png", "duplicate id: val.json uses image id 1 twice"),
            ("", "no such frame: annotation 1 of val.json is for image id 1, which names no frame"),
            ("", "no such frame: annotation 2 of val.json is for image id 1, which names no frame"),
        ],
    )


def test_a_frame_listed_twice_keeps_its_first_record(tmp_path):
    value = content()
    value["images"][1]["file_name"] = "a.png"
    boxes, problems = read(tmp_path, value)
    assert [box.label for box in boxes["a.png"]] == ["benign"]
    assert problems[0] == ("a.png", "listed twice: val.json has it under two image ids")


def test_records_that_are_no_objects_are_named_by_their_place(tmp_path):
    value = content()
    value["images"].append("c.png")
    value["annotations"].insert(0, None)
    boxes, problems = read(tmp_path, value)
    assert [len(found) for found in boxes.values()] == [1, 1]
    assert problems == [
        ("", "broken record: val.json, images[2] lacks a proper id, file_name"),
        ("", "broken record: val.json, annotations[0] lacks a proper id, image_id, category_id, bbox"),
    ]


def test_a_byte_order_mark_does_no_harm(tmp_path):
    expected = read(tmp_path, content())
    (tmp_path / "val.json").write_text(json.dumps(content()), encoding="utf-8-sig")
    frames = read_frame_list(tmp_path / "val.json", LABELS)
    assert (frames.boxes, frames.problems) == expected


WHOLE = json.dumps(content())
DAMAGED = {
    "truncated": (WHOLE[:-40].encode(), r" is not valid JSON \(.*\): unpack its archive again"),
    "empty": (b"", " is not valid JSON"),
    "utf-16": (WHOLE.encode("utf-16"), " is not valid JSON"),
    "nested too deep": (b"[" * 100_000, " is not valid JSON"),
    "not an object": (b"[]", " has no list of categories: it is not the dataset's COCO-VID file"),
    "no annotations": (WHOLE.replace("annotations", "boxes").encode(), " has no list of annotations"),
    "empty list": (json.dumps({**content(), "images": []}).encode(), " has no list of images"),
    "two lists": (
        WHOLE.replace('"videos"', '"annotations"').encode(),
        " has two lists of annotations, and only one can count: unpack its archive again",
    ),
    "two names of a category": (
        WHOLE.replace('"id": 2, "name"', '"id": 1, "name"').encode(),
        ": every entry of categories needs an id of its own and a name",
    ),
    "true as a category": (
        WHOLE.replace('{"id": 1, "name"', '{"id": true, "name"', 1).encode(),
        ": every entry of categories needs",
    ),
    "nameless category": (WHOLE.replace('"name"', '"title"').encode(), ": every entry of categories needs"),
}


@pytest.mark.parametrize("case", DAMAGED)
def test_a_damaged_file_is_an_error_that_names_it(tmp_path, case):
    data, message = DAMAGED[case]
    (tmp_path / "val.json").write_bytes(data)
    with pytest.raises(BusflowError, match=f"val.json{message}"):
        read_frame_list(tmp_path / "val.json", LABELS)
