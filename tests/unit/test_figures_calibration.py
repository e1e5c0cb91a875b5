"""Reliability and decision curves: closed forms, a literal loop, and lines that are those of the files."""

import matplotlib.pyplot as plt
import numpy as np
import pytest
from PIL import Image
from sklearn.metrics import confusion_matrix

from busflow.figures import style
from busflow.figures.calibration import THRESHOLDS, decision_curves, net_benefit, reliability
from busflow.files import read_json
from busflow.metrics.calibration import calibrated
from busflow.metrics.inputs import read_predictions
from study_files import study_settings, write_study

MODELS = ("convnext_atto", "convnext_nano")


@pytest.fixture(scope="module")
def settings():
    return study_settings(models=MODELS)


@pytest.fixture(scope="module")
def study(tmp_path_factory, settings) -> tuple[list, list]:
    """Predictions and metrics of two seeds under one protocol."""
    paths = write_study(tmp_path_factory.mktemp("study"), settings, seeds=(0, 1))
    return tuple([p for p in paths[kind] if "/grouped/" in str(p)] for kind in ("predictions", "metrics"))


@pytest.fixture(autouse=True)
def closed():
    yield
    plt.close("all")


@pytest.fixture
def cases() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    return rng.random(60) < 0.3, rng.random(60)


def test_net_benefit_is_hits_less_alarms_at_the_odds_of_the_threshold(cases):
    truth, scores = cases
    for threshold, found in zip(THRESHOLDS, net_benefit(truth, scores, THRESHOLDS), strict=True):
        (_, alarms), (_, hits) = confusion_matrix(truth, scores >= threshold)
        assert found == pytest.approx((hits - alarms * threshold / (1 - threshold)) / len(truth))


def test_who_acts_on_all_gains_less_the_higher_the_threshold_and_nothing_at_the_share_of_malignant(cases):
    truth = cases[0]
    share = truth.mean()
    everyone = net_benefit(truth, np.ones(len(truth)), THRESHOLDS)
    assert everyone == pytest.approx(share - (1 - share) * THRESHOLDS / (1 - THRESHOLDS))
    assert net_benefit(truth, np.ones(len(truth)), np.array([share])) == pytest.approx([0])


def test_who_knows_the_truth_gains_every_malignant_image_and_who_never_acts_nothing(cases):
    truth = cases[0]
    assert net_benefit(truth, truth.astype(float), THRESHOLDS) == pytest.approx(truth.mean())
    assert (net_benefit(truth, np.zeros(len(truth)), THRESHOLDS) == 0).all()


def test_reliability_shows_each_bins_share_of_hits_before_and_after_temperature(study, settings):
    figure = reliability(*study, settings)
    assert "first seed" in figure.get_suptitle()
    for panel, model in zip(figure.axes, MODELS, strict=False):
        (predictions,) = (path for path in study[0] if f"/{model}/seed0/" in str(path))
        table, metrics = read_predictions(predictions), read_json(predictions.with_name("metrics.json"))
        right = (table["label"] == table["prediction"]).to_numpy()
        probabilities = table[["p_benign", "p_malignant", "p_normal"]].to_numpy()
        temperature = metrics["calibration"]["temperature"]
        lines = {line.get_label(): line.get_xydata() for line in panel.get_lines()}
        for when, these in (("before", probabilities), ("after", calibrated(probabilities, temperature))):
            confidence = these.max(axis=1)
            bins = np.digitize(confidence, np.linspace(0, 1, 16)[1:-1])
            expected = [(confidence[bins == k].mean(), right[bins == k].mean()) for k in np.unique(bins)]
            assert lines[f"{when} temperature"] == pytest.approx(np.array(expected))
        ece = [f"{metrics['calibration'][when]['ece']:.3f}" for when in ("before", "after")]
        assert f"ECE {ece[0]} → {ece[1]}" in [text.get_text() for text in panel.texts]


def test_decision_curves_show_every_model_and_the_two_ways_to_decide_without_one(study, settings):
    figure = decision_curves(*study, settings)
    for panel, when in zip(figure.axes, ("before", "after"), strict=True):
        lines = {line.get_label(): line.get_ydata() for line in panel.get_lines()}
        assert list(lines) == [settings["models"]["classification"][m]["label"] for m in MODELS] + [
            "all",
            "nobody",
        ]
        predictions = study[0][0]
        table, metrics = read_predictions(predictions), read_json(predictions.with_name("metrics.json"))
        scores = table[["p_benign", "p_malignant", "p_normal"]].to_numpy()
        if when == "after":
            scores = calibrated(scores, metrics["calibration"]["temperature"])
        truth = (table["label"] == "malignant").to_numpy()
        first = lines[settings["models"]["classification"][MODELS[0]]["label"]]
        assert first == pytest.approx(net_benefit(truth, scores[:, 1], THRESHOLDS))
        assert (
            f"{truth.sum():,} of {len(truth):,} malignant" in panel.get_title(loc="left") + panel.get_title()
        )


@pytest.mark.parametrize("draw", [reliability, decision_curves])
def test_each_has_the_same_bytes_each_time_and_a_picture_of_few_colours(draw, study, settings, tmp_path):
    style.theme()
    for copy in ("a", "b"):
        style.save(draw(*study, settings), [tmp_path / f"{copy}.svg", tmp_path / f"{copy}.png"], "TEST")
    for kind in ("svg", "png"):
        assert (tmp_path / f"a.{kind}").read_bytes() == (tmp_path / f"b.{kind}").read_bytes()
    with Image.open(tmp_path / "a.png") as image:
        assert image.mode == "P" and 500 < image.width < 1650
