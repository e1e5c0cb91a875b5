"""Datasets that a table describes; what is wrong with one has its line."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from busflow.errors import BusflowError
from layouts import LESION, mask_of, picture, read_described, reasons, save

CSV = {"file": "cases.csv", "image": "file", "label": "diagnosis", "unit": "patient"}
ROWS = [
    "file,diagnosis,patient",
    "a.jpg,Benign,1",
    "b.jpg,malignant,2",
    "sub/c.jpg, BENIGN ,1",
    "d.jpg,normal,3",
]


class Hospital:
    """A folder of JPEGs with a CSV; bend it, then ``read``."""

    def __init__(self, raw: Path) -> None:
        self.raw, self.rows = raw, list(ROWS)
        for name in ("a.jpg", "b.jpg", "sub/c.jpg", "d.jpg"):
            save(raw / name, picture())

    def read(self, **spec):
        (self.raw / "cases.csv").write_text("\n".join(self.rows) + "\n", encoding="utf-8")
        return read_described(self.raw, {"table": {**CSV, **spec}})

    def lines(self, **spec) -> dict[str, str]:
        return reasons(self.read(**spec)[2], self.raw)


@pytest.fixture
def hospital(tmp_path) -> Hospital:
    return Hospital(tmp_path / "raw")


def test_a_folder_of_jpegs_with_a_csv_is_read(hospital):
    images, annotations, quarantine = hospital.read()
    assert images.set_index("image_id")["label"].to_dict() == {
        "mine/a": "benign",
        "mine/b": "malignant",
        "mine/d": "normal",
        "mine/sub/c": "benign",
    }
    assert images.set_index("image_id")["unit"].to_dict() == {
        "mine/a": "mine/1",
        "mine/b": "mine/2",
        "mine/d": "mine/3",
        "mine/sub/c": "mine/1",
    }
    assert annotations.empty and quarantine.empty


@pytest.mark.parametrize("separator", [";", "\t", "|"])
@pytest.mark.parametrize("start", ["", "\ufeff"])
def test_separators_and_a_byte_order_mark_are_found_out(hospital, separator, start):
    hospital.rows = [row.replace(",", separator) for row in hospital.rows]
    hospital.rows[0] = start + hospital.rows[0]
    images, _, quarantine = hospital.read()
    assert len(images) == 4 and quarantine.empty


def test_columns_are_found_whatever_their_case_and_words_are_mapped(hospital):
    hospital.rows = [
        "File,DIAGNOSIS ,Patient",
        "a.jpg,4,1",
        "b.jpg,K,2",
        "sub/c.jpg,4,3",
        "d.jpg,k,3",
        "",
        " , , ",
    ]
    images, _, _ = hospital.read(labels={"4": "malignant", "k": "benign"})
    assert images["label"].tolist() == ["malignant", "benign", "benign", "malignant"]


def test_a_spreadsheet_is_read_and_its_sheet_chosen(hospital):
    table = pd.DataFrame({"file": ["a.jpg", "b.jpg"], "diagnosis": [4, 2], "patient": [1, 2]})
    spec = {
        "file": "cases.xlsx",
        "labels": {"4": "malignant", "2": "benign"},
        "ignore": ["d.jpg", "sub/*", "*.csv"],
    }
    with pd.ExcelWriter(hospital.raw / "cases.xlsx") as book:
        pd.DataFrame({"x": [1]}).to_excel(book, sheet_name="notes", index=False)
        table.to_excel(book, sheet_name="labels", index=False)
    images, _, quarantine = hospital.read(**spec, sheet="labels")
    assert images["label"].tolist() == ["malignant", "benign"] and quarantine.empty
    with pytest.raises(
        BusflowError, match=r"cases\.xlsx has no column 'file', which .*\.image asks for; it has x"
    ):
        hospital.read(**spec)
    with pytest.raises(BusflowError, match=r"cases\.xlsx is no table that can be read: .*labs"):
        hospital.read(**spec, sheet="labs")


# --- bad tables


@pytest.mark.parametrize(
    ("row", "path", "reason", "left"),
    [
        (
            "gone.jpg,benign,9",
            "gone.jpg",
            "missing image: row 6 of cases.csv names it, but it is not there",
            4,
        ),
        (
            "/etc/a.jpg,benign,9",
            "cases.csv",
            "impossible path: row 6 of cases.csv names '/etc/a.jpg', which",
            4,
        ),
        (
            "../a.jpg,benign,9",
            "cases.csv",
            "impossible path: row 6 of cases.csv names '../a.jpg', which may",
            4,
        ),
        ("sub\\c.jpg,benign,9", "cases.csv", "impossible path: row 6 of cases.csv names 'sub\\\\c.jpg'", 4),
        (
            "./a.jpg,benign,1",
            "cases.csv",
            "impossible path: row 6 of cases.csv names './a.jpg', which has nee",
            4,
        ),
        (",benign,9", "cases.csv", "no image: row 6 of cases.csv names 0 files", 4),
        (
            "e.jpg,cyst,9",
            "e.jpg",
            "unknown label: 'cyst' is none of benign, malignant, normal, and labels",
            4,
        ),
        ("e.jpg,,9", "e.jpg", "no label: it is empty (row 6 of cases.csv)", 4),
        (
            "a.jpg,malignant,1",
            "a.jpg",
            "two labels: cases.csv says 'Benign' in row 2, 'malignant' in row 6",
            3,
        ),
        ("a.jpg,benign,7", "a.jpg", "two units: cases.csv says '1' in row 2, '7' in row 6", 3),
        ("a.jpg,benign,1", "a.jpg", "listed twice: rows 2 and 6 of cases.csv name it", 4),
        ("e.jpg,benign,", "e.jpg", "unknown unit: row 6 of cases.csv and the name do not tell it", 4),
        (None, "e.jpg", "not listed: no row of cases.csv names it", 4),
    ],
)
def test_a_bad_row_has_its_line(hospital, row, path, reason, left):
    if row is None or row.startswith("e.jpg"):
        save(hospital.raw / "e.jpg", picture())
    if row is not None:
        hospital.rows.append(row)
    images, _, quarantine = hospital.read()
    lines = reasons(quarantine, hospital.raw)
    told = [reason for where, reason in lines.items() if where == path]
    assert any(each.startswith(reason) for each in told), lines
    assert len(images) == left
    if reason.startswith(("missing", "unknown", "two", "no label")):
        assert set(quarantine["image_id"]) >= {f"mine/{path.removesuffix('.jpg')}"}


def test_a_patient_with_both_labels_stays_and_is_told_once(hospital):
    hospital.rows[2] = "b.jpg,malignant,1"
    images, _, quarantine = hospital.read()
    assert len(images) == 4 and images["unit"].nunique() == 2
    assert reasons(quarantine, hospital.raw) == {
        "cases.csv": "several labels: unit 1 has 2 benign, 1 malignant images; all are kept, on one side"
    }
    assert quarantine["image_id"].tolist() == [""]


def test_without_a_unit_each_image_is_one_and_the_index_says_so(hospital, caplog):
    spec = {key: value for key, value in CSV.items() if key != "unit"}
    hospital.read()
    images, _, quarantine = read_described(hospital.raw, {"table": spec})
    assert images["unit"].tolist() == images["image_id"].tolist()
    assert quarantine["reason"].str.startswith("no unit: each image counts as independent").tolist() == [True]
    assert "no unit" in caplog.text


def test_files_that_are_no_images_are_named_unless_ignored(hospital):
    (hospital.raw / "README.txt").write_text("x")
    (hospital.raw / ".hidden").write_text("x")
    assert hospital.lines() == {"README.txt": "unexpected file: no row of cases.csv names it"}
    assert hospital.lines(ignore=["*.txt"]) == {}


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", r"cases\.csv is no table that can be read: it is empty"),
        (b"file,diagnosis,patient\n", r"cases\.csv has no row below its header"),
        (
            b"file,diagnosis\na.jpg,benign\n",
            r"cases\.csv has no column 'patient', which .*table\.unit asks for; it has file",
        ),
        (b"file,file,diagnosis,patient\n1,2,3,4\n", r"cases\.csv has two columns 'file'"),
        (b"file,diagnosis,patient\na.jpg,benign,1,2\n", r"row 2 has 4 cells, the header 3"),
        (
            "file,diagnosis,patient\nä.jpg,benign,1\n".encode("cp1252"),
            r"cases\.csv is not in UTF-8: save it as",
        ),
        (
            b"file,diagnosis,patient\nx.jpg,benign,1\n",
            r"gives no image that can be used \(for one, .*x\.jpg: missing image",
        ),
    ],
)
def test_a_broken_table_is_one_clear_error(hospital, content, said):
    (hospital.raw / "cases.csv").write_bytes(content)
    with pytest.raises(BusflowError, match=said) as caught:
        read_described(hospital.raw, {"table": CSV})
    assert "\n" not in str(caught.value)


def test_a_missing_table_is_one_clear_error(hospital):
    with pytest.raises(BusflowError, match=r"should have one folder with cases\.csv, but has none"):
        read_described(hospital.raw, {"table": CSV})


# --- masks and boxes


def test_masks_by_column_and_by_template_and_several_in_a_cell(hospital):
    for name in ("a_1.png", "a_2.png", "b_1.png", "c_1.png"):
        save(
            hospital.raw / "masks" / name,
            mask_of((10, 5, 20, 15)) if name != "a_2.png" else mask_of((0, 30, 6, 10)),
        )
    hospital.rows = [
        "file,diagnosis,patient,mask",
        "a.jpg,benign,1,a_1.png & a_2.png",
        "b.jpg,malignant,2,b_1.png",
    ]
    hospital.rows += ["sub/c.jpg,benign,1,c_1.png", "d.jpg,normal,3,"]
    images, annotations, quarantine = hospital.read(mask="masks/{mask}")
    assert len(images) == 4 and quarantine.empty
    assert annotations.groupby("image_id").size().to_dict() == {"mine/a": 2, "mine/b": 1, "mine/sub/c": 1}
    assert annotations.iloc[1][["x", "y", "w", "h", "area"]].tolist() == [0, 30, 6, 10, 60]


def test_a_lesion_without_its_mask_and_a_mask_without_its_image_have_their_lines(hospital):
    save(hospital.raw / "a.png", LESION)
    save(hospital.raw / "gone.png", LESION)
    hospital.rows = ["file,diagnosis,patient,mask", "a.jpg,benign,1,a.png", "b.jpg,benign,2,b.png"]
    hospital.rows += ["sub/c.jpg,benign,1,../c.png", "gone.jpg,benign,3,gone.png", "d.jpg,normal,1,"]
    images, _, quarantine = hospital.read(mask="mask")
    told = set(zip(quarantine["path"].map(lambda path: Path(path).name), quarantine["reason"], strict=True))
    missing = "missing mask: a lesion needs at least one"
    gone = "missing image: row 5 of cases.csv names it, but it is not there"
    assert images["image_id"].tolist() == ["mine/a", "mine/d"]
    assert told == {
        ("b.jpg", "missing mask: row 3 names b.png, which is not there"),
        ("b.jpg", missing),
        (
            "c.jpg",
            "impossible path: row 4 names the mask '../c.png', which may lead out of it "
            "(absolute, backslash or '..')",
        ),
        ("c.jpg", missing),
        ("gone.jpg", gone),
        ("gone.png", f"left out with its image: {gone}"),
    }


@pytest.mark.parametrize(
    ("columns", "cells", "spec"),
    [
        ("x,y,w,h", "10,5,20,15", {"box": ["x", "y", "w", "h"]}),
        ("bbox", '"[10, 5, 20.0, 15]"', {"box": "bbox"}),
        ("l,t,r,b", "10,5,30,20", {"corners": ["l", "t", "r", "b"]}),
        ("b", "10 5 30 20", {"corners": "b"}),
    ],
)
def test_boxes_in_one_column_or_four(hospital, columns, cells, spec):
    empty = "," * columns.count(",")
    hospital.rows = [
        f"file,diagnosis,patient,{columns}",
        f"a.jpg,benign,1,{cells}",
        f"b.jpg,malignant,2,{empty}",
    ]
    hospital.rows += [f"a.jpg,benign,1,{cells.replace('10', '12')}", f"d.jpg,normal,3,{empty}"]
    _, annotations, quarantine = hospital.read(**spec, ignore=["sub/*"])
    assert quarantine.empty
    assert annotations["image_id"].tolist() == ["mine/a"] * 2
    assert annotations.iloc[0][["label", "x", "y", "w", "h", "area"]].tolist() == [
        "benign",
        10,
        5,
        20,
        15,
        300,
    ]


@pytest.mark.parametrize(
    ("cells", "reason"),
    [
        ('"[1, 2, 3]"', "broken box: row 2 of cases.csv has '[1, 2, 3]', not four numbers"),
        ('"[1, 2, 0, 3]"', "box without area: row 2 of cases.csv is 0.0 × 3.0 px"),
        ('"[90, 2, 5, 3]"', "box outside: row 2 of cases.csv is [90.0, 2.0, 5.0, 3.0], the frame 50 × 40 px"),
    ],
)
def test_an_impossible_box_has_its_line_and_its_image_stays(hospital, cells, reason):
    hospital.rows = [
        "file,diagnosis,patient,bbox",
        f"a.jpg,benign,1,{cells}",
        *(row + "," for row in ROWS[2:]),
    ]
    images, annotations, quarantine = hospital.read(box="bbox")
    assert (len(images), len(annotations)) == (4, 0)
    assert reasons(quarantine, hospital.raw) == {"a.jpg": reason}


def test_the_datasets_own_split_is_taken_over(hospital):
    hospital.rows = [
        "file,diagnosis,patient,set",
        "a.jpg,benign,1,Training",
        "b.jpg,malignant,2,TEST",
        "d.jpg,normal,3,",
    ]
    hospital.rows += ["sub/c.jpg,benign,1,other"]
    images, _, quarantine = hospital.read(split="set", splits={"training": "train"})
    assert images["upstream_split"].tolist() == ["train", "test", "", ""]
    assert list(reasons(quarantine, hospital.raw)) == ["sub/c.jpg"]
    assert quarantine["reason"].iloc[0].startswith("unknown split: 'other' is none of train, val, test")


# --- coloured masks


COLOURS = {"benign": "#00ff00", "malignant": "#ff0000"}


def coloured(path: Path, *lesions: tuple[str, tuple]) -> None:
    pixels = np.zeros((40, 50, 3), np.uint8)
    for colour, box in lesions:
        pixels[mask_of(box)] = [int(colour[k : k + 2], 16) for k in (1, 3, 5)]
    save(path, pixels)


GREEN, RED = ("#00ff00", (10, 5, 20, 15)), ("#ff0000", (30, 25, 10, 10))


def test_coloured_masks_are_read_and_kept_as_binary_ones(hospital):
    coloured(hospital.raw / "m" / "a.png", GREEN)
    coloured(hospital.raw / "m" / "b.png", RED)
    coloured(hospital.raw / "m" / "d.png")
    hospital.rows = ["file,diagnosis,patient", "a,benign,1", "b,malignant,2", "d,normal,3"]
    images, annotations, quarantine = hospital.read(
        image="{file}.jpg", mask="m/{file}.png", colours=COLOURS, ignore=["sub/*"]
    )
    assert len(images) == 3 and quarantine.empty
    assert annotations["label"].tolist() == ["benign", "malignant"]
    assert annotations.iloc[1][["x", "y", "w", "h", "area"]].tolist() == [30, 25, 10, 10, 100]
    shown = np.asarray(Image.open(annotations["mask_path"].iloc[0]))
    np.testing.assert_array_equal(shown, LESION)


@pytest.mark.parametrize(
    ("lesions", "reason"),
    [
        ([RED], "contradictory label: a.png shows a malignant lesion, the image is benign"),
        ([GREEN, RED], "contradictory label: a.png shows a malignant lesion, the image is benign"),
        ([], "empty mask: a.png shows no lesion"),
        (
            [("#00fe00", (10, 5, 20, 15))],
            "unknown colour: a.png has #00fe00 in 300 pixels, for which no label",
        ),
        ([("#00ff00", (0, 0, 50, 40))], "swapped mask: a.png marks 100% of the image"),
    ],
)
def test_a_coloured_mask_that_does_not_fit_leaves_its_image_out(hospital, lesions, reason):
    coloured(hospital.raw / "m" / "a.png", *lesions)
    hospital.rows = ["file,diagnosis,patient", "a.jpg,benign,1", "d.jpg,normal,3"]
    spec = {
        "mask": "m/{name}.png",
        "pattern": "(?P<name>[^/]+)$",
        "colours": COLOURS,
        "ignore": ["sub/*", "b.jpg"],
    }
    images, _, quarantine = hospital.read(**spec)
    assert len(images) == 1
    told = reasons(quarantine, hospital.raw)
    assert told["a.jpg"].startswith(reason) and told["m/a.png"] == f"left out with its image: {told['a.jpg']}"


def test_a_threshold_makes_soft_masks_and_colours_hard(hospital):
    soft = np.where(LESION, 250, 3).astype(np.uint8)
    save(hospital.raw / "m" / "a.png", soft)
    hospital.rows = ["file,diagnosis,patient", "a.jpg,benign,1", "d.jpg,normal,3"]
    spec = {"mask": "m/{name}.png", "pattern": "(?P<name>[^/]+)$", "ignore": ["sub/*", "b.jpg"]}
    assert hospital.lines(**spec)["a.jpg"].startswith(
        "mask not binary: a.png has 2 grey levels, 3 the lowest"
    )
    assert hospital.read(**spec, threshold=128)[1]["area"].tolist() == [300]
    coloured(hospital.raw / "m" / "a.png", ("#10f00f", (10, 5, 20, 15)))
    assert hospital.read(**spec, threshold=128, colours=COLOURS)[1]["area"].tolist() == [300]
