"""How far predictions are apart, and what a verification says of what differs."""

import json
import math
import runpy
import sys
from pathlib import Path

import numpy as np
import pytest
from faster_coco_eval.core import mask

import busflow.recording.verify
from busflow.metrics.scores import scores
from busflow.recording.checks import Check, as_table, kind_of
from busflow.recording.predictions import difference

ROOT = Path(__file__).parents[2]


def outline(pixels: int) -> dict:
    """A mask of 100 pixels, of which the first ``pixels`` are set."""
    drawn = (np.arange(100).reshape(10, 10) < pixels).astype(np.uint8)
    encoded = mask.encode(np.asfortranarray(drawn))
    return {"size": [10, 10], "counts": encoded["counts"].decode()}


BOX = {"image_id": "a", "label": "benign", "bbox": [1.0, 2.0, 3.0, 4.0], "score": 0.5}


@pytest.mark.parametrize(
    ("one", "other", "apart"),
    [
        ([BOX], [BOX], 0),
        ([BOX], [BOX | {"score": 0.25}], 0.25),
        ([BOX], [BOX | {"bbox": [1.0, 2.0, 3.0, 4.5]}], 0.5),
        ([BOX], [BOX | {"label": "malignant"}], math.inf),
        ([BOX], [BOX, BOX], math.inf),
        ([{"segmentation": outline(40)}], [{"segmentation": outline(43)}], 0.03),
    ],
)
def test_boxes_and_masks_differ_by_their_largest_difference(tmp_path, one, other, apart):
    for name, content in {"one": one, "other": other}.items():
        (tmp_path / f"{name}.json").write_text(json.dumps(content))
    assert difference(tmp_path / "one.json", tmp_path / "other.json") == pytest.approx(apart)


@pytest.mark.parametrize(
    ("row", "apart"), [("a,0.51", 0.01), ("b,0.5", math.inf), ("a,0.5\na,0.5", math.inf)]
)
def test_tables_of_predictions_differ_by_their_largest_difference(tmp_path, row, apart):
    (tmp_path / "one.csv").write_text("image_id,p\na,0.5\n")
    (tmp_path / "other.csv").write_text(f"image_id,p\n{row}\n")
    assert difference(tmp_path / "one.csv", tmp_path / "other.csv") == pytest.approx(apart)


def test_scores_are_the_leading_numbers_and_null_stays_null():
    metrics = {"coco": {"ap": 0.1, "ap50": 0.2, "ap75": None, "ar100": 0.3}, "n": 5}
    assert scores("detection", metrics) == {"ap": 0.1, "ap50": 0.2, "ap75": None, "ar100": 0.3}


def test_the_table_counts_what_is_equal_and_names_what_is_not():
    text = as_table([Check("recorded tables", 3, ["results/tables/table2.csv"])])
    assert "| recorded tables |          3 |       2 |        1 |" in text
    assert text.endswith("differs: recorded tables: results/tables/table2.csv")


def test_files_are_counted_by_their_kind():
    kinds = {
        "results/paper/detection/swin_base/seed0/predictions.json": "predictions",
        "results/tables/table1.md": "tables",
        "results/figures": "figures",
        "data/splits/paper/detection.csv": "data",
    }
    assert {path: kind_of(path) for path in kinds} == kinds


@pytest.mark.parametrize(
    ("differing", "status"), [([], None), (["x"], "The study is not what is on record.")]
)
def test_the_exit_status_of_the_audit_says_whether_anything_differs(monkeypatch, differing, status):
    monkeypatch.setattr(busflow.recording.verify, "verify", lambda study: [Check("files", 1, differing)])
    monkeypatch.setattr(sys, "argv", ["verify.py", "--study", "demo"])
    if status is None:
        runpy.run_path(str(ROOT / "scripts/verify.py"), run_name="__main__")
        return
    with pytest.raises(SystemExit) as exit_:
        runpy.run_path(str(ROOT / "scripts/verify.py"), run_name="__main__")
    assert exit_.value.code == status
