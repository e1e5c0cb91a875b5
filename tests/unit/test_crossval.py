"""Cross-validation tables: the scores of folds, and of all folds as of one unit that tests every image."""

import runpy
from pathlib import Path

import detection_files
import numpy as np
import pandas as pd
import pytest
import segmentation_files
from sklearn.metrics import accuracy_score, f1_score, jaccard_score

import study_files
from busflow.errors import BusflowError
from busflow.files import read_json, write_csv, write_json
from busflow.metrics.classification import evaluate as evaluate_classification
from busflow.metrics.detection import evaluate as evaluate_detection
from busflow.metrics.pooled import evaluate_pooled
from busflow.metrics.resamples import read_metrics, write_metrics
from busflow.metrics.scores import scores
from busflow.metrics.segmentation import evaluate as evaluate_segmentation
from busflow.tables.crossval import crossval
from busflow.tables.table import Table

OF = 3
SCRIPT = Path(__file__).parents[2] / "scripts/pool.py"
EVALUATE = {
    "classification": evaluate_classification,
    "detection": evaluate_detection,
    "segmentation": evaluate_segmentation,
}


def settings_of(task: str, models: dict, folds=range(1, OF + 1), **entry) -> dict:
    protocols = {
        f"fold_{k}": {"label": f"Fold {k}", "split": "grouped", "fold": [k, OF]} | entry for k in folds
    }
    return {"protocols": protocols, "models": {task: models}}


def folds_of(split: pd.DataFrame) -> pd.Series:
    """The fold of each image, by its group."""
    return 1 + pd.Series(pd.factorize(split["group"])[0] % OF, split.index)


def write_fold(root: Path, k: int, split: pd.DataFrame, unit: str, predictions, inputs=()) -> dict:
    """The split, predictions and scores of one fold; ``predictions`` are all images'."""
    task = unit.split("/", maxsplit=1)[0]
    part = split.assign(split=(folds_of(split) == k).map({True: "test", False: "train"}))
    tested = set(part.loc[part["split"] == "test", "image_id"])
    folder = root / f"results/fold_{k}/{unit}"
    paths = {"splits": root / f"splits/fold_{k}/{task}.csv", "scores": folder / "scores.json"}
    write_csv(paths["splits"], part)
    if isinstance(predictions, pd.DataFrame):
        paths["predictions"] = folder / "predictions.csv"
        write_csv(paths["predictions"], predictions[predictions["image_id"].isin(tested)])
    else:
        paths["predictions"] = folder / "predictions.json"
        write_json(paths["predictions"], [each for each in predictions if each["image_id"] in tested])
    metrics = EVALUATE[task](paths["predictions"], paths["splits"], *inputs)
    write_json(paths["scores"], scores(task, metrics))
    return paths | {"values": scores(task, metrics)}


def listed(folds: list[dict], *kinds: str) -> list[list[Path]]:
    return [[fold[kind] for fold in folds] for kind in kinds]


def table_of(task: str, folds: list[dict], settings: dict, inputs=()) -> Table:
    """The table of folds, all of one division, after the rules' way: first each seed's folds together."""
    pooled = []
    for seed in sorted({fold["scores"].parent.name for fold in folds}):
        of_seed = [fold for fold in folds if fold["scores"].parent.name == seed]
        metrics = evaluate_pooled(task, *listed(of_seed, "predictions", "splits"), tuple(inputs))
        root = of_seed[0]["splits"].parents[2]
        pooled.append(root / f"results/pooled/fold_1/{task}/mine/{seed}/metrics.json")
        write_metrics(pooled[-1], metrics)
    return crossval(pooled, *listed(folds, "scores", "splits"), settings)


@pytest.fixture(scope="module")
def classified(tmp_path_factory):
    """Three folds of a classifier with two seeds, and all its predictions by seed."""
    root = tmp_path_factory.mktemp("classified")
    split = study_files.make_images()[["image_id", "label", "group"]].assign(split="test")
    split = split[["image_id", "split", "label", "group"]]
    predictions = [study_files.make_predictions(split, seed) for seed in (0, 1)]
    folds = [
        write_fold(root, k, split, f"classification/mine/seed{seed}", predictions[seed])
        for seed in (0, 1)
        for k in range(1, OF + 1)
    ]
    return split, predictions, folds


MODELS = {"mine": {"label": "Mine"}}


def test_the_pooled_score_is_that_of_every_image_predicted_once(classified):
    split, predictions, folds = classified
    row = table_of("classification", folds, settings_of("classification", MODELS)).data.iloc[0]
    for name, score in {
        "accuracy": accuracy_score,
        "macro_f1": lambda y, p: f1_score(y, p, average="macro"),
    }.items():
        expected = np.mean([score(each["label"], each["prediction"]) for each in predictions])
        assert row[name] == pytest.approx(expected)
        assert row[f"{name}_low"] < row[name] < row[f"{name}_high"]
    assert (row["n"], row["n_groups"], row["seeds"]) == (len(split), split["group"].nunique(), 2)
    assert (row["folds"], row["division"]) == (OF, "Grouped, 3 folds")


def test_mean_and_deviation_are_those_of_the_folds_scores_averaged_over_the_seeds(classified):
    _, _, folds = classified
    table = table_of("classification", folds, settings_of("classification", MODELS))
    by_seed = np.array([fold["values"]["accuracy"] for fold in folds]).reshape(2, OF)
    mean, sd = by_seed.mean(axis=0).mean(), by_seed.mean(axis=0).std(ddof=1)
    row = table.data.iloc[0]
    assert row["accuracy_folds"] == pytest.approx(mean) and row["accuracy_folds_sd"] == pytest.approx(sd)
    assert table.shown["Accuracy, mean of folds"][0] == f"{100 * mean:.2f} ± {100 * sd:.2f}"


def test_an_ablation_which_has_no_results_here_has_no_row(classified):
    models = MODELS | {"twin": {"label": "Twin", "ablation_of": ["mine"]}}
    table = table_of("classification", classified[2], settings_of("classification", models))
    assert table.data["model"].to_list() == ["mine"]


def test_a_study_with_some_of_the_folds_says_so(classified):
    folds = [fold for fold in classified[2] if "fold_3" not in fold["scores"].as_posix()]
    settings = settings_of("classification", MODELS, folds=(1, 2))
    table = table_of("classification", folds, settings)
    assert table.shown["Folds"].to_list() == ["Grouped, 2 of 3 folds"]
    assert table.notes[0].startswith("Grouped, 2 of 3 folds: n = ")


def test_an_image_that_two_folds_test_is_named_with_both_protocols_and_the_splits_to_remove(
    classified, tmp_path
):
    split, predictions, _ = classified
    folds = [write_fold(tmp_path, k, split, "classification/mine/seed0", predictions[0]) for k in (1, 2)]
    first, second = (pd.read_csv(fold["splits"], dtype=str) for fold in folds)
    image = first.loc[first["split"] == "test", "image_id"].iloc[0]
    second.loc[second["image_id"] == image, "split"] = "test"
    write_csv(folds[1]["splits"], second)
    with pytest.raises(BusflowError) as refusal:
        evaluate_pooled("classification", *listed(folds, "predictions", "splits"))
    said = str(refusal.value)
    assert said.startswith(f"protocols fold_1 and fold_2 both test image {image} (1 such images in all)")
    assert f"remove {folds[0]['splits']} and {folds[1]['splits']}, and run the workflow again" in said


def test_the_script_writes_the_metrics_of_all_folds(classified, tmp_path, monkeypatch):
    folds = classified[2][:OF]
    predictions, splits = listed(folds, "predictions", "splits")
    arguments = ["--task", "classification", "--predictions", *predictions, "--splits", *splits, "--inputs"]
    output = tmp_path / "metrics.json"
    monkeypatch.setattr("sys.argv", ["pool.py", *map(str, arguments), "--output", str(output)])
    runpy.run_path(SCRIPT, run_name="__main__")
    expected = evaluate_pooled("classification", predictions, splits)
    resamples = expected.pop("resamples")
    assert read_json(output) == expected and read_metrics(output)["resamples"].keys() == resamples.keys()


def test_a_score_that_some_fold_lacks_is_the_mean_of_the_others(classified, tmp_path):
    folds = [dict(fold) for fold in classified[2][:OF]]
    folds[0]["scores"] = tmp_path / "fold_1/classification/mine/seed0/scores.json"
    write_json(folds[0]["scores"], folds[0]["values"] | {"macro_f1": None})
    shown = table_of("classification", folds, settings_of("classification", MODELS)).shown
    mean = np.mean([fold["values"]["macro_f1"] for fold in folds[1:]])
    assert shown["Macro F1, mean of folds"][0].startswith(f"{100 * mean:.2f} ± ")
    assert shown["Macro F1, mean of folds"][0].endswith(" (2 of 3)")


def test_detections_of_all_folds_are_scored_as_those_of_one_test_set(tmp_path):
    split, images, annotations = detection_files.make_truth(videos=22, frames=2)
    paths = detection_files.write_unit(tmp_path, split, images, annotations)
    split, inputs = split[split["split"] == "test"], paths[2:]
    found = detection_files.make_detections(split, annotations)
    folds = [write_fold(tmp_path, k, split, "detection/mine/seed0", found, inputs) for k in range(1, OF + 1)]
    whole = evaluate_detection(*paths)
    row = table_of("detection", folds, settings_of("detection", MODELS), inputs).data.iloc[0]
    for name in ("ap", "ap50", "ap75", "ar100"):
        assert row[name] == pytest.approx(whole["coco"][name])
    assert row[["ap_low", "ap_high"]].to_list() == pytest.approx(whole["intervals"]["ap"])
    assert row["ar100_low"] < row["ar100"] < row["ar100_high"] and row["n"] == whole["n"]


def test_masks_of_all_folds_are_scored_over_all_their_pixels(tmp_path):
    settings = segmentation_files.study_settings(models=["segformer_b0"])
    paths = segmentation_files.write_study(tmp_path, settings)
    split = segmentation_files.make_split().query("split == 'test'")
    truth = segmentation_files.make_masks(segmentation_files.make_split())
    found = segmentation_files.make_predictions(truth)
    folds = [
        write_fold(
            tmp_path, k, split, "segmentation/mine/seed0", segmentation_files.encode(found), [paths["masks"]]
        )
        for k in range(1, OF + 1)
    ]
    table = table_of("segmentation", folds, settings_of("segmentation", MODELS), [paths["masks"]])
    y, p = (np.concatenate([each[name].ravel() for name in sorted(truth)]) for each in (truth, found))
    row = table.data.iloc[0]
    assert row["miou"] == pytest.approx(jaccard_score(y, p, average="macro"))
    assert row["lesion_iou"] == pytest.approx(jaccard_score(y > 0, p > 0))
    assert np.isnan(row["lesion_dice_low"]) and 0 < row["lesion_dice"] < 1  # lesions in 9 groups
