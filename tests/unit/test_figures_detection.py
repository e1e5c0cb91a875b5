"""Pictures of the detectors: what they show, reproducible files, and studies with gaps."""

import json
import runpy
import sys
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pytest
from detection_files import HEIGHT, WIDTH, make_timing, study_settings, write_study
from matplotlib.patches import Rectangle
from PIL import Image

from busflow.errors import BusflowError
from busflow.figures import boxes as figures_boxes
from busflow.figures import detection as figures_detection
from busflow.figures import style
from busflow.figures import timing as figures_timing
from busflow.files import read_json, write_json

ROOT = Path(__file__).parents[2]
MODELS = ("convnext_tiny", "swin_base", "detr_r50")


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    settings = study_settings(models=MODELS)
    return write_study(tmp_path_factory.mktemp("study"), settings, seeds=(0, 1)), settings


@pytest.fixture(autouse=True)
def themed():
    style.theme()
    yield
    plt.close("all")


def of_paper(paths):
    return [path for path in paths if "/results/paper/" in path.as_posix()]


def draw_boxes(study, entries=None, tmp_path=None, **changes):
    """Draw the first seeds of protocol paper; with ``entries`` one detector that predicts them."""
    paths, settings = study
    predictions = of_paper(paths["predictions"])
    if entries is not None:
        predictions = [tmp_path / "paper/detection/swin_base/seed0/predictions.json"]
        write_json(predictions[0], entries)
    figures = settings["figures"] | changes
    return figures_boxes.predicted_boxes(
        predictions,
        paths["splits"][0],
        paths["annotations"],
        paths["images"],
        settings | {"figures": figures},
    )


def boxes_of(panel):
    return [patch for patch in panel.patches if isinstance(patch, Rectangle)]


def scores_of(panel):
    return [text.get_text() for text in panel.texts]


BENIGN = "lin/benign/x000/000000"


def entry(score, label="benign", bbox=(1, 1, 20, 20), image_id=BENIGN):
    return {"image_id": image_id, "label": label, "bbox": list(bbox), "score": score}


def test_every_detector_shows_the_same_benign_and_malignant_image(study):
    figure = draw_boxes(study)
    axes = np.reshape(figure.axes, (2, len(MODELS)))
    for row in axes:
        pictures = [panel.images[0].get_array() for panel in row]
        assert all((picture == pictures[0]).all() for picture in pictures)
    assert axes[0, 0].get_xlabel() == BENIGN
    assert axes[1, 0].get_xlabel() == "lin/malignant/x001/000000"
    assert [panel.get_title(loc="left") for panel in axes[0]] == [
        "(a) ConvNeXt-Tiny",
        "(c) Swin-Base",
        "(e) DETR-ResNet50",
    ]


def test_the_picture_is_that_of_the_file(study):
    paths, _ = study
    panel = draw_boxes(study).axes[0]
    with Image.open(paths["splits"][0].parents[2] / "raw/0.png") as image:
        assert (panel.images[0].get_array()[..., 0] == np.asarray(image)).all()
    assert panel.images[0].get_array().shape[:2] == (HEIGHT, WIDTH)


def test_the_truth_is_drawn_where_it_is_and_boxes_from_the_score_up(study, tmp_path):
    entries = [entry(0.9, bbox=(5, 6, 7, 8)), entry(0.31, "malignant"), entry(0.29)]
    panel = draw_boxes(study, entries, tmp_path).axes[0]
    truth, *predicted = boxes_of(panel)
    assert truth.get_edgecolor()[:3] == (1, 1, 1)
    assert scores_of(panel) == ["0.31", "0.90"]  # the best is drawn last, on top
    assert predicted[-1].get_bbox().bounds == (5, 6, 7, 8)
    colours = [patch.get_edgecolor() for patch in predicted]
    assert colours[0] != colours[1]


def test_at_most_five_boxes_are_drawn(study, tmp_path):
    panel = draw_boxes(study, [entry(0.4 + k / 100) for k in range(9)], tmp_path).axes[0]
    assert scores_of(panel) == ["0.44", "0.45", "0.46", "0.47", "0.48"]


def test_without_a_sure_box_the_best_one_is_faint(study, tmp_path):
    panel = draw_boxes(study, [entry(0.2), entry(0.1)], tmp_path).axes[0]
    assert scores_of(panel) == ["0.20"]
    assert boxes_of(panel)[-1].get_alpha() < 1


def test_a_detector_that_predicts_nothing_is_shown_with_the_truth_alone(study, tmp_path):
    panel = draw_boxes(study, [], tmp_path).axes[0]
    assert scores_of(panel) == ["no box"]
    assert len(boxes_of(panel)) == 1


def test_the_images_can_be_chosen(study):
    figure = draw_boxes(study, detection_examples={"benign": "lin/benign/x002/000001"})
    assert figure.axes[0].get_xlabel() == "lin/benign/x002/000001"


def test_a_chosen_image_must_be_a_test_image_of_its_class(study):
    words = "figures.detection_examples.malignant: the test split has no malignant image lin/benign"
    with pytest.raises(BusflowError, match=words):
        draw_boxes(study, detection_examples={"malignant": BENIGN})


def test_time_for_the_test_set_is_a_bar_per_detector(study):
    paths, settings = study
    figure = figures_timing.prediction_time(of_paper(paths["timing"]), settings)
    left, right = figure.axes
    assert [bar.get_width() for bar in left.patches] == pytest.approx([0.64, 1.28, 1.92])
    assert [label.get_text() for label in left.get_yticklabels()] == [
        "ConvNeXt-Tiny",
        "Swin-Base",
        "DETR-ResNet50",
    ]
    assert left.get_title(loc="left") == "The test set, 32 images"
    assert "Test CPU, 1 thread, fp32" in figure.get_suptitle()
    medians = right.collections[1].get_offsets()[:, 0]
    assert medians.tolist() == [20, 40, 60]


def test_times_of_different_devices_are_called_not_comparable(study, tmp_path):
    _, settings = study
    paths = []
    for model, device in zip(MODELS, ["One GPU", "Another GPU", "One GPU"], strict=True):
        paths.append(tmp_path / f"paper/detection/{model}/seed0/timing.json")
        write_json(paths[-1], make_timing(9.0, device))
    heading = figures_timing.prediction_time(paths, settings).get_suptitle()
    assert "Not comparable" in heading
    assert "One GPU" in heading
    assert "Another GPU" in heading


def test_pr_curves_are_the_means_over_the_seeds_with_their_area(study):
    paths, settings = study
    benign = figures_detection.pr_curves(of_paper(paths["metrics"]), settings).axes[0]
    metrics = [read_json(path)["per_class"]["benign"] for path in of_paper(paths["metrics"])[:2]]
    expected = np.mean([each["pr_curve"] for each in metrics], axis=0)
    line = benign.get_lines()[0]
    assert np.nan_to_num(line.get_ydata()) == pytest.approx(expected)
    area = np.mean([each["auc_pr"] for each in metrics])
    assert benign.get_legend().get_texts()[0].get_text() == f"{area:.3f}  ConvNeXt-Tiny"
    assert benign.get_title(loc="left") == "Benign (n = 22 boxes)"


def test_froc_shows_lesions_and_videos_at_rates_of_false_positives(study):
    paths, settings = study
    lesions, videos = figures_detection.froc(of_paper(paths["metrics"]), settings).axes
    metrics = [read_json(path)["froc"] for path in of_paper(paths["metrics"])[:2]]
    for panel, what in ((lesions, "lesions"), (videos, "videos")):
        rates, shares = panel.get_lines()[0].get_data()
        at_one = list(rates).index(1)
        assert shares[at_one] == pytest.approx(np.mean([each[what]["sensitivity"][3] for each in metrics]))
    assert [label.get_text() for label in lesions.get_xticklabels()] == [
        "1/8",
        "1/4",
        "1/2",
        "1",
        "2",
        "4",
        "8",
    ]
    assert videos.get_title(loc="left") == "Videos (n = 22)"


def test_bars_by_lesion_size_give_their_number_and_share(study):
    paths, settings = study
    panel = figures_detection.lesion_size(of_paper(paths["metrics"]), settings).axes[0]
    first = [read_json(path)["bins"]["relative"]["smallest"] for path in of_paper(paths["metrics"])[:2]]
    assert panel.patches[0].get_height() == pytest.approx(np.mean([each["ap"] for each in first]))
    words = panel.get_xticklabels()[0].get_text()
    assert f"n = {first[0]['n']}" in words
    assert f"up to {100 * first[0]['to']:.1f} % of the image" in words


def test_a_class_without_lesions_leaves_its_panel_empty(study, tmp_path):
    paths, settings = study
    source = read_json(of_paper(paths["metrics"])[0])
    source["per_class"]["malignant"] |= {"pr_curve": None, "auc_pr": None, "n_boxes": 0}
    source["froc"]["curve"]["videos"] = [None] * len(source["froc"]["curve"]["rates"])
    for third in source["bins"]["relative"].values():
        third |= {"ap": None, "n": 0}
    path = tmp_path / "paper/detection/swin_base/seed0/metrics.json"
    write_json(path, source)
    malignant = figures_detection.pr_curves([path], settings).axes[1]
    assert malignant.get_lines() == []
    for draw in (figures_detection.pr_curves, figures_detection.froc, figures_detection.lesion_size):
        style.save(draw([path], settings), [tmp_path / "figure.png"], None)


def test_a_detector_has_the_same_colour_in_every_figure_and_none_shares_it(study):
    paths, settings = study
    bars = figures_timing.prediction_time(of_paper(paths["timing"]), settings).axes[0].patches
    lines = figures_detection.froc(of_paper(paths["metrics"]), settings).axes[0].get_lines()
    colours = [bar.get_facecolor()[:3] for bar in bars]
    assert colours == [line.get_color()[:3] for line in lines]
    assert len(set(colours)) == len(MODELS)


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("boxes:predicted_boxes", "predictions"),
        ("timing:prediction_time", "timing"),
        ("detection:pr_curves", "metrics"),
        ("detection:froc", "metrics"),
        ("detection:lesion_size", "metrics"),
    ],
)
def test_the_script_draws_each_figure_to_the_same_bits_with_the_notice(
    name, kind, study, tmp_path, monkeypatch
):
    paths, settings = study
    settings = settings | {"study": settings["study"] | {"notice": "DEMO: for tests"}}
    inputs = [f"--{kind}", *map(str, of_paper(paths[kind]))]
    if kind == "predictions":
        inputs += [
            "--split",
            paths["splits"][0],
            "--annotations",
            paths["annotations"],
            "--images",
            paths["images"],
        ]
    written = []
    for k in range(2):
        svg, png = tmp_path / f"{k}.svg", tmp_path / f"{k}.png"
        arguments = [
            name,
            *map(str, inputs),
            "--settings",
            json.dumps(settings),
            "--svg",
            str(svg),
            "--png",
            str(png),
        ]
        monkeypatch.setattr(sys, "argv", ["plot.py", *arguments])
        runpy.run_path(str(ROOT / "scripts/plot.py"), run_name="__main__")
        written.append((svg.read_bytes(), png.read_bytes()))
    assert written[0] == written[1]
    with Image.open(tmp_path / "0.png") as picture:
        assert picture.width > 900
