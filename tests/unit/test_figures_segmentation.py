"""Pictures of the segmenters: what they show, reproducible files, and studies with gaps."""

import json
import runpy
import sys
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_rgba
from PIL import Image
from segmentation_files import (
    COUNTS,
    HEIGHT,
    WIDTH,
    encode,
    make_masks,
    make_metrics,
    make_split,
    study_settings,
    write_study,
)

from busflow.errors import BusflowError
from busflow.figures import masks as figures_masks
from busflow.figures import segmentation as figures_segmentation
from busflow.figures import style
from busflow.figures import timing as figures_timing
from busflow.figures import training as figures_training
from busflow.files import read_json, write_csv, write_json
from busflow.labels import CLASS_COLOURS
from busflow.metrics.resamples import write_metrics

ROOT = Path(__file__).parents[2]
MODELS = ("convnext_tiny", "segformer_b0", "segformer_b4")


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    settings = study_settings(models=MODELS)
    return write_study(tmp_path_factory.mktemp("study"), settings, seeds=(0, 1)), settings


@pytest.fixture(autouse=True)
def themed():
    style.theme()
    yield
    plt.close("all")


def of_paper(paths, *parts):
    return [
        p for p in paths if "/results/paper/" in p.as_posix() and all(part in p.as_posix() for part in parts)
    ]


def draw(study, *parts, **changes):
    """Figure 7 of protocol paper, of the files that hold one of the parts."""
    paths, settings = study
    given = {
        "predictions_paths": of_paper(paths["predictions"], *parts),
        "metrics_paths": of_paper(paths["metrics"]),
        "masks": paths["masks"],
        "images_path": paths["images"],
    }
    return figures_masks.predicted_masks(**(given | changes), settings=settings)


def dice_of(paths, model, seed=0):
    metrics = read_json(
        next(p for p in of_paper(paths["metrics"]) if f"/{model}/seed{seed}/" in p.as_posix())
    )
    lesions = [each for each in metrics["images"] if each["label"] != "normal"]
    return {each["image_id"]: each["dice"] for each in lesions}


def panels(figure, columns):
    return np.reshape(figure.axes, (-1, columns))


def unit(folder, model, predictions, masks):
    """Predictions and metrics of one unit; their paths."""
    folder = folder / f"paper/segmentation/{model}/seed0"
    write_json(folder / "predictions.json", encode(predictions))
    write_metrics(folder / "metrics.json", make_metrics(make_split(), masks, predictions))
    return folder / "predictions.json", folder / "metrics.json"


# Figure 7


def test_the_best_a_median_and_the_worst_lesion_are_chosen_by_the_mean_dice_of_the_models_shown(study):
    paths, _ = study
    for parts, models in (([], MODELS), (["segformer_b4"], ["segformer_b4"])):
        dice = pd.DataFrame({model: dice_of(paths, model) for model in models}).mean(axis=1)
        shown = [row[0].get_xlabel() for row in panels(draw(study, *parts), 1 + len(models))]
        ordered = sorted(dice)
        assert len(ordered) == 16
        assert dice[shown[0]] == max(dice)
        assert dice[shown[1]] == sorted(dice)[7]
        assert dice[shown[2]] == min(dice)


def test_all_models_are_shown_on_the_same_images_with_their_own_dice(study):
    paths, _ = study
    rows = panels(draw(study), 4)
    assert [panel.get_title(loc="left") for panel in rows[0]] == [
        "Image",
        "(a) ConvNeXt-Tiny",
        "(b) SegFormer-B0",
        "(c) SegFormer-B4",
    ]
    for row in rows:
        assert all((panel.images[0].get_array() == row[0].images[0].get_array()).all() for panel in row)
        for panel, model in zip(row[1:], MODELS, strict=True):
            value = dice_of(paths, model)[row[0].get_xlabel()]
            assert panel.get_xlabel().startswith(f"Dice {value:.3f}: ")


def test_the_picture_is_that_of_the_file_in_its_own_size(study):
    paths, _ = study
    panel = panels(draw(study), 4)[0, 0]
    path = pd.read_csv(paths["images"], index_col="image_id").loc[panel.get_xlabel(), "path"]
    with Image.open(path) as image:
        assert (panel.images[0].get_array() == np.asarray(image)).all()
    assert panel.images[0].get_array().shape == (HEIGHT, WIDTH)


def test_the_coloured_area_is_the_predicted_mask_and_the_dashed_line_the_truth(study, tmp_path):
    masks = make_masks(make_split())
    image_id = "busi/malignant_0000"
    predicted = {key: mask.copy() for key, mask in masks.items()}
    predicted[image_id] = np.zeros_like(masks[image_id])
    predicted[image_id][10:20, 30:45] = 1
    predicted[image_id][40:50, 5:9] = 2
    predictions, metrics = unit(tmp_path, "segformer_b0", predicted, masks)
    row = panels(draw(study, predictions_paths=[predictions], metrics_paths=[metrics]), 2)[-1]
    assert row[0].get_xlabel() == image_id  # the worst: all others are perfect
    benign, malignant = (layer.get_array() for layer in row[1].images[1:])
    for area, k, label in ((benign, 1, "benign"), (malignant, 2, "malignant")):
        assert ((area[..., 3] > 0) == (predicted[image_id] == k)).all()
        inside = area[predicted[image_id] == k][0]
        assert inside.tolist() == pytest.approx(to_rgba(CLASS_COLOURS[label], figures_masks.FILL))
    assert row[1].get_xlabel().endswith(": benign and malignant")
    truth = row[1].collections[-1].get_paths()[0].get_extents()
    rows, columns = np.nonzero(masks[image_id])
    expected = [columns.min() - 0.5, rows.min() - 0.5, columns.max() + 0.5, rows.max() + 0.5]
    assert [truth.x0, truth.y0, truth.x1, truth.y1] == pytest.approx(expected)


def test_a_mask_at_the_border_keeps_the_panel_in_its_frame(study, tmp_path):
    masks = make_masks(make_split())
    whole = {key: np.ones_like(mask) for key, mask in masks.items()}
    predictions, metrics = unit(tmp_path, "segformer_b0", whole, masks)
    panel = panels(draw(study, predictions_paths=[predictions], metrics_paths=[metrics]), 2)[0, 1]
    assert panel.get_xlim() == (-0.5, WIDTH - 0.5)
    assert panel.get_ylim() == (HEIGHT - 0.5, -0.5)


def test_an_empty_prediction_is_called_nothing(study, tmp_path):
    masks = make_masks(make_split())
    empty = {key: np.zeros_like(mask) for key, mask in masks.items()}
    predictions, metrics = unit(tmp_path, "segformer_b0", empty, masks)
    rows = panels(draw(study, predictions_paths=[predictions], metrics_paths=[metrics]), 2)
    assert {row[1].get_xlabel() for row in rows} == {"Dice 0.000: nothing"}
    assert all(len(row[1].images) == 1 for row in rows)


def test_two_lesions_are_two_cases_and_none_is_an_error(study, tmp_path):
    paths, settings = study
    for n, message in ((2, None), (0, "has no lesion to show")):
        masks = dict(list(make_masks(make_split()).items())[:n])
        split = make_split().query("image_id in @masks or label == 'normal'")
        masks |= {
            image_id: np.zeros((HEIGHT, WIDTH), np.uint8)
            for image_id in split["image_id"]
            if "normal" in image_id
        }
        folder = tmp_path / f"{n}/paper/segmentation/segformer_b0/seed0"
        write_json(folder / "predictions.json", encode(masks))
        write_metrics(folder / "metrics.json", make_metrics(split, masks, masks))
        given = (
            [folder / "predictions.json"],
            [folder / "metrics.json"],
            paths["masks"],
            paths["images"],
            settings,
        )
        if message:
            with pytest.raises(BusflowError, match=message):
                figures_masks.predicted_masks(*given)
        else:
            rows = panels(figures_masks.predicted_masks(*given), 2)
            assert [row[0].get_ylabel() for row in rows] == ["Best, benign", "Median, benign"]


def other_size(tmp_path, paths):
    folder = tmp_path / "masks"
    for image_id in make_masks(make_split()):
        (folder / image_id).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.zeros((15, 17), np.uint8)).save(folder / f"{image_id}.png")
    return {"masks": folder}, r"masks: the mask of busi/.* is \(15, 17\), but its image is \(60, 80\)"


def no_mask(tmp_path, paths):
    return {"masks": tmp_path}, r"busi/.*\.png is no intact index mask .* run the workflow again"


def other_prediction(tmp_path, paths):
    small = {image_id: np.zeros((9, 9), np.uint8) for image_id in make_masks(make_split())}
    path = tmp_path / "paper/segmentation/segformer_b0/seed0/predictions.json"
    write_json(path, encode(small))
    return {
        "predictions_paths": [path]
    }, r"predictions.json: the mask of busi/.* is \[9, 9\], but the image is"


def not_indexed(tmp_path, paths):
    write_csv(tmp_path / "images.csv", pd.read_csv(paths["images"]).tail(1))
    return {"images_path": tmp_path / "images.csv"}, "the index of images lacks busi/"


def damaged_image(tmp_path, paths):
    (tmp_path / "broken.png").write_bytes(b"no image")
    write_csv(tmp_path / "i.csv", pd.read_csv(paths["images"]).assign(path=str(tmp_path / "broken.png")))
    return {"images_path": tmp_path / "i.csv"}, "broken.png: cannot be shown: not an image"


def not_evaluated(tmp_path, paths):
    metrics = of_paper(paths["metrics"], "convnext_tiny")
    return {"metrics_paths": metrics}, r"segformer_b0/seed0/predictions.json: its metrics.json is not given"


@pytest.mark.parametrize(
    "fault",
    [other_size, no_mask, other_prediction, not_indexed, damaged_image, not_evaluated],
    ids=lambda f: f.__name__,
)
def test_what_cannot_be_shown_is_named(fault, study, tmp_path):
    changes, message = fault(tmp_path, study[0])
    with pytest.raises(BusflowError, match=message):
        draw(study, **changes)


# The other figures


def test_dice_is_a_point_per_image_and_a_box_per_model_and_class(study):
    paths, settings = study
    figure = figures_segmentation.segmentation_dice(of_paper(paths["metrics"], "/seed0/"), settings)
    benign, malignant = figure.axes
    assert benign.get_title(loc="left") == "Benign (n = 9)"
    assert malignant.get_title(loc="left") == "Malignant (n = 7)"
    assert [label.get_text() for label in benign.get_yticklabels()] == [
        "ConvNeXt-Tiny",
        "SegFormer-B0",
        "SegFormer-B4",
    ]
    expected = sorted(value for key, value in dice_of(paths, "segformer_b0").items() if "benign" in key)
    points, mean = benign.collections[2:4]
    assert sorted(points.get_offsets()[:, 0]) == pytest.approx(expected)
    assert mean.get_offsets()[0, 0] == pytest.approx(np.mean(expected))


def test_over_several_seeds_an_images_dice_is_their_mean(study):
    paths, settings = study
    figure = figures_segmentation.segmentation_dice(of_paper(paths["metrics"]), settings)
    both = [dice_of(paths, "convnext_tiny", seed) for seed in (0, 1)]
    expected = sorted((both[0][key] + both[1][key]) / 2 for key in both[0] if "malignant" in key)
    assert sorted(figure.axes[1].collections[0].get_offsets()[:, 0]) == pytest.approx(expected)
    assert figure.get_suptitle() == "Paper protocol, mean of 2 seeds"


def test_bars_by_lesion_size_give_their_mean_number_and_share(study):
    paths, settings = study
    metrics = of_paper(paths["metrics"], "/seed0/")
    panel = figures_segmentation.segmentation_sizes(metrics, settings).axes[0]
    sizes = [read_json(path)["sizes"] for path in metrics]
    heights = np.reshape([bar.get_height() for bar in panel.patches], (3, 3))  # [models, thirds]
    expected = [
        [each[third]["dice"]["mean"] for third in ("smallest", "middle", "largest")] for each in sizes
    ]
    assert heights == pytest.approx(np.array(expected))
    words = [label.get_text() for label in panel.get_xticklabels()]
    assert f"n = {sizes[0]['smallest']['n']}" in words[0]
    assert f"up to {100 * sizes[0]['smallest']['bounds'][1]:.1f} % of the image" in words[0]
    assert "above" in words[2]


def test_time_for_the_test_set_is_a_bar_per_segmenter(study):
    paths, settings = study
    left, right = figures_timing.prediction_time(of_paper(paths["timing"]), settings).axes
    assert [bar.get_width() for bar in left.patches] == pytest.approx([0.2, 0.4, 0.6])
    assert left.get_title(loc="left") == f"The test set, {sum(COUNTS.values())} images"
    assert right.collections[1].get_offsets()[:, 0].tolist() == [10, 20, 30]


@pytest.mark.parametrize(
    ("task", "scores"),
    [
        ("segmentation", {"val_miou": "mIoU, validation", "val_lesion_iou": "Lesion IoU, validation"}),
        ("detection", {"val_ap": "AP, validation", "val_ap50": "AP50, validation"}),
    ],
)
def test_training_curves_show_the_scores_of_their_task(task, scores, tmp_path):
    settings = study_settings() | {"models": {task: {"mine": {"label": "Mine"}}}}
    path = tmp_path / f"paper/{task}/mine/seed0/history.csv"
    columns = {name: [0.1 * k, 0.2 * k] for k, name in enumerate(scores, start=1)}
    write_csv(path, pd.DataFrame({"epoch": [1, 2], "train_loss": [3.0, 2.0], **columns}))
    loss, score = figures_training.curves([path], settings).axes
    assert [line.get_label() for line in loss.get_lines()] == ["Loss, training"]
    assert {line.get_label(): list(line.get_ydata()) for line in score.get_lines()} == {
        label: columns[name] for name, label in scores.items()
    }
    assert loss.get_title(loc="left") == "Mine"


def test_a_history_of_another_task_is_refused(tmp_path):
    path = tmp_path / "paper/segmentation/segformer_b0/seed0/history.csv"
    write_csv(path, pd.DataFrame({"epoch": [1], "train_loss": [1.0], "val_ap": [0.1]}))
    with pytest.raises(BusflowError, match="lacks the column val_miou, val_lesion_iou"):
        figures_training.curves([path], study_settings())


def test_figures_of_a_test_set_without_malignant_or_any_lesions_are_drawn(study, tmp_path):
    for kept in (("benign", "normal"), ("normal",)):
        split = make_split().query("label in @kept")
        masks = make_masks(split)
        path = tmp_path / f"{len(kept)}/paper/segmentation/segformer_b0/seed0/metrics.json"
        write_metrics(path, make_metrics(split, masks, masks))
        for make in (figures_segmentation.segmentation_dice, figures_segmentation.segmentation_sizes):
            style.save(make([path], study[1]), [tmp_path / "figure.png"], None)


def test_a_segmenter_has_the_same_colour_in_every_figure_and_none_shares_it(study):
    paths, settings = study
    bars = figures_timing.prediction_time(of_paper(paths["timing"]), settings).axes[0].patches
    sizes = figures_segmentation.segmentation_sizes(of_paper(paths["metrics"]), settings).axes[0].patches
    colours = [bar.get_facecolor()[:3] for bar in bars]
    assert colours == [bar.get_facecolor()[:3] for bar in sizes[::3]]
    assert len(set(colours)) == len(MODELS)
    every = style.model_colours(study_settings(), "segmentation")
    lightness = [sum(colour) for model, colour in every.items() if model.startswith("segformer")]
    assert lightness == sorted(lightness, reverse=True)


@pytest.mark.parametrize(
    ("name", "kinds"),
    [
        ("masks:predicted_masks", ["predictions", "metrics"]),
        ("timing:prediction_time", ["timing"]),
        ("segmentation:segmentation_dice", ["metrics"]),
        ("segmentation:segmentation_sizes", ["metrics"]),
        ("training:curves", ["history"]),
    ],
)
def test_the_script_draws_each_figure_to_the_same_bits_with_the_notice(
    name, kinds, study, tmp_path, monkeypatch
):
    paths, settings = study
    settings = settings | {"study": settings["study"] | {"notice": "DEMO: for tests"}}
    inputs = [word for kind in kinds for word in (f"--{kind}", *map(str, of_paper(paths[kind])))]
    if "predictions" in kinds:
        inputs += ["--masks", str(paths["masks"]), "--images", str(paths["images"])]
    written = []
    for k in range(2):
        svg, png = tmp_path / f"{k}.svg", tmp_path / f"{k}.png"
        outputs = ["--settings", json.dumps(settings), "--svg", str(svg), "--png", str(png)]
        monkeypatch.setattr(sys, "argv", ["plot.py", name, *inputs, *outputs])
        runpy.run_path(str(ROOT / "scripts/plot.py"), run_name="__main__")
        written.append((svg.read_bytes(), png.read_bytes()))
    assert written[0] == written[1]
    with Image.open(tmp_path / "0.png") as picture:
        assert 900 < picture.width < 1650
