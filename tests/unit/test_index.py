import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from busflow.data.index import build_index, check_budget
from busflow.data.inspection import read_source
from busflow.errors import BusflowError
from layouts import LinLayout, busi_layout, picture, rodrigues_layout, save

SCRIPT = Path(__file__).parents[2] / "scripts" / "build_index.py"
SETTINGS = {
    "sources": {"lin": {}, "busi": {}, "rodrigues": {}},
    "quarantine": {"max_share": 0.05},
    "duplicates": {"hash_distance": 10, "ncc": 0.9},
}
LESION = picture()


class Study:
    """The three layouts, each read into its own folder; ``index`` merges them."""

    def __init__(self, folder: Path) -> None:
        self.lin = LinLayout(folder)
        self.busi = busi_layout(folder)
        self.rodrigues = rodrigues_layout(folder)
        self.raw = {"lin": self.lin.raw, "busi": self.busi.parent, "rodrigues": self.rodrigues.parent}
        self.output = folder / "index"
        self.settings = json.loads(json.dumps(SETTINGS))

    def frame(self, name: str) -> Path:
        return self.lin.root / "rawframes" / name

    def read(self) -> list[Path]:
        folders = [self.output / "sources" / source for source in self.raw]
        for folder in folders:
            read_source(folder.name, {"reader": folder.name}, self.raw[folder.name], folder, threads=1)
        return folders

    def index(self) -> dict[str, pd.DataFrame]:
        build_index(self.read(), self.settings, self.output)
        return {
            name: pd.read_csv(self.output / f"{name}.csv", keep_default_na=False)
            for name in ("images", "annotations", "quarantine", "duplicates")
        }


@pytest.fixture
def study(tmp_path) -> Study:
    return Study(tmp_path)


def test_the_index_holds_all_sources_sorted_by_image_id(study):
    index = study.index()
    images = index["images"]
    assert images.groupby("source").size().to_dict() == {"busi": 6, "lin": 9, "rodrigues": 15}
    assert images["image_id"].is_monotonic_increasing
    assert list(images) == [
        "image_id",
        "source",
        "label",
        "path",
        "width",
        "height",
        "sha256",
        "pixel_sha256",
        "group",
        "upstream_split",
    ]
    assert set(index["annotations"]["image_id"]) <= set(images["image_id"])
    assert len(index["annotations"]) == 4 + 6
    assert index["quarantine"].empty
    assert index["duplicates"].empty
    assert images["group"].nunique() == 6 + 3 + 3


def test_the_order_of_the_sources_does_not_matter(study):
    first = study.index()
    build_index(study.read()[::-1], study.settings, study.output / "again")
    for name, table in first.items():
        again = pd.read_csv(study.output / "again" / f"{name}.csv", keep_default_na=False)
        pd.testing.assert_frame_equal(table, again)


def test_a_copy_across_sources_ties_their_groups(study):
    save(study.busi / "benign" / "benign (2).png", LESION)
    save(study.rodrigues / "benign" / "us3.bmp", LESION)
    index = study.index()
    assert index["duplicates"].to_numpy().tolist() == [
        ["busi/benign/benign (2)", "rodrigues/benign/us3", "exact", 1.0]
    ]
    group = index["images"].set_index("image_id")["group"]
    assert group["busi/benign/benign (2)"] == group["rodrigues/benign/us1"] == "busi/benign/benign (2)"
    assert index["quarantine"].empty


def test_cross_label_copies_stay_in_the_index_and_are_quarantined_for_grouped(study):
    save(study.busi / "benign" / "benign (2).png", LESION)
    save(study.rodrigues / "malignant" / "us8.bmp", LESION)
    index = study.index()
    reasons = index["quarantine"].set_index("image_id")["reason"].to_dict()
    us8 = "rodrigues/malignant/us8"
    identical = f"cross-label duplicate: {us8} is identical to busi/benign/benign (2), labelled benign"
    assert reasons == {
        "busi/benign/benign (2)": "cross-label duplicate: busi/benign/benign (2) is identical to "
        f"{us8}, labelled malignant",
        **{f"rodrigues/malignant/us{number}": identical for number in range(6, 11)},
    }
    assert set(index["quarantine"]["scope"]) == {"grouped"}
    assert set(reasons) <= set(index["images"]["image_id"])


def test_near_copies_with_other_labels_are_named_with_their_correlation(study):
    save(study.busi / "benign" / "benign (2).png", LESION)
    save(study.busi / "normal" / "normal (1).png", (LESION * 0.9).astype(np.uint8))
    quarantine = study.index()["quarantine"]
    assert quarantine["reason"].iloc[0] == (
        "cross-label duplicate: busi/benign/benign (2) is a near-duplicate (NCC 1.000) of "
        "busi/normal/normal (1), labelled normal"
    )
    assert len(quarantine) == 2


def test_relabelled_videos_do_not_contradict_their_copies(study):
    for name in ("benign/x1a/000000.png", "malignant/3c/000001.png"):
        save(study.frame(name), LESION)
    assert len(study.index()["quarantine"]) == 6
    study.settings["sources"]["lin"]["errata"] = {"relabel": {"benign/1a": "malignant"}}
    index = study.index()
    assert index["quarantine"].empty
    images = index["images"].set_index("image_id")
    assert images.loc["lin/benign/x1a/000000", "label"] == "benign"  # the index keeps upstream's label
    assert images.loc["lin/benign/x1a/000002", "group"] == images.loc["lin/malignant/3c/000000", "group"]


def test_a_withdrawn_video_is_quarantined_for_grouped_and_spares_its_copy(study):
    for name in ("benign/x1a/000000.png", "malignant/3c/000001.png"):
        save(study.frame(name), LESION)
    study.settings["sources"]["lin"]["errata"] = {"drop": ["benign/x1a"]}
    quarantine = study.index()["quarantine"]
    assert quarantine["image_id"].tolist() == [f"lin/benign/x1a/{frame:06d}" for frame in range(3)]
    assert set(quarantine["scope"]) == {"grouped"}
    assert set(quarantine["reason"]) == {"erratum: the makers of the dataset withdrew this video"}


def test_videos_of_one_patient_are_one_group(study):
    study.settings["sources"]["lin"]["errata"] = {"same_patient": [["benign/x1a", "malignant/x3c"]]}
    images = study.index()["images"].set_index("image_id")
    assert images.loc["lin/malignant/3c/000002", "group"] == "lin/benign/x1a"
    assert images.loc["lin/malignant/x2b/000000", "group"] == "lin/malignant/x2b"


def test_what_the_readers_left_out_is_in_the_quarantine(study):
    study.settings["quarantine"]["max_share"] = 0.1
    (study.rodrigues / "benign" / "us1.bmp").write_bytes(b"")
    quarantine = study.index()["quarantine"]
    assert quarantine[["source", "image_id", "reason", "scope"]].to_numpy().tolist() == [
        ["rodrigues", "rodrigues/benign/us1", "empty file: it has no bytes", "all"]
    ]


def test_a_source_past_its_budget_is_an_error_that_says_why_and_where(study):
    (study.rodrigues / "benign" / "us1.bmp").write_bytes(b"")
    (study.rodrigues / "benign" / "us2.bmp").write_bytes(b"x")
    (study.rodrigues / "benign" / "us3.bmp").write_bytes(b"")
    with pytest.raises(BusflowError) as error:
        study.index()
    folder = study.output / "sources" / "rodrigues"
    assert str(error.value) == (
        "source rodrigues: 3 of 15 files (20.0%) are in quarantine, "
        "more than quarantine.max_share = 5.0% allows: empty file (2), not an image (1); "
        f"for one, {study.rodrigues / 'benign' / 'us1.bmp'}: empty file: it has no bytes. "
        f"All are listed in {folder / 'quarantine.csv'}; "
        "mend the data, or raise quarantine.max_share if they may be missing"
    )
    assert (folder / "quarantine.csv").exists()
    assert not (study.output / "images.csv").exists()


def test_the_budget_is_a_share_that_may_just_be_reached(study):
    (study.rodrigues / "benign" / "us1.bmp").write_bytes(b"")
    folder = study.read()[2]
    check_budget(folder, 1 / 15)
    with pytest.raises(BusflowError, match="1 of 15 files"):
        check_budget(folder, 1 / 15 - 1e-6)


def test_a_remark_on_what_stays_in_is_no_part_of_the_budget(tmp_path):
    for name in ("benign/p1_a.png", "malignant/p1_b.png"):
        save(tmp_path / "raw" / name, picture())
    for reader in ({"folders": {}}, {"folders": {"unit": r"(?P<unit>p\d)"}}):
        read_source("mine", {"reader": reader}, tmp_path / "raw", tmp_path / "mine", threads=1)
        assert len((tmp_path / "mine" / "quarantine.csv").read_text().splitlines()) == 2
        check_budget(tmp_path / "mine", 0)


def test_a_source_given_twice_is_an_error(study):
    folders = study.read()
    with pytest.raises(BusflowError, match=r"lin/benign/x1a/000000 is in the sources twice"):
        build_index([*folders, folders[0]], study.settings, study.output)


def test_the_script_builds_the_index(study):
    command = [sys.executable, SCRIPT, "--settings", json.dumps(study.settings), "--output", study.output]
    subprocess.run([*command, "--sources", *study.read()], check=True)
    assert (study.output / "images.csv").exists()


def test_what_a_killed_run_left_is_swept_away(study):
    study.output.mkdir()
    for name in ("images", "annotations", "quarantine", "duplicates"):
        (study.output / f".{name}.csv.abcd1234.csv").write_text("half")
    study.index()
    assert list(study.output.glob(".*")) == []
