"""The table of leakage, from what a measurement leaves."""

import copy

import pytest

from busflow.errors import BusflowError
from busflow.files import write_json
from busflow.metrics.uncertainty import apart
from busflow.tables.leakage import leakage
from study_files import study_settings


def measured(neighbours: float, reach: float | None = 0.1) -> dict:
    shares = {"exact_duplicate": 0.0, "near_duplicate": 0.1, "same_group": neighbours / 2}
    interval = reach and [neighbours - reach, neighbours + reach]
    found = {"accuracy": neighbours, "interval": interval}
    part = {"n_train": 100, "n_test": 50, "n_groups": 40, **shares, "majority_accuracy": 0.5}
    part |= {"nearest_neighbour_accuracy": neighbours, "nearest_neighbour": {"pixels": found}}
    source = part | {"source_auroc": {"pixels": {"auroc": 0.9, "interval": [0.8, 0.95]}}}
    of_class = {"auroc": 0.6, "interval": None}
    return part | {"class_from_source": of_class, "pairs": [], "sources": {"busi": source, "lin": source}}


@pytest.fixture
def settings():
    return study_settings()


def table(folder, settings, **by_name):
    paths = [folder / f"{name}.json" for name in by_name]
    for path, content in zip(paths, by_name.values(), strict=True):
        write_json(path, content)
    found = leakage(paths, settings)
    return found, found.data.set_index(["task", "protocol", "source"])


def test_the_gap_is_the_difference_of_the_protocols_with_an_interval_of_its_own(tmp_path, settings):
    files = {"grouped_detection": measured(0.6, 0.2), "paper_detection": measured(0.9)}
    _, data = table(tmp_path, settings, **files)
    row = data.loc["detection", "paper", "lin"]
    low, high = apart((0.9, 0.8, 1.0), (0.6, 0.4, 0.8))
    assert [row.gap_pixels, row.gap_pixels_low, row.gap_pixels_high] == pytest.approx([0.3, low, high])
    assert data.loc["detection", "grouped"]["gap_pixels"].isna().all()


def test_a_gap_of_few_groups_has_no_interval_and_without_a_twin_there_is_none(tmp_path, settings):
    few = {"paper_detection": measured(0.9), "grouped_detection": measured(0.6, None)}
    _, data = table(tmp_path, settings, **few, paper_classification=measured(0.8))
    row = data.loc["detection", "paper", "all"]
    assert row.gap_pixels == pytest.approx(0.3) and row[["gap_pixels_low", "gap_pixels_high"]].isna().all()
    assert data.loc["classification", "paper"]["gap_pixels"].isna().all()


def test_tasks_protocols_and_sources_have_rows_in_the_order_of_the_study(tmp_path, settings):
    names = ("paper_segmentation", "grouped_classification", "paper_classification")
    parts = ("all", "busi", "lin")
    alone = copy.deepcopy(measured(0.7))
    del alone["sources"]["lin"]  # the task's only source is the whole
    found, data = table(tmp_path, settings, **dict.fromkeys(names, measured(0.7)), grouped_segmentation=alone)
    assert [*data.index] == [
        *(("classification", protocol, part) for protocol in ("paper", "grouped") for part in parts),
        *(("segmentation", "paper", part) for part in parts),
        ("segmentation", "grouped", "all"),
    ]
    assert found.shown["1-NN, pixels"][0] == "70.0 [60.0, 80.0]"
    assert found.shown["Source's AUROC, pixels"][:2].to_list() == ["–", "0.900 [0.800, 0.950]"]
    assert not [heading for heading in found.shown if "features" in heading]


def test_features_stand_beside_pixels_where_they_were_compared(tmp_path, settings):
    with_features = measured(0.7)
    with_features["nearest_neighbour"]["features"] = {"accuracy": 0.8, "interval": None}
    found, data = table(tmp_path, settings, paper_detection=with_features, grouped_detection=measured(0.5))
    assert found.shown["1-NN, frozen features"].to_list() == ["80.0"] * 3 + ["–"] * 3
    assert data["gap_features"].isna().all()


def test_a_file_of_no_protocol_is_refused(tmp_path, settings):
    with pytest.raises(BusflowError, match=r"other_detection.json: expected"):
        table(tmp_path, settings, other_detection=measured(0.7))
