"""Temperature, thresholds, and what they do to test images, against scikit-learn and by hand."""

import json

import numpy as np
import pandas as pd
import pytest
from sklearn import metrics as sk
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.calibration import CalibratedClassifierCV
from sklearn.frozen import FrozenEstimator

from busflow.errors import BusflowError
from busflow.files import write_json
from busflow.metrics.calibration import BOUNDS, TARGETS, calibrated, fit, nll, thresholds
from busflow.metrics.classification import evaluate
from study_files import LABELS, make_calibration, make_images, make_predictions, make_split

PROBABILITIES = [f"p_{label}" for label in LABELS]


def softmax(logits: np.ndarray) -> np.ndarray:
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


def made_up(temperature: float, n: int = 500, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Logits of a network that is calibrated once they are divided by the temperature, and labels."""
    rng = np.random.default_rng(seed)
    calm = rng.normal(scale=2, size=(n, 3))
    labels = (rng.random((n, 1)) > softmax(calm).cumsum(axis=1)).sum(axis=1)
    return calm * temperature, labels


class Logits(ClassifierMixin, BaseEstimator):
    """A classifier whose features are its logits."""

    def fit(self, features, labels):
        self.classes_ = np.unique(labels)
        return self

    def decision_function(self, features):
        return features

    def predict(self, features):
        return features.argmax(axis=1)


@pytest.mark.parametrize("temperature", [0.2, 0.7, 1.0, 3.0, 12.0])
def test_the_temperature_and_the_probabilities_are_those_of_scikit_learn(temperature):
    logits, labels = made_up(temperature)
    frozen = FrozenEstimator(Logits().fit(logits, labels))
    theirs = CalibratedClassifierCV(frozen, method="temperature").fit(logits, labels)
    (inner,) = theirs.calibrated_classifiers_
    ours = fit(logits, labels)
    assert ours == pytest.approx(1 / inner.calibrators[0].beta_, rel=1e-3)
    assert ours == pytest.approx(temperature, rel=0.15)
    expected = theirs.predict_proba(logits)
    assert np.allclose(calibrated(softmax(logits), ours), expected, atol=1e-3)
    assert nll(logits, labels, ours) == pytest.approx(sk.log_loss(labels, expected), abs=1e-6)
    assert nll(logits, labels, ours) <= nll(logits, labels)


def test_log_probabilities_are_logits_too():
    logits, labels = made_up(3.0)
    assert fit(np.log(softmax(logits)), labels) == pytest.approx(fit(logits, labels), rel=1e-6)


def test_where_every_image_is_right_the_temperature_is_the_least():
    logits, _ = made_up(1.0)
    assert fit(logits, logits.argmax(axis=1)) == pytest.approx(BOUNDS[0], rel=1e-3)


@pytest.mark.parametrize("temperature", [BOUNDS[0], 0.5, 4.0, BOUNDS[1]])
def test_calibrated_probabilities_keep_their_order_and_sum_to_one(temperature):
    before = softmax(made_up(1.0)[0])
    after = calibrated(before, temperature)
    assert np.array_equal(before.argsort(axis=1), after.argsort(axis=1))
    assert after.sum(axis=1) == pytest.approx(1)
    assert np.allclose(after, softmax(np.log(before) / temperature))


def test_a_temperature_of_one_changes_nothing_and_an_impossible_class_stays_so():
    before = softmax(made_up(1.0)[0])
    assert np.allclose(calibrated(before, 1.0), before, rtol=1e-14, atol=0)
    assert calibrated([[0.0, 0.2, 0.8], [0.0, 0.0, 1.0]], 10.0)[:, 0].tolist() == [0, 0]
    assert calibrated([[0.0, 0.0, 1.0]], 0.05).tolist() == [[0, 0, 1]]


@pytest.mark.parametrize("n", [*range(1, 45), 100, 1234])
@pytest.mark.parametrize("digits", [1, 17])  # with many ties, and without
def test_a_threshold_is_the_greatest_that_finds_enough_malignant_images(n, digits):
    rng = np.random.default_rng(n)
    scores, malignant = rng.random(2 * n).round(digits), np.arange(2 * n) % 2 == 0
    for name, threshold in thresholds(scores, malignant).items():
        of_malignant = scores[malignant]
        assert (of_malignant >= threshold).sum() * 100 >= round(100 * TARGETS[name]) * n
        higher = scores[scores > threshold]
        if len(higher):
            assert (of_malignant >= higher.min()).sum() * 100 < round(100 * TARGETS[name]) * n


def test_without_a_malignant_image_there_is_no_threshold():
    assert thresholds(np.array([0.1, 0.9]), np.array([False, False])) == {"0.90": None, "0.95": None}


@pytest.fixture
def unit(tmp_path):
    """Evaluate made-up predictions by a calibration; also their table, with the groups."""

    def evaluated(change=lambda table: table, **of_calibration) -> tuple[dict, pd.DataFrame]:
        split = make_split(make_images(), "group")
        table = change(make_predictions(split, skill=1.0).merge(split[["image_id", "group"]]))
        table.drop(columns="group").to_csv(tmp_path / "predictions.csv", index=False)
        tested = table[["image_id", "label", "group"]].assign(split="test")
        tested.to_csv(tmp_path / "split.csv", index=False)
        write_json(tmp_path / "run.json", {"calibration": make_calibration(**of_calibration)})
        inputs = [tmp_path / name for name in ("predictions.csv", "split.csv", "run.json")]
        return evaluate(*inputs), table

    return evaluated


def test_before_and_after_are_the_scores_of_both_probabilities(unit):
    found, table = unit(temperature=2.5)
    calibration, before = found["calibration"], table[PROBABILITIES].to_numpy()
    assert (calibration["temperature"], calibration["n_validation"]) == (2.5, 40)
    assert calibration["before"]["ece"] == found["ece"]
    after = softmax(np.log(before) / 2.5)
    for stage, probabilities in {"before": before, "after": after}.items():
        brier = sk.brier_score_loss(table["label"], probabilities, labels=LABELS, scale_by_half=False)
        assert calibration[stage]["brier"] == pytest.approx(brier)
        for score, (low, high) in calibration["intervals"][stage].items():
            assert 0 <= low < high, score
    confidence, right = after.max(axis=1), (table["label"] == table["prediction"]).to_numpy()
    bins = np.digitize(confidence, np.arange(1, 15) / 15, right=True)
    gaps = [abs((right - confidence)[bins == k].sum()) for k in range(15)]
    assert calibration["after"]["ece"] == pytest.approx(sum(gaps) / len(table))
    low, high = calibration["intervals"]["after"]["brier"]
    assert low < calibration["after"]["brier"] < high


def test_sensitivity_and_specificity_are_those_of_scikit_learns_confusion_matrix(unit):
    found, table = unit(temperature=2.5, threshold=0.6)
    scores = softmax(np.log(table[PROBABILITIES].to_numpy()) / 2.5)[:, LABELS.index("malignant")]
    points = found["calibration"]["operating_points"]
    assert [(point["target"], point["threshold"]) for point in points] == [(0.9, 0.6), (0.95, 0.3)]
    for point in points:
        truth = table["label"] == "malignant"
        (tn, fp), (fn, tp) = sk.confusion_matrix(truth, scores >= point["threshold"])
        assert point["sensitivity"] == pytest.approx(tp / (tp + fn))
        assert point["specificity"] == pytest.approx(tn / (tn + fp))
        assert (point["n_malignant"], point["n_other"]) == (tp + fn, tn + fp)
        for name, (low, high) in point["intervals"].items():
            assert low <= point[name] <= high


def test_an_image_at_the_threshold_is_found(unit, tmp_path):
    unit()
    table = pd.read_csv(tmp_path / "predictions.csv")
    scores = calibrated(table[PROBABILITIES].to_numpy(), 1.5)[:, LABELS.index("malignant")]
    least = scores[table["label"] == "malignant"].min()
    found, _ = unit(temperature=1.5, threshold=float(least))
    assert found["calibration"]["operating_points"][0]["sensitivity"] == 1


def test_intervals_draw_groups_and_not_frames(unit):
    """Every frame ten times in its group: the same intervals."""

    def tenfold(table):
        copies = [table.assign(image_id=table["image_id"] + f"-{k}") for k in range(10)]
        return pd.concat(copies)

    (once, _), (often, _) = unit(), unit(tenfold)
    assert often["n"] == 10 * once["n"] and often["n_groups"] == once["n_groups"]
    for stage, scores in once["calibration"]["intervals"].items():
        for score, ends in scores.items():
            assert often["calibration"]["intervals"][stage][score] == pytest.approx(ends)
    pairs = zip(*(each["calibration"]["operating_points"] for each in (once, often)), strict=True)
    for one, other in pairs:
        for name, ends in one["intervals"].items():
            assert other["intervals"][name] == pytest.approx(ends, abs=0.05)  # resamples at a bound


def test_one_group_has_no_interval(unit):
    found, _ = unit(lambda table: table.assign(group="lin/only"))
    calibration = found["calibration"]
    nothing = {"ece": None, "brier": None}
    assert calibration["intervals"] == {"before": nothing, "after": nothing}
    for point in calibration["operating_points"]:
        assert point["intervals"] == {"sensitivity": None, "specificity": None}
        assert point["sensitivity"] is not None and point["specificity"] is not None


def test_one_group_of_malignant_images_says_nothing_about_the_spread_of_sensitivity(unit):
    def together(table):
        malignant = table["label"] == "malignant"
        return table.assign(group=table["group"].where(~malignant, "lin/only"))

    for point in unit(together)[0]["calibration"]["operating_points"]:
        assert point["intervals"]["sensitivity"] is None
        assert len(point["intervals"]["specificity"]) == 2


def test_without_test_images_of_a_kind_its_share_is_null_with_its_n(unit):
    for label, absent, share in (
        ("malignant", "n_other", "specificity"),
        ("benign", "n_malignant", "sensitivity"),
    ):
        found, _ = unit(lambda table, label=label: table[table["label"] == label])
        for point in found["calibration"]["operating_points"]:
            assert point[absent] == 0 and point[share] is None and point["intervals"][share] is None


def test_without_a_threshold_nothing_is_found_or_missed(unit):
    found, table = unit(threshold=None)
    for point in found["calibration"]["operating_points"]:
        assert point["threshold"] is point["sensitivity"] is point["specificity"] is None
        assert point["intervals"] == {"sensitivity": None, "specificity": None}
        assert point["n_malignant"] == (table["label"] == "malignant").sum() > 0
    assert found["calibration"]["after"]["brier"] > 0


@pytest.mark.parametrize(
    "record",
    ["", "[]", '{"seconds": 1.5}', json.dumps({"calibration": make_calibration() | {"temperature": -1}})],
    ids=["cut", "list", "old", "damaged"],
)
def test_the_record_of_an_older_training_is_named_with_the_remedy(unit, tmp_path, record):
    unit()
    (tmp_path / "run.json").write_text(record)
    inputs = [tmp_path / name for name in ("predictions.csv", "split.csv", "run.json")]
    with pytest.raises(BusflowError, match=r"holds no calibration.*run the workflow again") as error:
        evaluate(*inputs)
    assert str(tmp_path / "run.json") in str(error.value) and "\n" not in str(error.value)
    (tmp_path / "run.json").unlink()
    with pytest.raises(BusflowError, match=r"run\.json: no such file"):
        evaluate(*inputs)


def test_predictions_of_several_trainings_have_no_calibration_in_common(unit, tmp_path):
    unit()
    assert "calibration" not in evaluate(tmp_path / "predictions.csv", tmp_path / "split.csv")
