"""Tables of sources left out: a row per model and source, and means in which each source counts as much."""

from pathlib import Path

import numpy as np
import pytest

from busflow.files import read_json, write_json
from busflow.tables.leave_one_out import leave_one_out
from busflow.tables.table import Table
from study_files import study_settings, write_study

MODELS = ("convnext_atto", "convnext_nano")


def left_out(*sources: str, **entry) -> dict:
    return {"label": f"Without {sources[0]}", "split": "grouped", "leave_out": list(sources)} | entry


def table_of(folder, protocols: dict) -> tuple[Table, list[Path]]:
    """The table and the metrics of a study that has these two protocols, and an ablation without metrics."""
    settings = study_settings(models=MODELS)
    names = dict(zip(protocols, settings["protocols"], strict=True))
    paths = write_study(folder, settings)["metrics"]
    settings["protocols"] = {names[name]: entry for name, entry in protocols.items()}
    settings["models"]["classification"]["twin"] = {"label": "Twin", "ablation_of": [MODELS[0]]}
    return leave_one_out(paths, settings), paths


@pytest.fixture
def made(tmp_path):
    return table_of(tmp_path, {"first": left_out("lin"), "second": left_out("busi", "rodrigues")})


def test_each_model_has_a_row_for_each_test_and_one_for_their_mean(made):
    data, shown = made[0].data, made[0].shown
    assert data["model"].to_list() == [model for model in MODELS for _ in range(3)]
    assert data["tested_on"].to_list() == ["lin", "busi rodrigues", "mean"] * 2
    assert shown["Tested on"][1].count(" and ") == 1 and shown["Tested on"][2] == "Mean of 2"
    assert (
        shown["n"][2] == shown["Groups"][2] == "–" and data["n"].isna().to_list() == [False, False, True] * 2
    )


def test_a_test_has_the_scores_of_its_metrics_with_the_interval_over_groups(made):
    table, paths = made
    for path in paths:
        metrics = read_json(path)
        of_unit = (table.data["protocol"] == path.parts[-5]) & (table.data["model"] == path.parts[-3])
        rows = table.data[of_unit]
        row = rows.iloc[0]
        assert (len(rows), row["n"], row["n_groups"]) == (1, metrics["n"], metrics["n_groups"])
        assert row["macro_f1"] == metrics["macro_f1"]
        ends = metrics["intervals"]["macro_f1"]["cluster"]
        assert row[["macro_f1_low", "macro_f1_high"]].to_list() == pytest.approx(ends)


def test_in_the_mean_each_source_counts_as_much_whatever_its_size(made):
    data = made[0].data
    for model in MODELS:
        *tests, mean = data[data["model"] == model].to_dict("records")
        values = [row["accuracy"] for row in tests]
        assert mean["accuracy"] == pytest.approx(np.mean(values))
        assert mean["accuracy_sd"] == pytest.approx(np.std(values, ddof=1))
    first = data[data["tested_on"] == "mean"].iloc[0]
    text = f"{100 * first['accuracy']:.2f} ± {100 * first['accuracy_sd']:.2f}"
    assert made[0].shown["Accuracy"][2] == text
    assert any("not pooled: the largest would dominate" in note for note in made[0].notes)


def test_protocols_with_another_loss_are_no_part_of_the_mean(tmp_path):
    protocols = {"first": left_out("lin"), "second": left_out("busi", balance_classes=True)}
    data = table_of(tmp_path, protocols)[0].data
    assert "mean" not in set(data["tested_on"])
    assert data["balance_classes"].to_list() == [False, False, True, True]


def test_a_score_that_a_source_leaves_undefined_is_no_part_of_the_mean_which_says_so(tmp_path):
    protocols = {"first": left_out("lin"), "second": left_out("busi")}
    table, paths = table_of(tmp_path, protocols)
    metrics = read_json(paths[0])
    metrics["macro_f1"] = metrics["intervals"]["macro_f1"]["cluster"] = None
    write_json(paths[0], metrics)
    settings = study_settings(models=MODELS)
    settings["protocols"] = dict(zip(settings["protocols"], protocols.values(), strict=True))
    shown = leave_one_out(paths, settings).shown
    other = table.data.loc[1, "macro_f1"]
    assert shown["Macro F1"].to_list()[:3:2] == ["n/a", f"{100 * other:.2f} (1 of 2)"]
