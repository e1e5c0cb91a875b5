"""External tests: what of a source may test a study, and how its scores stand beside the study's own."""

import numpy as np
import pandas as pd
import pytest

from busflow.audit.evidence import Evidence
from busflow.audit.external import external_claims
from busflow.audit.verdicts import CONTRADICTED, NOT_TESTABLE, REPRODUCED
from busflow.data.external import build_external_index, external_split
from busflow.data.inspection import read_source
from busflow.errors import BusflowError
from busflow.figures import external as figures
from busflow.figures import style
from busflow.files import read_csv, write_csv
from busflow.metrics.classification import evaluate
from busflow.metrics.resamples import write_metrics
from busflow.tables.external import external
from busflow.units import units
from layouts import busi_layout, picture, rodrigues_layout, save
from study_files import make_images, make_predictions, make_split, study_settings, write_study

SETTINGS = {
    "sources": {"busi": {}, "clinic": {}},
    "quarantine": {"max_share": 0.05},
    "duplicates": {"hash_distance": 10, "ncc": 0.9},
}
TABLES = ("images", "annotations", "quarantine", "duplicates")


class Clinic:
    """A study of BUSI's layout, and a clinic with images in that of Rodrigues (or of BUSI, with masks)."""

    def __init__(self, folder, layout=rodrigues_layout, reader="rodrigues"):
        self.folder, self.reader = folder, reader
        self.busi, self.clinic = busi_layout(folder / "study"), layout(folder / "outside")

    def index(self) -> dict[str, pd.DataFrame]:
        folders = [self.folder / name for name in ("busi", "clinic")]
        for folder, reader, raw in zip(
            folders, ("busi", self.reader), (self.busi.parent, self.clinic.parent), strict=True
        ):
            read_source(folder.name, {"reader": reader}, raw, folder, threads=1)
        build_external_index(folders[1], folders[:1], SETTINGS, self.folder / "index")
        return {name: read_csv(self.folder / f"index/{name}.csv") for name in TABLES}

    def split(self, task: str) -> tuple[pd.DataFrame, pd.DataFrame]:
        index = self.index()
        tables = [index[name] for name in ("images", "annotations", "quarantine")]
        return external_split(*tables, task, SETTINGS["sources"])


def test_an_external_index_holds_the_source_alone_in_groups_of_its_own(tmp_path):
    images = Clinic(tmp_path).index()["images"]
    assert set(images["source"]) == {"clinic"} and len(images) == 15
    assert images.groupby("group").size().to_list() == [5, 5, 5]
    assert list(images)[-2:] == ["group", "upstream_split"]


@pytest.mark.parametrize("noise", [0, 3])
def test_a_copy_of_an_image_of_the_study_is_left_out_with_its_whole_group(tmp_path, noise):
    clinic = Clinic(tmp_path)
    lesion = picture()
    spots = np.random.default_rng(0).integers(0, noise + 1, lesion.shape).astype(np.uint8)
    save(clinic.busi / "benign" / "benign (2).png", lesion)
    save(clinic.clinic / "benign" / "us3.bmp", np.minimum(lesion, 255 - noise) + spots)
    split, excluded = clinic.split("classification")
    assert excluded["image_id"].to_list() == [f"clinic/benign/us{k}" for k in range(1, 6)]
    assert excluded["reason"].str.contains("not external: clinic/benign/us3 is a copy").all()
    assert excluded["reason"].str.contains("busi/benign/benign (2) of the study", regex=False).all()
    assert len(split) == 10 and set(split["split"]) == {"test"}


def test_copies_inside_an_external_source_stay_and_make_one_group(tmp_path):
    clinic, lesion = Clinic(tmp_path), picture()
    for name in ("us1", "us6"):
        save(clinic.clinic / "malignant" / f"{name}.bmp", lesion)
    index = clinic.index()
    groups = index["images"].set_index("image_id")["group"]
    assert groups["clinic/malignant/us1"] == groups["clinic/malignant/us6"]
    assert index["duplicates"]["kind"].to_list() == ["exact"]
    assert index["quarantine"].empty


def test_a_source_without_boxes_cannot_test_detection_and_the_error_says_what_to_do(tmp_path):
    with pytest.raises(
        BusflowError, match=r"clinic can test detection.*no annotated lesion.*out of its tasks"
    ):
        Clinic(tmp_path).split("detection")


def test_masks_give_an_external_test_of_detection_and_of_segmentation(tmp_path):
    clinic = Clinic(tmp_path, busi_layout, "busi")
    normals = set(clinic.index()["images"].query("label == 'normal'")["image_id"])
    detection, without_box = clinic.split("detection")
    segmentation, without_mask = clinic.split("segmentation")
    assert set(without_box["image_id"]) == normals and without_mask.empty
    assert set(segmentation["image_id"]) == normals | set(detection["image_id"])


@pytest.fixture
def study(tmp_path):
    """Two classifiers of the small study, tested on a clinic that has no normal image."""
    settings = study_settings(models=("convnext_atto", "convnext_nano"))
    settings["external"] = {"clinic": {"label": "A clinic"}}
    paths = write_study(tmp_path, settings)
    images = make_images()
    outside = images[(images["source"] == "busi") & (images["label"] != "normal")]
    outside = outside.assign(image_id="clinic/" + outside["image_id"], group="clinic/" + outside["group"])
    split = make_split(outside, "group").assign(split="test")
    write_csv(tmp_path / "external/clinic/classification/split.csv", split)
    excluded = tmp_path / "external/clinic/classification/excluded.csv"
    write_csv(excluded, pd.DataFrame({"image_id": ["a", "b"], "reason": ["not external: a is a copy"] * 2}))
    external_paths = []
    for number, path in enumerate(paths["metrics"]):
        folder = path.parent / "external/clinic"
        write_csv(folder / "predictions.csv", make_predictions(split, number, skill=0.2))
        write_metrics(
            folder / "metrics.json",
            evaluate(folder / "predictions.csv", tmp_path / "external/clinic/classification/split.csv"),
        )
        external_paths.append(folder / "metrics.json")
    return settings, external(paths["metrics"], external_paths, [excluded], settings), tmp_path


def test_each_model_has_a_row_for_its_own_split_and_one_for_each_external_source(study):
    _, table, _ = study
    assert table.data["test"].to_list() == ["internal", "clinic"] * 4
    inside, outside = table.data.iloc[0], table.data.iloc[1]
    assert outside["accuracy_drop"] == pytest.approx(inside["accuracy"] - outside["accuracy"])
    assert outside["accuracy_drop_low"] < outside["accuracy_drop"] < outside["accuracy_drop_high"]
    assert table.data.loc[table.data["test"] == "internal", "accuracy_drop"].isna().all()


def test_a_class_that_an_external_source_lacks_is_undefined_with_its_count(study):
    _, table, _ = study
    outside = table.data[table.data["test"] == "clinic"]
    assert outside["score_normal"].isna().all() and (outside["n_normal"] == 0).all()
    assert set(table.shown.loc[outside.index, "Recall of normal (n)"]) == {"n/a (0)"}


def test_the_table_counts_what_was_left_out_by_reason(study):
    _, table, _ = study
    assert "Left out of A clinic: 2 not external." in table.notes


def test_an_external_source_that_the_config_lacks_is_refused():
    settings = study_settings() | {"external": {"clinic": {"label": "A clinic"}}}
    path = "results/paper/classification/convnext_atto/seed0/external/other/metrics.json"
    with pytest.raises(BusflowError, match="no external source other"):
        units([path], settings)


def test_the_figure_shows_each_test_with_its_change_as_a_number(study):
    settings, table, folder = study
    path = folder / "tables/external_classification.csv"
    write_csv(path, table.data)
    style.theme()
    figure = figures.external([path], settings)
    texts = [text.get_text() for panel in figure.axes for text in panel.texts]
    drops = table.data["balanced_accuracy_drop"].dropna()
    assert sorted(t for t in texts if t != "change") == sorted(
        f"{0 - d:+.3f}".replace("-", "−") for d in drops
    )


def claims(settings, tables):
    evidence = Evidence.__new__(Evidence)
    evidence.settings, evidence.tables = settings, tables
    return {claim.id: claim for claim in external_claims(evidence)}


def test_a_study_without_external_sources_cannot_test_the_papers_external_validity():
    found = claims(study_settings(), {})
    assert found["S5.external_classification"].verdict == NOT_TESTABLE
    assert "use: external" in found["S5.external_classification"].why
    assert found["S5.external_detection"].why == "not in this study: detection"


def test_generalisation_is_contradicted_by_a_drop_beyond_chance_and_only_by_that(study):
    settings, table, _ = study
    name = "S5.external_classification"
    assert claims(settings, {"external_classification": table.data})[name].verdict == CONTRADICTED
    level = table.data.assign(balanced_accuracy_drop_low=-0.1)
    found = claims(settings, {"external_classification": level})[name]
    assert found.verdict == REPRODUCED and "largest drop" in found.ours_grouped


def test_the_drop_of_a_split_is_that_of_the_first_protocol_of_it_whatever_its_name(study):
    settings, table, _ = study
    entries = settings["protocols"]
    renamed = settings | {"protocols": {"ours": entries["grouped"], "fold_1": entries["paper"]}}
    renamed["protocols"]["fold_1"] = {"label": "Fold 1", "split": "grouped", "fold": [1, 2]}
    data = table.data.replace({"protocol": {"grouped": "ours", "paper": "fold_1"}})
    found = claims(renamed, {"external_classification": data})["S5.external_classification"]
    assert found.ours_grouped.startswith("largest drop ") and found.ours_paper_protocol == "–"
