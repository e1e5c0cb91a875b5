"""A whole small study through Snakemake: a model of each task, phantoms."""

import json
from pathlib import Path

import pandas as pd
import pytest

from studies import CLASSIFIER, DETECTOR, SEGMENTER, dry_run, write_overlay


@pytest.fixture(scope="module")
def study(finished_study) -> Path:
    """A checkout in which the small study is finished; nothing is changed in it here."""
    return finished_study


def overlay(checkout: Path, **changes) -> Path:
    """Changes of the configuration, beside the checkout."""
    return write_overlay(checkout.parent, changes)


def planned(checkout: Path, config: Path) -> str:
    done = dry_run("--configfile", config, cwd=checkout)
    return done.stdout + done.stderr


@pytest.mark.slow
def test_every_contracted_file_is_made(study):
    units = [
        study / f"results/{protocol}/classification/{CLASSIFIER}/seed0" for protocol in ("paper", "grouped")
    ]
    files = ["weights.pth", "metrics.json", "history.csv", "timing.json", "run.json"]
    expected = [unit / name for unit in units for name in [*files, "predictions.csv"]]
    for task, model in {"detection": DETECTOR, "segmentation": SEGMENTER}.items():
        unit = study / f"results/grouped/{task}/{model}/seed0"
        expected += [unit / name for name in [*files, "predictions.json"]]
    expected += [study / f"results/tables/table{k}.{kind}" for k in range(1, 8) for kind in ("csv", "md")]
    expected += [
        study / f"results/figures/{name}.{kind}"
        for name in (
            "fig1_workflow",
            "fig2",
            "fig3_paper",
            "fig3_grouped",
            "fig4_paper",
            "fig6_grouped",
            "fig7_paper",
            "fig7_all_grouped",
        )
        for kind in ("svg", "png")
    ]
    expected += [study / "results/audit/ledger.md", study / "results/report.html"]
    assert [path for path in expected if not path.is_file() or path.stat().st_size == 0] == []
    assert not any((study / "runs").rglob("state-*"))


@pytest.mark.slow
def test_the_report_needs_no_network(study):
    html = (study / "results/report.html").read_text()
    assert 'src="http' not in html and '<link rel="stylesheet" href="http' not in html
    assert "Table 2" in html and "Figure 3" in html


@pytest.mark.slow
def test_the_results_agree_with_each_other(study):
    split = pd.read_csv(study / "data/splits/grouped/classification.csv")
    unit = study / "results/grouped/classification/convnext_atto/seed0"
    predictions = pd.read_csv(unit / "predictions.csv")
    assert set(predictions["image_id"]) == set(split.loc[split["split"] == "test", "image_id"])
    metrics = json.loads((unit / "metrics.json").read_text())
    assert metrics["accuracy"] == pytest.approx((predictions["prediction"] == predictions["label"]).mean())
    assert split.groupby("group")["split"].nunique().max() == 1


@pytest.mark.slow
def test_pretrained_weights_are_fetched_recorded_and_used(study):
    receipt = json.loads((study / "data/archives/weights/donor.json").read_text())
    inputs = {
        model: json.loads((study / f"results/paper/{model}/seed0/run.json").read_text())["inputs"]
        for model in (f"classification/{CLASSIFIER}", f"segmentation/{SEGMENTER}")
    }
    assert inputs[f"classification/{CLASSIFIER}"]["pretrained"]["sha256"] == receipt["sha256"]
    assert "pretrained" not in inputs[f"segmentation/{SEGMENTER}"]


@pytest.mark.slow
def test_a_finished_study_has_nothing_to_do(study):
    assert "Nothing to be done" in planned(study, overlay(study))


@pytest.mark.slow
def test_a_new_label_redraws_and_retrains_nothing(study):
    plan = planned(study, overlay(study, study={"title": "Another title"}))
    assert "tabulate_table1" in plan and "train_classification" not in plan and "predict_" not in plan


@pytest.mark.slow
def test_a_new_learning_rate_retrains_and_keeps_the_data(study):
    plan = planned(study, overlay(study, training={"classification": {"learning_rate": 0.01}}))
    assert "train_classification" in plan and "pack_images" not in plan and "fetch_archive" not in plan
