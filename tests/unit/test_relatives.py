"""Test images with and without a relative in training: each part against the same part evaluated alone."""

import itertools
import json
from typing import NamedTuple

import detection_files
import numpy as np
import pandas as pd
import pytest
import segmentation_files
from PIL import Image
from scipy import stats
from sklearn.metrics import accuracy_score, roc_auc_score

import study_files
from busflow.files import read_json, write_csv, write_json
from busflow.metrics.classification import evaluate as evaluate_classification
from busflow.metrics.detection import evaluate as evaluate_detection
from busflow.metrics.pooled import evaluate_pooled
from busflow.metrics.relatives import relatives
from busflow.metrics.resamples import read_metrics
from busflow.metrics.scores import at
from busflow.metrics.segmentation import evaluate as evaluate_segmentation
from busflow.metrics.uncertainty import RESAMPLES
from busflow.tables.relatives import relatives as tabulate

EVALUATE = {
    "classification": evaluate_classification,
    "detection": evaluate_detection,
    "segmentation": evaluate_segmentation,
}
# Where a score of a part stands if the part is all that is tested, and its estimate in a part.
ALONE = {
    "classification": {
        "accuracy": ("accuracy", "accuracy"),
        "macro_f1": ("macro_f1", "macro_f1"),
        "malignant_auroc": ("per_class.malignant.auroc", "malignant_auroc"),
    },
    "detection": {"ap50": ("coco.ap50", "ap50"), "ap": ("coco.ap", "ap")},
    "segmentation": {
        "dice.mean": ("per_image.lesion.dice.mean", "dice"),
        "iou.mean": ("per_image.lesion.iou.mean", "iou"),
    },
}


class Unit(NamedTuple):
    """A unit whose every second test group has a training image."""

    task: str
    split: pd.DataFrame
    predictions: pd.DataFrame | list[dict]
    inputs: tuple

    def metrics(self, folder, split=None) -> dict:
        """With another split, the test images of which are among those of its own."""
        split = self.split if split is None else split
        tested = set(split.loc[split["split"] == "test", "image_id"])
        folder.mkdir(exist_ok=True)
        write_csv(folder / "split.csv", split)
        path = folder / ("predictions.csv" if isinstance(self.predictions, pd.DataFrame) else "p.json")
        if path.suffix == ".csv":
            write_csv(path, self.predictions[self.predictions["image_id"].isin(tested)])
        else:
            write_json(path, [each for each in self.predictions if each["image_id"] in tested])
        return EVALUATE[self.task](path, folder / "split.csv", *self.inputs)

    def without(self, tested: pd.Series) -> pd.DataFrame:
        """The split with these test images alone."""
        return self.split[(self.split["split"] != "test") | tested]

    @property
    def related(self) -> pd.Series:
        trained = self.split.loc[self.split["split"] == "train", "group"]
        return self.split["group"].isin(set(trained))


def with_relatives(split: pd.DataFrame) -> pd.DataFrame:
    """The test images, and a training image of every second of their groups."""
    test = split[split["split"] == "test"]
    first = test.drop_duplicates("group").iloc[::2]
    return pd.concat([test, first.assign(image_id=first["image_id"] + "_t", split="train")])


def classified(folder) -> Unit:
    split = with_relatives(study_files.make_images()[["image_id", "label", "group"]].assign(split="test"))
    return Unit("classification", split, study_files.make_predictions(split, skill=1.0), ())


def detected(folder) -> Unit:
    split, images, annotations = detection_files.make_truth(videos=12)
    found = detection_files.make_detections(split, annotations)
    files = detection_files.write_unit(folder, split, images, annotations, found)
    return Unit("detection", with_relatives(split), found, tuple(files[2:]))


def segmented(folder) -> Unit:
    split = segmentation_files.make_split()
    masks = segmentation_files.make_masks(split)
    for image_id, mask in masks.items():
        path = folder / f"masks/{image_id}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(mask).save(path)
    predictions = segmentation_files.encode(segmentation_files.make_predictions(masks))
    return Unit("segmentation", with_relatives(split), predictions, (folder / "masks",))


@pytest.fixture(scope="module", params=[classified, detected, segmented])
def unit(request, tmp_path_factory) -> Unit:
    return request.param(tmp_path_factory.mktemp("unit"))


@pytest.fixture(scope="module")
def found(unit, tmp_path_factory) -> dict:
    return unit.metrics(tmp_path_factory.mktemp("found") / "whole")


def parts(unit):
    return {"with": unit.related, "without": ~unit.related}


def test_only_the_training_part_counts_and_all_images_of_a_group_go_together():
    rows = [("a", "train"), ("a", "test"), ("a", "test"), ("b", "val"), ("b", "test"), ("c", "test")]
    split = pd.DataFrame(rows, columns=["group", "split"])
    tested = split.loc[split["split"] == "test", "group"]
    sides = relatives(split, tested)
    assert tested[sides["with"]].to_list() == ["a", "a"] and tested[sides["without"]].to_list() == ["b", "c"]


def test_each_part_has_the_scores_and_counts_of_that_part_evaluated_alone(unit, found, tmp_path):
    for name, chosen in parts(unit).items():
        alone = unit.metrics(tmp_path / name, unit.without(chosen))
        lesions = alone["per_image"]["lesion"]["n"] if unit.task == "segmentation" else alone["n"]
        assert found["relatives"][name]["n"] == lesions > 0
        for place, (of_alone, _) in ALONE[unit.task].items():
            assert at(found["relatives"][name], place) == pytest.approx(at(alone, of_alone), abs=1e-12)


def test_the_parts_differ_from_each_other_and_add_up(unit, found):
    one, other = (found["relatives"][name] for name in ("with", "without"))
    lesions = found["per_image"]["lesion"]["n"] if unit.task == "segmentation" else found["n"]
    assert one["n"] + other["n"] == lesions
    assert {at(one, place) != at(other, place) for place in ALONE[unit.task]} == {True}


def test_without_a_group_a_part_is_what_it_is_without_its_images(unit, found, tmp_path):
    groups = np.unique(unit.split.loc[unit.split["split"] == "test", "group"])
    first = {name: unit.split.loc[chosen, "group"].iloc[0] for name, chosen in parts(unit).items()}
    for (left_out, group), part in itertools.product(first.items(), first):
        alone = unit.without(parts(unit)[part] & (unit.split["group"] != group))
        again = unit.metrics(tmp_path / f"{left_out}_{part}", alone)
        row = 1 + RESAMPLES + groups.tolist().index(group)
        for place, (of_alone, name) in ALONE[unit.task].items():
            estimate = found["resamples"][f"relatives.{part}.{name}"]
            assert estimate.values[row] == pytest.approx(at(again, of_alone), abs=1e-6)
            assert estimate.value == pytest.approx(at(found["relatives"][part], place))


def test_groups_of_the_other_part_are_no_cases(unit, found):
    for name, chosen in parts(unit).items():
        groups = unit.split[unit.split["split"] == "test"].groupby("group").groups
        of_part = set(unit.split.loc[chosen, "group"])
        for _, estimate in ALONE[unit.task].values():
            cases = found["resamples"][f"relatives.{name}.{estimate}"].cases.sum(axis=1)
            assert {group for group, n in zip(groups, cases, strict=True) if n} <= of_part
            assert cases.sum() > 0


def test_without_a_training_relative_one_part_is_null_and_the_other_is_all(unit, tmp_path):
    split = unit.split.assign(group=lambda t: t["group"].where(t["split"] == "test", "elsewhere"))
    metrics = unit.metrics(tmp_path / "apart", split)
    none, every = (metrics["relatives"][name] for name in ("with", "without"))
    assert none["n"] == none["n_groups"] == 0
    for place, (of_alone, estimate) in ALONE[unit.task].items():
        assert at(none, place) is None and at(every, place) == pytest.approx(at(metrics, of_alone))
        assert metrics["intervals"]["relatives"]["with"][estimate] is None
        assert np.isnan(metrics["resamples"][f"relatives.with.{estimate}"].values).all()
    plain = {name: value for name, value in metrics.items() if name != "resamples"}
    json.dumps(plain, allow_nan=False)


def test_with_relatives_alone_the_other_part_is_null(unit, tmp_path):
    metrics = unit.metrics(tmp_path / "with", unit.without(unit.related))
    assert metrics["relatives"]["without"]["n"] == 0
    for place, (of_alone, _) in ALONE[unit.task].items():
        assert at(metrics["relatives"]["without"], place) is None
        assert at(metrics["relatives"]["with"], place) == pytest.approx(at(metrics, of_alone))


def test_a_split_of_test_images_alone_says_nothing_of_relatives(unit, tmp_path):
    metrics = unit.metrics(tmp_path / "test", unit.split[unit.split["split"] == "test"])
    assert "relatives" not in metrics and "relatives" not in metrics["intervals"]
    assert not [name for name in metrics["resamples"] if name.startswith("relatives")]


def test_folds_taken_together_say_nothing_of_relatives(unit, tmp_path):
    unit.metrics(tmp_path / "fold")
    predictions = next(path for path in (tmp_path / "fold").iterdir() if path.name[0] == "p")
    pooled = evaluate_pooled(unit.task, [predictions], [tmp_path / "fold/split.csv"], unit.inputs)
    assert "relatives" not in pooled


def test_too_few_groups_have_no_interval_and_many_have_one_around_the_score(unit, found):
    for name in parts(unit):
        for place, (_, estimate) in ALONE[unit.task].items():
            interval = found["intervals"]["relatives"][name][estimate]
            if unit.task == "classification":
                assert interval[0] < at(found["relatives"][name], place) < interval[1]
            else:  # 6 videos, or 5 pairs of images
                assert interval is None


def test_the_classifiers_scores_are_those_of_scikit_learn(tmp_path):
    unit = classified(tmp_path)
    block = unit.metrics(tmp_path / "whole")["relatives"]
    for name, chosen in parts(unit).items():
        ids = unit.split.loc[chosen & (unit.split["split"] == "test"), "image_id"]
        rows = unit.predictions[unit.predictions["image_id"].isin(ids)]
        assert block[name]["accuracy"] == pytest.approx(accuracy_score(rows["label"], rows["prediction"]))
        auroc = roc_auc_score(rows["label"] == "malignant", rows["p_malignant"])
        assert block[name]["malignant_auroc"] == pytest.approx(auroc)
        assert block[name]["n_per_class"] == {
            label: (rows["label"] == label).sum() for label in study_files.LABELS
        }


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """Two classifiers, under the paper's split with many relatives; two detectors, without any."""
    settings = study_files.study_settings(models=("convnext_atto", "convnext_nano"))
    settings["models"] |= detection_files.study_settings(models=("convnext_tiny", "detr_r50"))["models"]
    paths = [
        path
        for files in (study_files, detection_files)
        for path in files.write_study(tmp_path_factory.mktemp("study"), settings, (0, 1))["metrics"]
    ]
    return settings, paths


def of(data, **where):
    return data.loc[(data[list(where)] == pd.Series(where)).all(axis=1)].iloc[0]


def test_the_table_has_a_row_per_protocol_task_model_and_score(study):
    settings, paths = study
    data = tabulate(paths[::-1], settings).data
    keys = list(data[["protocol", "task", "model", "score"]].itertuples(index=False, name=None))
    assert keys == [
        (protocol, task, model, score)
        for protocol in ("paper", "grouped")
        for task, scores in (
            ("classification", ("accuracy", "macro_f1", "malignant_auroc")),
            ("detection", ("ap50", "ap")),
        )
        for model in settings["models"][task]
        for score in scores
    ]


def test_the_table_has_means_over_the_seeds_and_their_difference(study):
    settings, paths = study
    table = tabulate(paths, settings)
    row = of(table.data, protocol="paper", model="convnext_nano", score="accuracy")
    seeds = [
        read_json(path)["relatives"] for path in paths if "paper/classification/convnext_nano" in str(path)
    ]
    assert len(seeds) == row["seeds"] == 2
    means = {part: np.mean([each[part]["accuracy"] for each in seeds]) for part in ("with", "without")}
    assert (row["with"], row["without"]) == pytest.approx((means["with"], means["without"]))
    assert row["difference"] == pytest.approx(means["with"] - means["without"])
    assert (row["n_with"], row["n_groups_with"]) == (seeds[0]["with"]["n"], seeds[0]["with"]["n_groups"])
    words = table.shown.loc[row.name, "Difference"]
    assert words.startswith(f"{row['difference']:+.3f} [") and words.endswith(
        f"{row['difference_high']:+.3f}]"
    )
    assert any("not the leak alone" in note for note in table.notes)


def test_the_interval_of_the_difference_is_about_that_of_two_independent_means(study):
    """Welch's interval on the groups' resamples, which for scores in mid-range is nearly the same."""
    settings, paths = study
    row = of(tabulate(paths, settings).data, protocol="paper", model="convnext_nano", score="accuracy")
    found = [
        read_metrics(path)["resamples"] for path in paths if "paper/classification/convnext_nano" in str(path)
    ]
    draws = [
        np.mean([each[f"relatives.{part}.accuracy"].draws for each in found], axis=0)
        for part in ("with", "without")
    ]
    half = stats.norm.ppf(0.975) * np.hypot(*(np.std(each) for each in draws))
    assert row["difference_low"] < row["difference"] < row["difference_high"]
    assert (row["difference_high"] - row["difference_low"]) / 2 == pytest.approx(half, rel=0.25)


def test_a_protocol_without_relatives_has_nothing_to_compare(study):
    settings, paths = study
    table = tabulate(paths, settings)
    row = of(table.data, protocol="grouped", model="convnext_nano", score="accuracy")
    assert (row["n_with"], row["n_groups_with"]) == (0, 0) and row["n_without"] > 0
    shown = table.shown.loc[row.name]
    assert (shown["With"], shown["Difference"]) == ("n/a", "n/a") and "[" in shown["Without"]


def test_with_too_few_groups_of_a_class_on_one_side_there_is_no_interval_of_the_difference(study):
    settings, paths = study
    table = tabulate(paths, settings)
    split = pd.read_csv(paths[0].parents[5] / "splits/paper/classification.csv")
    test, trained = (split[split["split"] == part] for part in ("test", "train"))
    related = test[test["group"].isin(trained["group"])].drop_duplicates("group")
    assert related["label"].value_counts().min() < 10 <= len(related)
    row = of(table.data, protocol="paper", model="convnext_nano", score="macro_f1")
    assert np.isnan(row["with_low"]) and not np.isnan(row["without_low"])
    assert table.shown.loc[row.name, "Difference"] == f"{row['difference']:+.3f}"
