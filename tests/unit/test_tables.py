"""Tables 1 to 5 and the classification tables: counts by hand, marks, notes and honesty."""

import json
import runpy
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn import metrics as sk

from busflow.errors import BusflowError
from busflow.files import read_json, sha256, write_json
from busflow.metrics.classification import evaluate
from busflow.metrics.resamples import write_metrics
from busflow.metrics.shares import swapped
from busflow.tables import classification as tables_classification
from busflow.tables import data as tables_data
from busflow.tables import table as tables
from busflow.units import units
from study_files import (
    BUSI,
    make_calibration,
    make_images,
    make_predictions,
    make_split,
    study_settings,
    write_facts,
    write_study,
)

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def settings():
    return study_settings(notice="TEST: nothing real")


@pytest.fixture(scope="module")
def study(tmp_path_factory, settings):
    root = tmp_path_factory.mktemp("study")
    return root, write_study(root, settings)


def page(table, tmp_path, notice=None):
    tables.write(table, tmp_path / "t.csv", tmp_path / "t.md", notice)
    return (tmp_path / "t.md").read_text()


def test_table1_counts_images_and_groups_per_source(study, settings):
    images = make_images()
    table = tables_data.table1(study[0] / "index/images.csv", settings).data.set_index("source")
    for source in settings["sources"]:
        part = images[images["source"] == source]
        for label in ("benign", "malignant", "normal"):
            assert table.loc[source, label] == (part["label"] == label).sum()
        assert table.loc[source, "groups"] == part["group"].nunique()
        assert table.loc[source, "total"] == len(part)
    assert table.loc["total", "total"] == len(images)
    assert table.loc["lin", "malignant_paper"] == 15475


def test_a_source_has_the_label_of_the_config_and_no_printed_value_if_the_paper_lacks_it(tmp_path):
    settings = study_settings()
    settings["sources"]["lin"]["label"] = "BUS-BRA as a stand-in"
    settings["sources"]["extra"] = {"label": "Another clinic", "original_task": "Detection"}
    images = make_images()
    images.loc[images["source"] == "busi", "source"] = "extra"
    images.to_csv(tmp_path / "images.csv", index=False)
    shown = tables_data.table1(tmp_path / "images.csv", settings).shown.set_index("Source")
    assert "BUS-BRA as a stand-in" in shown.index
    assert not shown.index.str.contains("Lin").any()
    assert shown.loc["Another clinic", "Benign (paper)"] == "–"
    assert shown.loc[BUSI, "Total"] == "0"


def test_table2_counts_each_subset_of_each_protocol(study, settings):
    data = tables_data.table2(study[1]["classification"], settings).data
    for path in study[1]["classification"]:
        split = pd.read_csv(path)
        part = data[data["protocol"] == path.parent.name].set_index("subset")
        for subset in ("train", "val", "test"):
            malignant = split[(split["split"] == subset) & (split["label"] == "malignant")]
            assert part.loc[subset, "malignant"] == len(malignant)
        assert part.loc["total", "total"] == len(split)
        assert set(part["split_sha256"]) == {sha256(path)}
    assert data.set_index(["protocol", "subset"]).loc[("paper", "test"), "total_paper"] == 2646


def test_table3_counts_images_boxes_and_videos_and_shows_the_papers_wrong_sums(study, settings):
    table = tables_data.table3(study[1]["detection"], study[0] / "index/annotations.csv", settings)
    paper = table.data[table.data["protocol"] == "paper"].set_index("subset")
    grouped = table.data[table.data["protocol"] == "grouped"].set_index("subset")
    assert paper.loc["total", "images_total"] == 26 * 6
    assert paper.loc["total", "boxes_total"] == 26 * 6 + 3
    assert paper.loc["total", "videos_total"] == grouped.loc["total", "videos_total"] == 26
    # Frames are shuffled in protocol paper, so a video counts in several subsets; in grouped it cannot.
    assert paper.loc[["train", "val", "test"], "videos_total"].sum() > 26
    assert grouped.loc[["train", "val", "test"], "videos_total"].sum() == 26
    assert paper["difference_paper"].tolist() == [2640, 500, -1000, -37]


def test_table5_marks_the_printed_values_that_arithmetic_contradicts(tmp_path):
    settings = study_settings()
    shown = tables_classification.table5(write_facts(tmp_path / "f.json", settings), settings).shown
    shown = shown.set_index("Network")
    assert shown.loc["ConvNeXt-Small", "Size (MB), arithmetic"] == "197.8"
    assert shown.loc["ConvNeXt-Small", "Size, 3 classes (MB)"] == "197.8"
    assert shown.loc["ConvNeXt-Small", "Size (MB) (paper)"] == "205.3"
    assert shown.loc["ConvNeXt-Atto", "Size (MB), arithmetic"] == "–"
    assert shown.loc["ConvNeXt-Atto", "Params (M) (paper)"] == "3.7"


def test_classification_means_and_spreads_are_over_the_seeds(tmp_path):
    settings = study_settings()
    paths = write_study(tmp_path, settings, seeds=(0, 1, 2))
    data = tables_classification.classification(paths["predictions"], paths["classification"], settings).data
    row = data[(data["protocol"] == "grouped") & (data["model"] == "convnext_nano")].iloc[0]
    unit = tmp_path / "results/grouped/classification/convnext_nano"
    seeds = [pd.read_csv(unit / f"seed{seed}/predictions.csv") for seed in (0, 1, 2)]
    accuracy = [sk.accuracy_score(t["label"], t["prediction"]) for t in seeds]
    macro_f1 = [sk.f1_score(t["label"], t["prediction"], average="macro") for t in seeds]
    assert row["seeds"] == 3
    assert row["accuracy"] == pytest.approx(np.mean(accuracy))
    assert row["accuracy_sd"] == pytest.approx(np.std(accuracy, ddof=1))
    assert row["macro_f1"] == pytest.approx(np.mean(macro_f1))
    assert row["accuracy_low"] <= row["accuracy"] <= row["accuracy_high"]
    assert data.set_index(["protocol", "model"]).loc[("paper", "convnext_nano"), "accuracy_paper"] == 0.9331


def test_printed_values_stand_only_beside_protocols_that_follow_the_paper(study, settings):
    table = tables_classification.classification(
        study[1]["predictions"], study[1]["classification"], settings
    )
    printed = table.data.groupby("protocol")["macro_f1_paper"].count()
    assert printed["paper"] == 2 and printed["grouped"] == 0  # the paper has no F1 of Atto
    assert set(table.shown.loc[table.shown["Protocol"] == "Grouped protocol", "Accuracy (paper)"]) == {"–"}
    counts = tables_data.table2(study[1]["classification"], settings)
    assert counts.data.set_index(["protocol", "subset"])["total_paper"]["grouped"].isna().all()
    csv = counts.data[counts.data["protocol"] == "paper"].to_csv()
    assert ",2646," in csv and "2646.0" not in csv


def test_a_study_without_a_protocol_that_follows_the_paper_has_no_printed_values(study, settings):
    grouped = {"protocols": {"grouped": settings["protocols"]["grouped"]}}
    predictions = [path for path in study[1]["predictions"] if "/grouped/" in path.as_posix()]
    splits = [path for path in study[1]["classification"] if "/grouped/" in path.as_posix()]
    table = tables_classification.classification(predictions, splits, settings | grouped)
    assert not [name for name in (*table.data, *table.shown) if "paper" in name]
    assert not [note for note in table.notes if "(paper)" in note]
    assert set(table.data) == {
        name
        for name in tables_classification.classification(
            study[1]["predictions"], study[1]["classification"], settings
        ).data
        if not name.endswith("_paper")
    }


def test_models_that_err_alike_are_as_good_as_the_best_and_a_bad_one_is_not(tmp_path):
    settings = study_settings()
    split = make_split(make_images(), "group")
    split_path = tmp_path / "paper/classification.csv"
    split_path.parent.mkdir()
    split.to_csv(split_path, index=False)
    paths = []
    for model, seed, skill in (("convnext_atto", 1, -2), ("convnext_nano", 2, 3), ("convnext_small", 2, 3)):
        path = tmp_path / f"paper/classification/{model}/seed0/predictions.csv"
        path.parent.mkdir(parents=True)
        make_predictions(split, seed, skill).to_csv(path, index=False)
        paths.append(path)
    table = tables_classification.classification(paths, [split_path], settings)
    assert table.data["indistinguishable"].tolist() == [False, True, True]
    assert table.shown["p against the best"].tolist()[1:] == ["best", "1.000"]
    # Bold marks the computed maximum only: both models of the tie, not the printed values.
    assert table.shown["Accuracy"].str.startswith("**").tolist() == [False, True, True]
    assert not table.shown["Accuracy (paper)"].str.contains(r"\*").any()


def test_models_are_compared_by_their_means_over_the_seeds_and_not_by_their_first(tmp_path):
    split = make_split(make_images(), "group")
    (tmp_path / "paper").mkdir()
    split.to_csv(tmp_path / "paper/classification.csv", index=False)
    test = split[split["split"] == "test"].sort_values("image_id", ignore_index=True)
    skills = {"convnext_atto": [-2, 3, 3], "convnext_nano": [1, 1, 1]}
    paths, right = [], {}
    for model, seeds in skills.items():
        for seed, skill in enumerate(seeds):
            path = tmp_path / f"paper/classification/{model}/seed{seed}/predictions.csv"
            path.parent.mkdir(parents=True)
            table = make_predictions(split, 10 * seed + skill + 5, skill)
            table.to_csv(path, index=False)
            paths.append(path)
            table = table.sort_values("image_id", ignore_index=True)
            right.setdefault(model, []).append((table["label"] == table["prediction"]).to_numpy())
    data = tables_classification.classification(
        paths, [tmp_path / "paper/classification.csv"], study_settings()
    ).data.set_index("model")
    means = {model: pd.Series(np.mean(each, axis=0)) for model, each in right.items()}
    best = max(means, key=lambda model: means[model].mean())
    (other,) = means.keys() - {best}
    sums = [means[model].groupby(test["group"]).sum() for model in (best, other)]
    assert data.loc[other, "p_holm"] == pytest.approx(swapped(*sums)) and np.isnan(data.loc[best, "p_holm"])
    assert data["p_mcnemar"].isna().all()  # a test of one seed's predictions


def test_calibration_is_shown_as_evaluated_and_as_means_over_the_seeds(tmp_path):
    settings = study_settings()
    paths = write_study(tmp_path, settings, seeds=(0, 1))
    table = tables_classification.classification_calibration(paths["metrics"], settings)
    row = table.data.set_index(["protocol", "model"]).loc["grouped", "convnext_nano"]
    unit = tmp_path / "results/grouped/classification/convnext_nano"
    metrics = [read_json(unit / f"seed{seed}/metrics.json") for seed in (0, 1)]
    seeds = [each["calibration"] for each in metrics]
    assert row["temperature"] == np.mean([1.5, 2.5])
    assert row["ece_before"] == pytest.approx(np.mean([each["ece"] for each in metrics]))
    assert row["brier_after"] == pytest.approx(np.mean([each["after"]["brier"] for each in seeds]))
    assert row["brier_after_low"] < row["brier_after"] < row["brier_after_high"]
    points = [each["operating_points"][1] for each in seeds]
    assert row["threshold_95"] == pytest.approx(0.2)
    assert row["specificity_95"] == pytest.approx(np.mean([point["specificity"] for point in points]))
    assert row["sensitivity_95_low"] < row["sensitivity_95"] < row["sensitivity_95_high"]
    fixed = np.mean([each["sensitivity_at"]["90"] for each in metrics])
    assert row["sensitivity_at_90"] == pytest.approx(fixed)
    shown = table.shown.iloc[table.data.index[table.data["model"] == "convnext_nano"][0]]
    assert shown["Temperature"] == "2.00" and "[" in shown["Sensitivity at 90 %"]
    text = page(table, tmp_path)
    assert "fitted on 40 validation images" in text and "Means over 2 seeds" in text


def test_without_a_threshold_there_is_nothing_to_show_at_it(tmp_path):
    settings = study_settings(models=["convnext_nano"])
    paths = write_study(tmp_path, settings)["metrics"]
    for path in paths:
        unit, split = path.parent, tmp_path / f"splits/{path.parts[-5]}/classification.csv"
        write_json(unit / "run.json", {"calibration": make_calibration(threshold=None)})
        write_metrics(path, evaluate(unit / "predictions.csv", split, unit / "run.json"))
    table = tables_classification.classification_calibration(paths, settings)
    assert table.data[["threshold_90", "sensitivity_90", "specificity_95"]].isna().all(axis=None)
    assert set(table.shown["Sensitivity at 95 %"]) == {"n/a"}


def test_an_undefined_value_is_given_as_such_and_is_empty_in_the_csv(study, settings, tmp_path):
    table = tables_classification.classification_per_class(study[1]["metrics"], settings)
    row = (table.data["model"] == "convnext_atto") & (table.data["class"] == "normal")
    assert table.data.loc[row, "precision"].isna().all()
    assert (table.shown.loc[row, "Precision"] == "n/a (n=0)").all()
    assert table.shown.loc[row, "Recall"].str.startswith("0.00 [0.0, ").all()
    page(table, tmp_path)
    assert pd.read_csv(tmp_path / "t.csv").loc[row, "precision"].isna().all()


def test_each_page_names_notice_n_and_split(study, settings, tmp_path):
    paths = study[1]
    made = [
        tables_data.table2(paths["classification"], settings),
        tables_data.table3(paths["detection"], study[0] / "index/annotations.csv", settings),
        tables_data.table4(paths["segmentation"], settings),
        tables_classification.classification(paths["predictions"], paths["classification"], settings),
        tables_classification.classification_per_class(paths["metrics"], settings),
        tables_classification.classification_calibration(paths["metrics"], settings),
    ]
    files = ["classification", "detection", "segmentation", *["classification"] * 3]
    for table, kind in zip(made, files, strict=True):
        text = page(table, tmp_path, settings["study"]["notice"])
        assert "> TEST: nothing real" in text
        for path in paths[kind]:
            assert sha256(path)[:12] in text
    assert ">" not in page(made[0], tmp_path, None)


def test_columns_of_numbers_are_aligned_to_the_right(study, settings):
    shown = tables_classification.classification_per_class(study[1]["metrics"], settings).shown
    found = dict(zip(shown, tables.alignment(shown), strict=True))
    assert found["Model"] == "left"
    assert found["Precision"] == found["n"] == "right"


def test_protocols_and_models_come_in_the_order_of_the_config(study, settings):
    found = units(reversed(study[1]["metrics"]), settings)
    assert [unit.protocol for unit in found] == ["paper"] * 3 + ["grouped"] * 3
    assert [unit.model for unit in found[:3]] == list(settings["models"]["classification"])


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("results/paper/classification/convnext_atto/metrics.json", "expected a path like"),
        ("results/other/classification/convnext_atto/seed0/metrics.json", "no protocol other"),
        ("results/paper/classification/resnet/seed0/metrics.json", "no classification model resnet"),
    ],
)
def test_a_file_of_no_unit_is_refused(path, message, settings):
    with pytest.raises(BusflowError, match=message):
        units([Path(path)], settings)


def test_a_split_of_an_unknown_protocol_is_refused(settings):
    with pytest.raises(BusflowError, match="protocol of the config"):
        tables_data.table2([Path("splits/other/classification.csv")], settings)


def test_the_script_makes_all_three_files(study, settings, tmp_path, monkeypatch):

    splits = [str(path) for path in study[1]["classification"]]
    arguments = ["data:table2", "--splits", *splits, "--settings", json.dumps(settings)]
    arguments += ["--csv", str(tmp_path / "t2.csv"), "--md", str(tmp_path / "t2.md")]
    arguments += ["--html", str(tmp_path / "t2.html")]
    monkeypatch.setattr(sys, "argv", ["make_table.py", *arguments])
    runpy.run_path(str(ROOT / "scripts/make_table.py"), run_name="__main__")
    assert pd.read_csv(tmp_path / "t2.csv").shape[0] == 8
    assert "Table 2" in (tmp_path / "t2.md").read_text()
    assert "Table 2" in (tmp_path / "t2.html").read_text()
