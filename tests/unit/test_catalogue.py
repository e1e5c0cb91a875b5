import pytest

from busflow.data.catalogue import check_source, complete
from busflow.errors import BusflowError

TABLE = {"file": "cases.csv", "image": "file", "label": "diagnosis"}


def source(**keys):
    return complete("hospital", {"urls": ["folder:/data"], "reader": {"table": TABLE}, **keys})


def test_what_goes_without_saying_is_said():
    assert source() == {
        "urls": ["folder:/data"],
        "reader": {"table": TABLE},
        "label": "hospital",
        "archive": "hospital.sha256sums",
        "tasks": ["classification"],
    }
    assert source(urls=["https://x.org/a%20b.tar.gz?download=1"])["archive"] == "a b.tar.gz"
    assert "archive" not in source(urls=["https://x.org/content"])
    assert source(label="L", tasks=["detection"])["tasks"] == ["detection"]


@pytest.mark.parametrize(
    ("reader", "tasks"),
    [
        ({"table": {**TABLE, "mask": "m"}}, ["classification", "segmentation"]),
        ({"table": {**TABLE, "mask": "m", "split": "s"}}, ["classification", "detection", "segmentation"]),
        ({"table": {**TABLE, "box": "b", "split": "s"}}, ["classification", "detection"]),
        ({"table": {**TABLE, "box": "b"}}, ["classification"]),
        ({"coco": {"file": {"train": "a.json", "val": "b.json"}}}, ["classification", "detection"]),
        ({"folders": {}}, ["classification"]),
    ],
)
def test_tasks_are_what_the_reader_gives(reader, tasks):
    assert source(reader=reader)["tasks"] == tasks


@pytest.mark.parametrize(
    ("file", "said"),
    [
        ("no.yaml", r"sources\.hospital\.from is .*no\.yaml, which cannot be read \(No such file"),
        ("[", r"sources\.hospital\.from: .* is no YAML"),
        ("- a", "is no entry of a source"),
        ("from: x", "is no entry of a source"),
    ],
)
def test_an_entry_that_cannot_be_taken_is_named(tmp_path, file, said):
    path = tmp_path / "no.yaml"
    if file != "no.yaml":
        path.write_text(file)
    with pytest.raises(BusflowError, match=said):
        complete("hospital", path.as_posix())


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"archive": "a.zip"}, r"sources\.hospital\.archive is a\.zip: leave it out, or end it in"),
        ({"urls": [], "archive": "a.sha256sums"}, "name an archive"),
        ({"urls": ["folder:."]}, r"sources\.hospital\.urls: the study itself writes to "),
        ({"urls": ["folder:/a", "folder:/b"]}, "must be the only one of its source's urls"),
        ({"reader": {"table": {**TABLE, "mask": "m", "box": "b"}}}, "has two of mask, box, corners"),
        ({"reader": {"table": {"file": "a", "image": "b"}}}, "needs label, a column or a pattern"),
        ({"reader": {"table": {**TABLE, "colours": {"benign": "#00ff00"}}}}, r"no .*\.mask that names any"),
        ({"reader": {"table": {**TABLE, "image": "{a"}}}, r"table\.image is '\{a': expected a path"),
        ({"reader": {"table": {**TABLE, "label": "(?P<word>x)"}}}, r"needs a group \(\?P<label>"),
        (
            {"reader": {"table": {**TABLE, "series": 5}}},
            r"series counts numbers of .*unit, which is not there",
        ),
        ({"reader": {"folders": {"image": "x/*.png"}}}, "does not say the label"),
        ({"reader": {"folders": {"unit": "patient"}}}, "expected a pattern with"),
    ],
)
def test_parts_that_do_not_fit_each_other_are_named(keys, said):
    with pytest.raises(BusflowError, match=said):
        check_source("hospital", source(**keys))
