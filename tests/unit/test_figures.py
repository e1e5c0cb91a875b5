"""Figures: drawn whole, the same bytes each time, marked, and true to what they are given."""

import json
import runpy
import sys
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from busflow.errors import BusflowError
from busflow.figures import classification as figures_classification
from busflow.figures import data as figures_data
from busflow.figures import style
from busflow.figures import timing as figures_timing
from busflow.figures import training as figures_training
from busflow.files import read_json, write_json
from busflow.tables import classification as tables_classification
from study_files import make_timing, study_settings, write_study

ROOT = Path(__file__).parents[2]
NOTICE = "TEST: nothing real"


@pytest.fixture(scope="module")
def settings():
    return study_settings(notice=NOTICE)


@pytest.fixture(scope="module")
def study(tmp_path_factory, settings):
    root = tmp_path_factory.mktemp("study")
    paths = write_study(root, settings, seeds=(0, 1))
    images = []
    for source in settings["sources"]:
        for label in ("benign", "malignant"):
            for i in range(2):
                path = root / f"{source}_{label}_{i}.png"
                Image.fromarray(np.full((40 + 9 * i, 60), 50 + 90 * i, np.uint8)).save(path)
                images.append((f"{source}/{label}/{i}", source, label, str(path)))
    pd.DataFrame(images, columns=["image_id", "source", "label", "path"]).to_csv(
        root / "images.csv", index=False
    )
    table = tables_classification.classification(paths["predictions"], paths["classification"], settings)
    table.data.to_csv(root / "classification.csv", index=False)
    return root, paths


@pytest.fixture(autouse=True)
def themed():
    style.theme()
    yield
    plt.close("all")


def of_paper(paths):
    return [path for path in paths if "/paper/" in str(path)]


def texts(figure):
    """Every visible text of a figure."""
    return [text.get_text() for text in figure.findobj(plt.Text) if text.get_text()]


DRAWINGS = {
    "fig2": lambda root, paths: (figures_data.fig2, root / "images.csv"),
    "leakage": lambda root, paths: (figures_data.leakage, paths["leakage"]),
    "fig3": lambda root, paths: (figures_classification.fig3, of_paper(paths["metrics"])),
    "curves": lambda root, paths: (figures_training.curves, of_paper(paths["history"])),
    "roc": lambda root, paths: (figures_classification.roc, of_paper(paths["predictions"])),
    "summary": lambda root, paths: (figures_classification.summary, root / "classification.csv"),
    "timing": lambda root, paths: (figures_timing.timing, paths["timing"]),
}


@pytest.mark.parametrize("name", DRAWINGS)
def test_a_figure_has_the_same_bytes_each_time_and_fits_a_page(name, study, settings, tmp_path):
    draw, given = DRAWINGS[name](*study)
    for copy in ("a", "b"):
        style.save(draw(given, settings), [tmp_path / f"{copy}.svg", tmp_path / f"{copy}.png"], NOTICE)
    for kind in ("svg", "png"):
        assert (tmp_path / f"a.{kind}").read_bytes() == (tmp_path / f"b.{kind}").read_bytes()
    with Image.open(tmp_path / "a.png") as image:
        assert 500 < image.width < 1650


def test_the_last_bits_of_a_layout_do_not_change_the_bytes(tmp_path):
    for name, noise in {"a": 0, "b": 1e-12}.items():
        figure = plt.figure(layout="none")
        figure.add_axes([0.1 + noise, 0.1, 0.8, 0.8]).plot([1, 3, 2])
        style.save(figure, [tmp_path / f"{name}.svg", tmp_path / f"{name}.png"], NOTICE)
    for kind in ("svg", "png"):
        assert (tmp_path / f"a.{kind}").read_bytes() == (tmp_path / f"b.{kind}").read_bytes()


def test_a_drawing_of_few_colours_keeps_them_and_its_size_in_inches(tmp_path):
    figure = plt.figure(figsize=(4, 3), layout="none")
    axes = figure.add_axes([0, 0, 1, 1], facecolor="#ffffff")
    axes.axis("off")
    colours = ["#e63946", "#1f5a94", "#2a9d8f", "#d98f2b", "#6b7280"]
    for k, colour in enumerate(colours):
        axes.add_patch(plt.Rectangle((k / 5, 0), 0.2, 1, color=colour, transform=axes.transAxes))
    axes.plot([0, 1], [0.001, 0.002], color="#7b2cbf", lw=0.3)  # a rare one
    style.save(figure, [tmp_path / "f.png"], None)
    with Image.open(tmp_path / "f.png") as image:
        assert image.mode == "P" and image.info["dpi"][0] > 150
        shown = np.asarray(image.convert("RGB"), int)
    for colour in colours:
        wanted = np.array([int(colour[k : k + 2], 16) for k in (1, 3, 5)])
        assert np.abs(shown - wanted).max(axis=2).min() <= 1


def test_the_notice_stands_below_everything_else(study, settings, tmp_path):
    draw, given = DRAWINGS["summary"](*study)
    figure = draw(given, settings)
    style.save(figure, [tmp_path / "s.svg"], NOTICE)
    notice = next(text for text in figure.texts if text.get_text() == NOTICE)
    others = [text for text in figure.findobj(plt.Text) if text.get_text() and text is not notice]
    assert notice.get_window_extent().y1 < min(text.get_window_extent().y0 for text in others)


def test_without_a_notice_there_is_none(study, settings, tmp_path):
    draw, given = DRAWINGS["timing"](*study)
    figure = draw(given, settings)
    style.save(figure, [tmp_path / "t.svg"], None)
    assert NOTICE not in texts(figure)


def test_fig3_shows_mean_counts_that_sum_to_n_and_says_so(study, settings):
    paths = [path for path in of_paper(study[1]["metrics"]) if "convnext_nano" in str(path)]
    shown = texts(figures_classification.fig3(paths, settings))
    first, second = (np.array(read_json(path)["confusion_matrix"]) for path in paths)
    assert f"{(first[1, 1] + second[1, 1]) / 2:,.1f}" in shown
    assert any("mean of 2 seeds" in text for text in shown)
    accuracy = np.mean([read_json(path)["accuracy"] for path in paths])
    assert any(f"accuracy {100 * accuracy:.2f} %" in text for text in shown)


def test_fig3_writes_na_for_a_class_that_is_never_predicted(study, settings):
    paths = of_paper(study[1]["metrics"])
    atto = [path for path in paths if "convnext_atto" in str(path)]
    small = [path for path in paths if "convnext_small" in str(path)]
    assert "n/a" in texts(figures_classification.fig3(atto, settings))
    assert "n/a" not in texts(figures_classification.fig3(small, settings))


def test_the_overview_of_fig3_has_a_lettered_panel_per_model(study, settings):
    shown = texts(figures_classification.fig3(of_paper(study[1]["metrics"]), settings))
    assert [text for text in shown if text.startswith("(")] == [
        "(a) ConvNeXt-Atto",
        "(b) ConvNeXt-Nano",
        "(c) ConvNeXt-Small",
    ]


def test_a_model_keeps_its_colour_whatever_else_is_drawn(settings):
    colours = style.model_colours(settings, "classification")
    assert len(set(colours.values())) == 3
    lightness = [sum(colour) for colour in colours.values()]
    assert lightness == sorted(lightness, reverse=True)


def test_fig2_shows_the_configured_image_else_the_first_of_its_class(study, settings):
    chosen = settings | {"figures": {"examples": {"busi": {"malignant": "busi/malignant/1"}}}}
    shown = texts(figures_data.fig2(study[0] / "images.csv", chosen))
    assert "busi/malignant/1" in shown
    assert "busi/malignant/0" not in shown
    assert "busi/benign/0" in shown


def test_fig2_refuses_an_example_that_does_not_exist(study, settings):
    chosen = settings | {"figures": {"examples": {"lin": {"benign": "lin/benign/99"}}}}
    with pytest.raises(BusflowError, match=r"figures\.examples\.lin\.benign: no image lin/benign/99"):
        figures_data.fig2(study[0] / "images.csv", chosen)


def test_timings_under_different_conditions_are_called_not_comparable(study, settings, tmp_path):
    assert not any(
        "Not comparable" in text for text in texts(figures_timing.timing(study[1]["timing"], settings))
    )
    other = tmp_path / "paper/classification/convnext_nano/seed7/timing.json"
    write_json(other, make_timing(10.0, device="Another GPU"))
    shown = texts(figures_timing.timing([*study[1]["timing"], other], settings))
    assert any("Not comparable" in text and "Another GPU" in text and "Test CPU" in text for text in shown)


def test_the_summary_shows_the_printed_values(study, settings):
    figure = figures_classification.summary(study[0] / "classification.csv", settings)
    printed = figure.axes[0].collections[-1].get_offsets()
    assert sorted(x for x, _ in printed.data if not np.isnan(x)) == pytest.approx([93.31, 93.84])


def test_the_summary_marks_the_largest_class_of_a_protocol_that_lacks_a_model(study, settings, tmp_path):
    data = pd.read_csv(study[0] / "classification.csv")
    data.drop(index=data.index[data["protocol"] == "grouped"][0]).to_csv(tmp_path / "c.csv", index=False)
    figure = figures_classification.summary(tmp_path / "c.csv", settings)
    dotted = [line.get_xdata()[0] for line in figure.axes[0].lines if line.get_linestyle() == ":"]
    assert dotted == pytest.approx(100 * data.drop_duplicates("protocol")["majority"])


def test_straddling_pairs_stand_side_by_side_with_their_correlation(tmp_path, settings):
    images = np.stack([np.full((8, 8), 40 * k, np.uint8) for k in range(4)])
    np.save(tmp_path / "images.npy", images)
    pd.DataFrame({"row": range(4), "pixel_sha256": list("abcd")}).to_csv(tmp_path / "index.csv", index=False)
    ids = [f"busi/{name}" for name in "abcd"]
    pd.DataFrame({"image_id": ids, "pixel_sha256": list("abcd")}).to_csv(tmp_path / "images.csv", index=False)
    pairs = [
        {"test": ids[3], "train": ids[1], "source": "busi", "correlation": 0.987654, "same_group": True},
        {"test": ids[2], "train": ids[0], "source": "busi", "correlation": 0.5, "same_group": False},
    ]
    paths = [tmp_path / f"{protocol}_classification.json" for protocol in settings["protocols"]]
    for path, found in zip(paths, (pairs, pairs[1:]), strict=True):
        write_json(path, {"pairs": found})
    files = [tmp_path / name for name in ("images.csv", "images.npy", "index.csv")]
    figure = figures_data.straddling(paths, *files, settings)
    shown = [panel for panel in figure.axes if panel.images]
    assert [panel.get_title(loc="left").strip() for panel in shown] == [
        "r = 0.988, same group",
        "r = 0.500, other group",
        "r = 0.500, other group",
    ]
    assert np.array_equal(shown[0].images[0].get_array(), np.hstack([images[3], images[1]]))
    assert [text.get_text() for text in shown[0].texts if "busi" in text.get_text()] == ["busi/d\nbusi/b"]


def test_a_share_of_nothing_is_na_in_the_leakage_figure(study, settings):
    figure = figures_data.leakage(study[1]["leakage"], settings)
    assert "n/a" in texts(figure)
    assert "90" in texts(figure)


def test_the_script_draws_svg_and_png(study, settings, tmp_path, monkeypatch):
    arguments = [
        "timing:timing",
        "--timing",
        *map(str, study[1]["timing"]),
        "--settings",
        json.dumps(settings),
    ]
    arguments += ["--svg", str(tmp_path / "t.svg"), "--png", str(tmp_path / "t.png")]
    monkeypatch.setattr(sys, "argv", ["plot.py", *arguments])
    runpy.run_path(str(ROOT / "scripts/plot.py"), run_name="__main__")
    assert (tmp_path / "t.svg").read_text().startswith("<?xml")
    assert (tmp_path / "t.png").read_bytes().startswith(b"\x89PNG")
