"""Table 6 and its companions: values, bold, undefined bins, printed and published numbers."""

import json
import runpy
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from detection_files import DETECTORS, study_settings, write_study

from busflow.files import read_json
from busflow.metrics.comparison import rank_sets
from busflow.metrics.resamples import read_metrics, write_metrics
from busflow.metrics.uncertainty import mean
from busflow.tables import table as tables
from busflow.tables.detection import LITERATURE, detection, table6, table6_aitod
from busflow.tables.pairs import pairs
from busflow.tables.seeds import seeds

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    settings = study_settings(notice="DEMO: for tests")
    return write_study(tmp_path_factory.mktemp("study"), settings, seeds=(0, 1)), settings


@pytest.fixture
def table(study):
    paths, settings = study
    return table6(paths["metrics"], settings)


def test_table_6_has_a_row_per_protocol_and_detector_and_the_literature_last(table):
    ours = table.data[table.data["protocol"] != "literature"]
    assert ours["model"].tolist() == list(DETECTORS) * 2
    assert ours["protocol"].tolist() == ["paper"] * 7 + ["grouped"] * 7
    assert table.shown["Detector"].tolist()[-2:] == [each["label"] for each in LITERATURE]
    assert table.shown["Protocol"].tolist()[-2:] == ["Literature"] * 2


def test_values_are_means_and_deviations_over_the_seeds(table, study):
    paths, _ = study
    metrics = [
        read_metrics(path) for path in paths["metrics"] if "paper/detection/swin_base/" in path.as_posix()
    ]
    assert len(metrics) == 2
    row = table.data.query("protocol == 'paper' and model == 'swin_base'").iloc[0]
    for score in ("ap", "ap50", "ap75"):
        values = [each["coco"][score] for each in metrics]
        assert row[score] == pytest.approx(np.mean(values))
        assert row[f"{score}_sd"] == pytest.approx(np.std(values, ddof=1))
        interval = mean(each["resamples"][score] for each in metrics).interval()
        assert row[[f"{score}_low", f"{score}_high"]].tolist() == pytest.approx(interval)
    medium = [each["bins"]["coco"]["medium"]["ap"] for each in metrics]
    assert row["apm"] == pytest.approx(np.mean(medium))
    shown = table.shown.query("Protocol == 'Paper protocol' and Detector == 'Swin-Base'").iloc[0]
    assert shown["AP"].strip("*") == (
        f"{row['ap']:.3f} ± {row['ap_sd']:.3f} [{row['ap_low']:.2f}, {row['ap_high']:.2f}]"
    )


def test_a_size_that_no_box_has_is_named_with_its_count_and_is_no_number(table):
    ours = table.data["protocol"] != "literature"
    assert (table.data.loc[ours, "n_coco.large"] == 0).all()
    assert table.data.loc[ours, "apl"].isna().all()
    assert set(table.shown.loc[ours, "AP_L"]) == {"n/a (0 boxes)"}


def test_the_printed_values_stand_beside_ours_as_printed(table):
    rows = table.shown[table.shown["Protocol"] == "Paper protocol"].set_index("Detector")
    assert rows.loc["Swin-Base", ["AP (paper)", "AP50 (paper)", "AP_S (paper)"]].tolist() == [
        "0.262",
        "0.445",
        "0.000",
    ]
    assert rows.loc["Swin-Base w/ RFLA", ["AP (paper)", "AP75 (paper)"]].tolist() == ["0.240", "–"]


def test_what_is_printed_as_ap_s_of_the_rfla_rows_is_also_shown_as_ap75(table):
    rows = table.shown[table.shown["Protocol"] == "Paper protocol"].set_index("Detector")[
        "AP75 (paper, as AP_S)"
    ]
    suspected = {
        "ConvNeXt-Small w/ RFLA": "0.252",
        "Swin-Base w/ RFLA": "0.265",
        "Swin-Base w/ DetectoRS & RFLA": "0.270",
    }
    assert rows[rows != "–"].to_dict() == suspected


def test_the_literature_is_shown_as_published_and_never_bold(table):
    rows = table.shown.set_index("Detector")
    assert rows.loc["CVA-Net [26]", ["AP", "AP50", "AP75", "AP_S"]].tolist() == [
        "0.361",
        "0.651",
        "0.385",
        "–",
    ]
    assert rows.loc["RetinaNet-ResNet50", ["AP", "AP_M", "AP_L"]].tolist() == ["–", "0.043", "0.304"]


def test_bold_is_the_greatest_computed_value_of_the_protocol_alone(study, tmp_path):
    """Were bold taken from the printed table, Swin-Base would have it."""
    paths, settings = study
    metrics = [path for path in paths["metrics"] if path.parent.name == "seed0"]
    copies = []
    for k, path in enumerate(metrics):
        changed = read_metrics(path)
        changed["coco"]["ap"] = 0.5 if "detr_r50" in path.as_posix() else 0.1 + k / 1000
        copies.append(tmp_path / Path(*path.parts[-5:]))
        write_metrics(copies[-1], changed)
    shown = table6(copies, settings).shown
    bold = shown[shown["AP"].str.startswith("**")]
    assert bold["Detector"].tolist() == ["DETR-ResNet50"] * 2


def test_notes_give_counts_split_and_seeds(table, study):
    paths, _ = study
    digest = read_json(paths["metrics"][0])["split_sha256"][:12]
    assert "n = 44 test images with 44 boxes (2 small, 42 medium, 0 large) in 22 videos" in table.notes[0]
    assert digest in table.notes[0]
    assert any("over 2 seeds" in note for note in table.notes)


def test_the_literature_is_said_to_be_about_other_videos_when_it_is(study):
    paths, settings = study
    stand_in = settings | {"sources": {"lin": {"label": "Stand-in"}}}
    words = "The literature is about other test videos"
    assert words not in "".join(table6(paths["metrics"], settings).notes)
    assert f"{words} than this study's (Stand-in)" in "".join(table6(paths["metrics"], stand_in).notes)


def test_aitods_statistics_stand_under_their_own_names(study):
    paths, settings = study
    table = table6_aitod(paths["metrics"], settings)
    first = table.data.iloc[0]
    metrics = [
        read_json(path) for path in paths["metrics"] if "paper/detection/convnext_tiny/" in path.as_posix()
    ]
    assert first["aitod_ap25"] == pytest.approx(np.mean([each["aitod"]["ap25"] for each in metrics]))
    assert first["aitod_ap_m"] == pytest.approx(
        np.mean([each["bins"]["aitod"]["medium"]["ap"] for each in metrics])
    )
    assert set(table.shown["AP_vt"]) == {"n/a (0 boxes)"}
    assert list(table.shown)[2:10] == ["AP", "AP25", "AP50", "AP75", "AP_vt", "AP_t", "AP_s", "AP_m"]


def test_the_companion_table_gives_classes_sizes_and_what_is_found(study):
    paths, settings = study
    table = detection(paths["metrics"], settings)
    first = table.data.iloc[0]
    metrics = [
        read_json(path) for path in paths["metrics"] if "paper/detection/convnext_tiny/" in path.as_posix()
    ]
    for column, value in {
        "auc_pr_malignant": lambda m: m["per_class"]["malignant"]["auc_pr"],
        "ap_smallest": lambda m: m["bins"]["relative"]["smallest"]["ap"],
        "sensitivity_1": lambda m: m["froc"]["lesions"]["sensitivity"][3],
        "videos_1": lambda m: m["froc"]["videos"]["sensitivity"][3],
    }.items():
        assert first[column] == pytest.approx(np.mean([value(each) for each in metrics]))
    assert metrics[0]["froc"]["rates"][3] == 1


def test_one_seed_has_no_deviation(study):
    paths, settings = study
    one = [path for path in paths["metrics"] if path.parent.name == "seed0"]
    table = table6(one, settings)
    assert not table.shown["AP"].str.contains("±").any()
    assert any("One seed." in note for note in table.notes)


def test_a_study_of_one_protocol_and_one_detector_has_its_table(tmp_path):
    settings = study_settings(models=["swin_base"])
    del settings["protocols"]["paper"]
    paths = write_study(tmp_path, settings)
    table = table6(paths["metrics"], settings)
    assert table.data["model"].tolist() == ["swin_base", "cva_net", "retinanet_r50"]


def test_the_csv_holds_whole_numbers_for_counts_and_the_page_the_notice(table, tmp_path):
    tables.write(table, tmp_path / "t.csv", tmp_path / "t.md", "DEMO: for tests")
    read = pd.read_csv(tmp_path / "t.csv", dtype=str)
    assert read.loc[0, ["seeds", "n", "n_boxes", "n_coco.large"]].tolist() == ["2", "44", "44", "0"]
    page = (tmp_path / "t.md").read_text(encoding="utf-8")
    assert "> DEMO: for tests" in page
    assert " nan " not in page


@pytest.mark.parametrize("name", ["table6", "table6_aitod", "detection"])
def test_the_script_makes_each_table(name, study, tmp_path, monkeypatch):
    paths, settings = study
    metrics = [str(path) for path in paths["metrics"]]
    outputs = [text for kind in ("csv", "md", "html") for text in (f"--{kind}", str(tmp_path / f"t.{kind}"))]
    arguments = [f"detection:{name}", "--metrics", *metrics, "--settings", json.dumps(settings), *outputs]
    monkeypatch.setattr(sys, "argv", ["make_table.py", *arguments])
    runpy.run_path(str(ROOT / "scripts/make_table.py"), run_name="__main__")
    assert (tmp_path / "t.csv").stat().st_size
    assert (tmp_path / "t.md").stat().st_size


# Two on the same images, and two levels


def of_seeds(paths, model, score):
    """A score of each seed under the paper's protocol."""
    found = [path for path in paths["metrics"] if f"paper/detection/{model}/" in path.as_posix()]
    return [read_json(path)["coco"][score] for path in found]


def test_every_two_detectors_are_compared_once_on_each_score(study):
    paths, settings = study
    table = pairs(paths["metrics"], settings)
    assert len(table.data) == 2 * 4 * 21 and len(table.shown) == 2 * 21
    assert not table.data.duplicated(["protocol", "model", "other", "score"]).any()
    row = table.data.query("protocol == 'paper' and score == 'ap50'").iloc[0]
    values = [
        np.mean(
            [
                read_json(path)["coco"]["ap50"]
                for path in paths["metrics"]
                if f"paper/detection/{model}/" in str(path)
            ]
        )
        for model in (row["model"], row["other"])
    ]
    assert row["difference"] == pytest.approx(values[0] - values[1], abs=1e-6)
    assert row["low"] < row["difference"] < row["high"] and 0 < row["p"] <= row["p_holm"] <= 1
    assert (row["n"], row["n_groups"]) == (44, 11)  # the fewest videos of a class


def test_ranks_and_the_test_against_the_best_follow_from_the_pairs(table, study):
    pairs_of_ap = pairs(study[0]["metrics"], study[1]).data.query("protocol == 'paper' and score == 'ap'")
    rows = table.data.query("protocol == 'paper'").set_index("model")
    ranks = rank_sets(pairs_of_ap, list(rows.index))
    assert (rows["rank_low"] == ranks["rank_low"]).all() and (rows["rank_high"] == ranks["rank_high"]).all()
    best = rows["ap"].idxmax()
    assert np.isnan(rows.loc[best, "p_holm"]) and rows.loc[best, "indistinguishable"]
    for name, row in rows.drop(index=best).iterrows():
        (pair,) = pairs_of_ap[pairs_of_ap[["model", "other"]].isin([name, best]).all(axis=1)]["p_holm"]
        assert row["p_holm"] == pair and row["indistinguishable"] == (pair >= 0.05)


def test_seeds_and_test_images_are_two_levels_of_each_score(study):
    paths, settings = study
    table = seeds(paths["metrics"], settings)
    assert len(table.data) == 2 * 7 * 4
    row = table.data.query("protocol == 'paper' and model == 'swin_base' and score == 'ap'").iloc[0]
    values = [
        read_json(path)["coco"]["ap"]
        for path in paths["metrics"]
        if "paper/detection/swin_base/" in str(path)
    ]
    assert row["seed_sd"] == pytest.approx(np.std(values, ddof=1)) and row["seeds"] == 2
    assert (row["least"], row["greatest"]) == (min(values), max(values)) and row["sampling_sd"] > 0
