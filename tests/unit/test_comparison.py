"""Pairs of models, the ranks they leave open, and two levels of variance, against closed forms and truth."""

import detection_files
import numpy as np
import pandas as pd
import pytest
import segmentation_files
from scipy import stats

import study_files
from busflow.audit.evidence import Evidence
from busflow.files import write_json
from busflow.metrics.comparison import against_best, compare, rank_sets
from busflow.metrics.resamples import read_metrics, write_metrics
from busflow.metrics.shares import holm, swapped
from busflow.metrics.uncertainty import Estimate, resampled
from busflow.tables import table
from busflow.tables.ablations import ablations
from busflow.tables.classification import classification_pairs
from busflow.tables.leading import rank_text
from busflow.tables.pairs import pairs
from busflow.tables.seeds import two_levels
from busflow.tables.segmentation import segmentation_pairs


def mean_of(values) -> Estimate:
    """A mean over groups of one image."""
    values = np.asarray(values, float)[:, None]
    drawn = resampled(np.hstack([values, np.ones_like(values)]))
    return Estimate(drawn[:, 0] / drawn[:, 1], np.ones_like(values))


@pytest.fixture
def models():
    """Two good models that err alike, a worse one, and one that is worse still."""
    rng = np.random.default_rng(0)
    base = rng.uniform(0.5, 0.8, 30)
    noise = rng.normal(0, 0.01, (4, 30))
    return {name: mean_of(base + at + noise[k]) for k, (name, at) in enumerate(LEVELS.items())}


LEVELS = {"a": 0.15, "b": 0.15, "c": 0.1, "d": 0.0}


def test_pairs_have_the_paired_difference_its_interval_and_the_adjusted_test(models):
    pairs = compare(models)
    assert list(zip(pairs["model"], pairs["other"], strict=True)) == [
        *(("a", "b"), ("a", "c"), ("a", "d"), ("b", "c"), ("b", "d"), ("c", "d"))
    ]
    row = pairs.iloc[1]
    values = models["a"].contributions() - models["c"].contributions()
    assert row["difference"] == pytest.approx(values.sum())
    expected = stats.t.interval(0.95, 29, values.sum(), stats.sem(30 * values))
    assert [row["low"], row["high"]] == pytest.approx(expected, abs=0.001)
    p_values = [
        swapped(models[one].contributions(), models[other].contributions())
        for one, other in zip(pairs["model"], pairs["other"], strict=True)
    ]
    assert pairs["p"].tolist() == p_values and pairs["p_holm"].tolist() == holm(np.array(p_values)).tolist()


def test_ranks_are_open_where_models_are_not_told_apart(models):
    ranks = rank_sets(compare(models), list(models))
    assert ranks["rank_low"].tolist() == [1, 1, 3, 4]
    assert ranks["rank_high"].tolist() == [2, 2, 3, 4]
    assert ranks.apply(rank_text, axis=1).tolist() == ["1–2", "1–2", "3", "4"]


def test_the_ranks_of_too_few_groups_are_all_open():
    few = {name: mean_of(np.full(5, 0.5 + at)) for name, at in LEVELS.items()}
    pairs = compare(few)
    assert pairs["low"].isna().all()
    ranks = rank_sets(pairs, list(few))
    assert set(ranks["rank_low"]) == {1} and set(ranks["rank_high"]) == {4}


def test_every_model_but_the_best_stands_below_it(models):
    values = pd.Series({name: each.value for name, each in models.items()})
    standing = against_best(compare(models), values)
    best = values.idxmax()
    assert set(standing.index) == set(models) - {best}
    for name, row in standing.iterrows():
        assert row["difference"] == pytest.approx(values[name] - values[best]) and row["low"] <= row["high"]


def test_an_undefined_number_has_a_pair_without_difference_and_test():
    known, unknown = mean_of(np.linspace(0, 1, 12)), mean_of(np.full(12, np.nan))
    pair = compare({"a": known, "b": unknown}).iloc[0]
    assert pair[["difference", "low", "high", "p", "p_holm"]].isna().all()


def test_the_two_levels_are_the_deviation_of_the_seeds_and_that_of_the_test_images():
    rng = np.random.default_rng(1)
    groups, shifts = rng.uniform(0.4, 0.6, 400), np.array([-0.02, 0.0, 0.05])
    estimates = [mean_of(groups + shift) for shift in shifts]
    metrics = [{"score": each.value, "resamples": {"score": each}} for each in estimates]
    found = two_levels(metrics, "score", "score")
    assert found["seed_sd"] == pytest.approx(shifts.std(ddof=1))
    assert found["sampling_sd"] == pytest.approx(stats.sem(groups), rel=0.05)
    assert found["total_sd"] == pytest.approx(np.hypot(found["seed_sd"], found["sampling_sd"]))
    alone = two_levels(metrics[:1], "score", "score")
    assert np.isnan(alone["seed_sd"]) and alone["sampling_sd"] == pytest.approx(found["sampling_sd"])


def test_estimates_are_read_as_they_were_written(tmp_path):
    estimate = mean_of(np.linspace(0, 1, 12))._replace(bounds=(0, np.inf))
    write_metrics(tmp_path / "metrics.json", {"score": 0.5, "resamples": {"a.b": estimate}})
    found = read_metrics(tmp_path / "metrics.json")
    assert found["score"] == 0.5 and found["resamples"]["a.b"].bounds == (0, np.inf)
    assert found["resamples"]["a.b"].values == pytest.approx(estimate.values, abs=1e-7)
    assert (found["resamples"]["a.b"].cases == 1).all()


def test_a_study_of_one_model_has_tables_of_no_pairs_which_tell_nothing(tmp_path):
    one = study_files.study_settings(models=("convnext_atto",))
    detectors = detection_files.study_settings(models=("swin_base",))
    segmenters = segmentation_files.study_settings(models=("segformer_b0",))
    paths = study_files.write_study(tmp_path / "c", one)
    detected = detection_files.write_study(tmp_path / "d", detectors)["metrics"]
    segmented = segmentation_files.write_study(tmp_path / "s", segmenters)["metrics"]
    tables = {
        "classification_pairs": classification_pairs(paths["predictions"], paths["classification"], one),
        "detection_pairs": pairs(detected, detectors),
        "segmentation_pairs": segmentation_pairs(segmented, segmenters),
    }
    evidence = Evidence.__new__(Evidence)
    evidence.tables, evidence.settings = {}, one
    for name, made in tables.items():
        table.write(made, tmp_path / f"{name}.csv", tmp_path / f"{name}.md", None)
        assert "p_holm" in (tmp_path / f"{name}.csv").read_text() and made.data.empty
        evidence.tables[name] = pd.read_csv(tmp_path / f"{name}.csv")
        part = "subset" if name.startswith("seg") else "score"
        assert not evidence.told(name, "paper", part, "ap")("swin_base", "detr_r50")


def test_ablations_are_compared_with_what_they_are_ablations_of_and_adjusted_for_these_pairs(tmp_path):
    settings = detection_files.study_settings(
        models=("swin_base", "swin_base_rfla", "convnext_tiny", "detr_r50")
    )
    entries = settings["models"]["detection"]
    entries["convnext_tiny"]["ablation_of"] = ["swin_base", "swin_base_rfla"]
    entries["detr_r50"]["ablation_of"] = ["swin_base"]
    metrics = detection_files.write_study(tmp_path, settings, seeds=(0, 1))["metrics"]
    records = []
    for path in metrics:
        own = {"optimizer": "sgd"} if "/convnext_tiny/" in path.as_posix() else {"optimizer": "adamw"}
        record = {"settings": {"epochs": 12, "micro_batch": len(records), "seed": len(records)} | own}
        records.append(path.with_name("run.json"))
        write_json(records[-1], record)
    found, every = ablations(metrics, records, settings), pairs(metrics, settings)
    wanted = [("convnext_tiny", "swin_base"), ("convnext_tiny", "swin_base_rfla"), ("detr_r50", "swin_base")]
    data = found.data[found.data["protocol"] == "grouped"]
    assert set(data["score"]) == {"ap", "ap50", "ap75", "ar100"} and len(data) == 4 * len(wanted)
    for score, part in data.groupby("score"):
        assert list(zip(part["model"], part["other"], strict=True)) == wanted
        assert part["p_holm"].to_numpy() == pytest.approx(holm(part["p"]))
        others = every.data[(every.data["protocol"] == "grouped") & (every.data["score"] == score)]
        others = others.set_index(["model", "other"])
        for row in part.itertuples():
            same = others.loc[(row.other, row.model)]  # the other way round
            assert (row.difference, row.low, row.high) == pytest.approx(
                (-same.difference, -same.high, -same.low)
            )
            assert row.p == pytest.approx(same.p)
    assert found.shown["What differs"].to_list()[:3] == ["optimizer: adamw → sgd"] * 2 + ["nothing"]
    assert "n = 44 test images in 22 groups" in found.notes[0]
