"""A small study on record: recorded, cloned, pulled, tampered with, repaired, changed, verified."""

import json
import shutil
from pathlib import Path

import pytest
import yaml

from busflow.recording.hashes import check_hashes
from busflow.recording.study import find_study
from studies import copy_study, run

pytestmark = pytest.mark.slow

CLASSIFIER = "results/grouped/classification/convnext_atto/seed0"
WEIGHTS = f"{CLASSIFIER}/weights.pth"
PREDICTIONS = "results/paper/classification/convnext_atto/seed0/predictions.csv"
METRICS = "results/grouped/segmentation/segformer_b0/seed0/metrics.json"
SPLIT = "data/splits/grouped/classification.csv"
TABLE = "results/tables/table2.csv"
UNITS = 2 * 3  # both protocols, a model of each task


def set_up(checkout: Path) -> None:
    """Let make take the packages as installed: those of the tests."""
    (checkout / ".venv").mkdir()
    (checkout / ".venv/.ready").touch()


def change_config(checkout: Path, **changes: dict) -> None:
    config = yaml.safe_load((checkout / "config.yaml").read_text())
    for key, value in changes.items():
        config[key] |= value
    (checkout / "config.yaml").write_text(yaml.safe_dump(config, sort_keys=False))


@pytest.fixture(scope="module")
def study(finished_study, tmp_path_factory) -> Path:
    """A repository in which the small study is finished, recorded, and pushed to a remote folder."""
    checkout = copy_study(finished_study, tmp_path_factory.mktemp("study") / "busflow")
    set_up(checkout)
    run(checkout, "dvc", "remote", "add", "--default", "store", checkout.parent / "store")
    run(checkout, "git", "commit", "--quiet", "--all", "--message", "Its remote")
    run(checkout, "make", "record")
    run(checkout, "git", "commit", "--quiet", "--message", "Its record")
    run(checkout, "dvc", "push")
    return checkout


@pytest.fixture(scope="module")
def clone(study, tmp_path_factory) -> Path:
    """A fresh clone, as a reviewer has it. Nothing is pulled."""
    checkout = tmp_path_factory.mktemp("clone") / "busflow"
    run(study, "git", "clone", "--quiet", study, checkout)
    set_up(checkout)
    return checkout


@pytest.fixture(scope="module")
def pulled(clone) -> Path:
    """The same clone with all that is on record."""
    run(clone, "dvc", "pull")
    run(clone, "make", "trust")
    return clone


def is_clean(checkout: Path) -> bool:
    return (
        "up to date" in run(checkout, "dvc", "status")
        and "Nothing to be done" in run(checkout, "snakemake", "--dry-run")
        and run(checkout, "git", "status", "--porcelain") == ""
    )


def test_a_recorded_study_is_clean_for_snakemake_dvc_and_git(study):
    assert is_clean(study)


def test_small_files_are_in_git_and_large_ones_are_not(study):
    names = set(run(study, "git", "ls-files", "results", "data").splitlines())
    assert {METRICS, TABLE, "results/audit/ledger.md", "results/config.yaml"} <= names
    assert not names & {WEIGHTS, PREDICTIONS, SPLIT, "results/report.html"}


def test_a_study_that_is_not_up_to_date_is_not_recorded(study):
    change_config(study, splits={"seed": 1})
    try:
        said = run(study, "make", "record", status=2)
    finally:
        run(study, "git", "checkout", "--quiet", "config.yaml")
    assert "study demo is not finished, or not up to date: run snakemake" in said


def test_metrics_and_plots_are_those_of_the_study(study, tmp_path):
    shown = json.loads(run(study, "dvc", "metrics", "show", "--json"))[""]["data"]
    accuracy = json.loads((study / CLASSIFIER / "metrics.json").read_text())["accuracy"]
    assert shown[f"{CLASSIFIER}/scores.json"]["data"]["accuracy"] == accuracy and len(shown) == UNITS
    run(study, "dvc", "plots", "show", "--out", tmp_path)
    page = (tmp_path / "index.html").read_text()
    assert "Confusion, convnext_atto, paper, seed 0" in page
    assert "Training, segformer_b0, grouped, seed 0" in page
    assert [*tmp_path.rglob("*detection_pr_curves_grouped.png")]


def test_one_checkpoint_is_pulled_alone(study, clone):
    run(clone, "dvc", "pull", WEIGHTS)
    assert [str(path.relative_to(clone)) for path in clone.rglob("*.pth")] == [WEIGHTS]
    assert (clone / WEIGHTS).read_bytes() == (study / WEIGHTS).read_bytes()


def test_a_pulled_clone_is_clean_and_nothing_runs_again(pulled):
    assert is_clean(pulled)
    assert "Running stage" not in run(pulled, "dvc", "repro")
    assert is_clean(pulled)


def test_the_audit_of_what_is_on_record_finds_all_equal(pulled):
    said = run(pulled, "make", "audit")
    assert "All is as recorded." in said and "differs:" not in said
    for what in ("recorded weights", "rebuilt metrics", "rebuilt tables", "rebuilt figures"):
        assert f"| {what} " in said
    assert said.count("predicted again") == 6 and "2 in 2 (detection)" in said
    assert "Its record" in said and "later than its weights" not in said
    assert is_clean(pulled)


def tamper(checkout: Path) -> None:
    """A number of a table, a metric, a byte of a checkpoint, a row of a split and one of the predictions."""
    table, metrics, split, predictions = (checkout / name for name in (TABLE, METRICS, SPLIT, PREDICTIONS))
    table.write_text(table.read_text()[:-2] + "7\n")
    metrics.write_text(json.dumps(json.loads(metrics.read_text()) | {"n": 1000}, indent=2) + "\n")
    split.write_text(split.read_text().replace("train", "test", 1))
    rows = predictions.read_text().splitlines(keepends=True)
    predictions.write_text("".join([*rows[:-1], rows[-1].replace("0.", "0.0", 1)]))
    weights = bytearray((checkout / WEIGHTS).read_bytes())
    weights[len(weights) // 2] ^= 1
    (checkout / WEIGHTS).write_bytes(weights)


def test_tampering_is_named_and_repaired_without_training(study, pulled, monkeypatch):
    tampered = [TABLE, METRICS, SPLIT, PREDICTIONS, WEIGHTS]
    tamper(pulled)
    assert all((pulled / name).read_bytes() != (study / name).read_bytes() for name in tampered)
    said = run(pulled, "dvc", "status")
    assert [name for name in tampered if name not in said] == []
    monkeypatch.chdir(pulled)
    found = [name for check in check_hashes(find_study("demo"), {}) for name in check.differing]
    assert sorted(found) == sorted(tampered)
    said = run(pulled, "dvc", "repro")
    assert [name for name in tampered if (pulled / name).read_bytes() != (study / name).read_bytes()] == []
    assert "rule evaluate_segmentation" in said and "rule tabulate_table2" in said
    assert "rule train_" not in said and "rule predict_" not in said
    assert run(pulled, "git", "status", "--porcelain") == " M dvc.lock\n"  # the report, which is dated
    run(pulled, "git", "commit", "--quiet", "--all", "--message", "Repaired")
    assert is_clean(pulled)


def test_a_checkpoint_that_the_cache_lacks_is_trained_again(study, pulled):
    shutil.rmtree(pulled / ".dvc/cache")
    (pulled / WEIGHTS).write_bytes(b"not a checkpoint")
    said = run(pulled, "dvc", "repro", "classification@grouped-convnext_atto-0")
    assert said.count("rule train_") == 1 and f"{WEIGHTS} differed from the record: removed" in said
    assert (pulled / f"{CLASSIFIER}/predictions.csv").read_bytes() == (
        study / f"{CLASSIFIER}/predictions.csv"
    ).read_bytes()


def test_a_changed_setting_reruns_what_depends_on_it(study):
    text = (study / "config.yaml").read_text()
    classification = text.index("learning_rate: 0.0005")  # the first of the three tasks
    (study / "config.yaml").write_text(
        text[:classification] + text[classification:].replace("0.0005", "0.001", 1)
    )
    said = run(study, "dvc", "repro")
    assert said.count("rule train_classification") == said.count("rule train_") == 2
    assert "Stage 'splits@paper' didn't change" in said
    assert "Stage 'detection@paper-convnext_tiny-0' didn't change" in said
    changed = run(study, "git", "diff", "--numstat", "dvc.lock").split()
    assert int(changed[0]) < 100
    run(study, "git", "commit", "--quiet", "--all", "--message", "A higher learning rate")
    assert is_clean(study)
    assert "accuracy" in run(study, "dvc", "metrics", "diff", "HEAD~1", "--all")


def test_another_study_has_a_record_of_its_own(study):
    overlay = {"study": {"name": "other"}, "root": "studies/other"}
    (study / "config/other.yaml").write_text(yaml.safe_dump(overlay))
    # Its files are copies: what is recorded is not what is tested here.
    for room in ("data", "results"):
        shutil.copytree(study / room, study / "studies/other" / room)
    run(study, "snakemake", "record_config", "--configfile", "config/other.yaml", "--force")
    run(study, "make", "trust", "STUDY=other")
    run(study, "make", "record", "STUDY=other")
    run(study, "git", "commit", "--quiet", "--message", "Another study")
    assert is_clean(study)
    assert f"studies/other/{TABLE}" in run(study, "git", "ls-files", "studies").splitlines()
    (study / "studies/other" / TABLE).write_text("")
    said = run(study, "dvc", "status", "studies/other/dvc.yaml")
    assert said.count("modified") == 1 and f"studies/other/{TABLE}" in said


def test_a_study_without_overlay_is_named(study):
    assert "config/none.yaml does not exist" in run(study, "make", "record", "STUDY=none", status=2)
