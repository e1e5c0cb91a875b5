"""Table 7 and its companions: values, identities, one test set for all rows, printed and mended numbers."""

import json
import runpy
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.stats import bootstrap, ttest_rel
from segmentation_files import COUNTS, SEGMENTERS, make_metrics, study_settings, write_study

from busflow.errors import BusflowError
from busflow.files import read_json
from busflow.metrics.comparison import compare
from busflow.metrics.resamples import read_metrics, write_metrics
from busflow.metrics.uncertainty import mean
from busflow.tables import overlap
from busflow.tables import table as tables
from busflow.tables.segmentation import segmentation, segmentation_pairs, table7

ROOT = Path(__file__).parents[2]
VIEWS = {"two_class": ["background", "lesion"], "three_class": ["background", "benign", "malignant"]}


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    settings = study_settings(notice="DEMO: for tests")
    return write_study(tmp_path_factory.mktemp("study"), settings, seeds=(0, 1)), settings


@pytest.fixture(scope="module")
def table(study):
    paths, settings = study
    return table7(paths["metrics"], settings)


def of(paths, *parts):
    return [path for path in paths if all(part in path.as_posix() for part in parts)]


def rewritten(paths, folder, change):
    """Copies of metrics files, changed in place by ``change(metrics, path)``."""
    copies = []
    for path in paths:
        metrics = read_metrics(path)
        change(metrics, path)
        copies.append(folder / Path(*path.parts[-5:]))
        write_metrics(copies[-1], metrics)
    return copies


# Table 7


def test_table_7_has_a_row_per_protocol_view_model_and_class(table):
    expected = [
        (protocol, view, model, label)
        for protocol in ("paper", "grouped")
        for view, labels in VIEWS.items()
        for model in SEGMENTERS
        for label in labels
    ]
    found = table.data[["protocol", "view", "model", "class"]]
    assert list(found.itertuples(index=False, name=None)) == expected


def test_values_are_means_and_deviations_over_the_seeds(table, study):
    metrics = [read_metrics(path) for path in of(study[0]["metrics"], "paper/segmentation/segformer_b2/")]
    assert len(metrics) == 2
    query = "protocol == 'paper' and model == 'segformer_b2' and view == 'two_class' and `class` == 'lesion'"
    row = table.data.query(query).iloc[0]
    views = [each["views"]["two_class"] for each in metrics]
    for name, values in {
        "iou": [each["per_class"]["lesion"]["iou"] for each in views],
        "acc": [each["per_class"]["lesion"]["acc"] for each in views],
        "aacc": [each["aacc"] for each in views],
    }.items():
        assert row[name] == pytest.approx(np.mean(values))
        assert row[f"{name}_sd"] == pytest.approx(np.std(values, ddof=1))
    interval = mean(each["resamples"]["two_class_lesion_iou"] for each in metrics).interval()
    assert row[["iou_low", "iou_high"]].tolist() == pytest.approx(interval)
    shown = table.shown.loc[row.name, "IoU"].strip("*")
    assert shown.startswith(
        f"{100 * row['iou']:.2f} ± {100 * row['iou_sd']:.2f} [{100 * row['iou_low']:.1f}, "
    )


def test_the_identities_of_the_paper_hold_in_every_row_that_is_printed(table):
    """mIoU and mAcc are the means of the classes, aAcc the mean weighted by their pixels."""
    for _, rows in table.data.groupby(["protocol", "view", "model"]):
        share = rows["n_class_pixels"] / rows["n_pixels"]
        assert share.sum() == pytest.approx(1, abs=1e-12)
        assert rows["miou"].to_numpy() == pytest.approx(rows["iou"].mean(), abs=1e-9)
        assert rows["macc"].to_numpy() == pytest.approx(rows["acc"].mean(), abs=1e-9)
        assert rows["aacc"].to_numpy() == pytest.approx((share * rows["acc"]).sum(), abs=1e-9)


def test_the_text_of_the_page_obeys_the_identities_to_its_rounding(study):
    """What a reader can recompute: the numbers as they are shown, with one seed."""
    paths, settings = study
    one = table7(of(paths["metrics"], "/seed0/"), settings)
    columns = ["IoU", "Acc.", "mIoU", "aAcc", "mAcc", "Lesion pixels (%)"]
    number = one.shown[columns].apply(lambda words: words.str.extract(r"([\d.]+)")[0].astype(float))
    keys = ["protocol", "view", "model"]
    for _, part in one.data.groupby(keys):
        shown = number.loc[part.index]
        first = shown.iloc[0]
        assert first["mIoU"] == pytest.approx(shown["IoU"].mean(), abs=0.0101)
        assert first["mAcc"] == pytest.approx(shown["Acc."].mean(), abs=0.0101)
        if len(part) == 2:
            p = first["Lesion pixels (%)"] / 100
            implied = (1 - p) * shown["Acc."].iloc[0] + p * shown["Acc."].iloc[1]
            assert first["aAcc"] == pytest.approx(implied, abs=0.02)


def test_every_row_prints_n_hashes_and_the_share_of_lesion_pixels(table, study):
    metrics = read_json(study[0]["metrics"][0])
    assert set(table.shown["n"]) == {str(sum(COUNTS.values()))}
    assert set(table.shown["Split"]) == {metrics["split_sha256"][:12]}
    assert set(table.shown["Images"]) == {metrics["images_sha256"][:12]}
    assert set(table.shown["Lesion pixels (%)"]) == {f"{100 * metrics['lesion_pixel_share']:.3f}"}


@pytest.mark.parametrize(
    ("what", "value"),
    [("images_sha256", "f" * 64), ("lesion_pixel_share", 0.1186), ("lesion_pixel_share", None)],
)
@pytest.mark.parametrize("make", [table7, segmentation, segmentation_pairs])
def test_rows_that_were_scored_on_other_pixels_make_no_table(make, what, value, study, tmp_path):
    paths, settings = study

    def change(metrics, path):
        if "paper/segmentation/segformer_b3/seed1" in path.as_posix():
            metrics[what] = metrics[what] + 2e-9 if value is None else value

    copies = rewritten(paths["metrics"], tmp_path, change)
    with pytest.raises(
        BusflowError, match=rf"segformer_b3/seed1/metrics.json: {what} is .*convnext_tiny/seed0"
    ):
        make(copies, settings)


def test_protocols_may_have_other_test_images_than_each_other(study, tmp_path):
    def change(metrics, path):
        if "/grouped/" in path.as_posix():
            metrics["images_sha256"], metrics["lesion_pixel_share"] = "e" * 64, 0.2

    copies = rewritten(study[0]["metrics"], tmp_path, change)
    shown = table7(copies, study[1]).shown
    assert set(shown.loc[shown["Protocol"] == "Grouped protocol", "Images"]) == {"e" * 12}


def test_the_printed_values_stand_beside_the_two_class_view_with_what_mends_them(table):
    rows = table.shown[table.shown["Protocol"] == "Paper protocol"]
    two = rows[rows["View"] == "Background, lesion"].set_index(["Model", "Class"])
    columns = [f"{name} (paper)" for name in ("IoU", "Acc.", "mIoU", "aAcc", "mAcc")]
    assert two.loc[("SegFormer-B0", "Background"), columns].tolist() == [
        "97.01 → 93.10",
        "97.34",
        "73.25",
        "93.61",
        "80.92",
    ]
    assert two.loc[("SegFormer-B0", "Lesion"), columns].tolist() == ["54.97 → 53.42", "64.51", "", "", ""]
    assert two.loc[("SegFormer-B1", "Background"), "mIoU (paper)"] == "73.06 → 73.21"
    assert two.loc[("SegFormer-B3", "Background"), columns[1:]].tolist() == [
        "62.65 → 96.93",
        "78.44",
        "94.74",
        "78.44 → 87.30",
    ]
    assert two.loc[("ConvNeXt-Small", "Lesion"), columns[:2]].tolist() == ["0.48", "0.50"]
    assert two["Category (paper)"].tolist() == ["Benign", "Malignant"] * 7
    assert set(rows.loc[rows["View"] != "Background, lesion", "Category (paper)"]) == {"–"}


def test_the_share_of_lesion_pixels_that_the_paper_implies_differs_between_the_families(table):
    shown = table.shown.query("Protocol == 'Paper protocol' and Class == 'Lesion'").set_index("Model")
    column = "Lesion pixels (%) (paper, implied)"
    assert set(shown.loc[shown.index.str.startswith("SegFormer"), column]) == {"11.36"}
    assert set(shown.loc[shown.index.str.startswith("ConvNeXt"), column]) == {"11.86", "11.87"}


def test_bold_is_the_greatest_computed_value_of_protocol_view_and_class(study, tmp_path):
    """Were bold taken from the printed table, SegFormer-B4 would have it."""

    def change(metrics, path):
        block = metrics["views"]["two_class"]
        block["miou"] = 0.9 if "segformer_b1" in path.as_posix() else 0.5
        block["per_class"]["background"]["iou"] = 0.8  # of all: nothing to mark

    copies = rewritten(of(study[0]["metrics"], "/paper/", "/seed0/"), tmp_path, change)
    shown = table7(copies, study[1]).shown
    two = shown[shown["View"] == "Background, lesion"]
    assert two.loc[two["mIoU"].str.startswith("**"), "Model"].tolist() == ["SegFormer-B1"]
    assert (two.loc[two["Class"] == "Background", "IoU"] == "80.00").all()


def test_a_class_that_is_nowhere_has_no_number(study, tmp_path):
    def change(metrics, path):
        metrics["views"]["three_class"]["per_class"]["malignant"] |= {"iou": None, "acc": None, "n_pixels": 0}

    copies = rewritten(of(study[0]["metrics"], "/paper/", "/seed0/"), tmp_path, change)
    shown = table7(copies, study[1]).shown
    assert set(shown.loc[shown["Class"] == "Malignant", "IoU"]) == {"n/a (0 pixels)"}


def test_a_model_that_the_paper_lacks_has_no_printed_values(tmp_path):
    settings = study_settings(models=["segformer_b0"])
    settings["models"]["segmentation"] = {"mine": {"label": "Mine"}}
    paths = write_study(tmp_path, settings)
    table = table7(paths["metrics"], settings)
    assert set(table.shown["IoU (paper)"]) == {"–"}
    assert set(table.shown["Category (paper)"]) == {"–"}


def test_the_paper_is_said_to_be_about_other_images_when_it_is(study):
    paths, settings = study
    stand_in = settings | {"sources": {"busi": {"label": "Stand-in"}}}
    words = "are about other images than this study's"
    assert words not in "".join(table7(paths["metrics"], settings).notes)
    assert f"{words} (Stand-in)" in "".join(table7(paths["metrics"], stand_in).notes)


# Image by image


def test_the_companion_table_gives_each_value_with_its_deviation_and_n(study):
    paths, settings = study
    table = segmentation(of(paths["metrics"], "/seed0/"), settings)
    metrics = read_json(of(paths["metrics"], "paper/segmentation/segformer_b1/seed0")[0])
    row = table.data.query("protocol == 'paper' and model == 'segformer_b1'").iloc[0]
    shown = table.shown.loc[row.name]
    lesion, normal = metrics["per_image"]["lesion"], metrics["per_image"]["normal"]
    low, high = metrics["intervals"]["dice_mean"]
    mean, sd = lesion["dice"]["mean"], lesion["dice"]["sd"]
    assert shown["Dice"].strip("*") == f"{mean:.3f} ± {sd:.3f} [{low:.2f}, {high:.2f}]"
    distance = lesion["hd95_px"]
    words = "{mean:.1f} ± {sd:.1f}, median {median:.1f} (n = {n})".format(**distance)
    assert shown["HD95 (pixels)"] == words
    assert shown["Missed lesions"] == f"{lesion['n_missed']} of 16"
    assert shown["Normals with a false positive"] == f"{normal['false_positive_images']} of 4"
    assert row["false_positive_area"] == pytest.approx(normal["false_positive_area"]["mean"])
    for label in ("benign", "malignant"):
        block = metrics["per_image"][label]["iou"]
        assert shown[f"IoU, {label}"].strip("*") == f"{block['mean']:.3f} ± {block['sd']:.3f}"
        assert row[f"class_dice_{label}"] == pytest.approx(metrics["per_image"]["class_dice"][label]["mean"])
    for third, block in metrics["sizes"].items():
        assert row[f"dice_{third}"] == pytest.approx(block["dice"]["mean"])
        assert row[f"n_{third}"] == block["n"]


def test_a_size_that_no_lesion_has_is_named_with_its_count_and_is_no_number(study):
    table = segmentation(study[0]["metrics"], study[1])
    assert set(table.shown["Dice, large (COCO)"]) == {"n/a (0 lesions)"}
    assert (table.data["n_large"] == 0).all()
    assert table.data["dice_large"].isna().all()
    assert "16 lesion, 9 benign, 7 malignant, 4 normal" in table.notes[0]


def test_a_model_that_predicts_nothing_has_misses_and_no_distance(study, tmp_path):
    def change(metrics, path):
        for part in ("lesion", "benign", "malignant"):
            block = metrics["per_image"][part]
            block["n_missed"] = block["n"]
            block["hd95_px"] = {"mean": None, "sd": None, "median": None, "n": 0}

    copies = rewritten(of(study[0]["metrics"], "/paper/", "b0/seed0"), tmp_path, change)
    shown = segmentation(copies, study[1]).shown.iloc[0]
    assert shown["Missed lesions"] == "16 of 16"
    assert shown["HD95 (pixels)"] == "n/a (n = 0)"
    assert shown["Dice against the best"] == "best"


def test_counts_in_the_csv_are_whole_numbers_unless_the_seeds_differ(study, tmp_path):
    paths, settings = study
    tables.write(
        segmentation(of(paths["metrics"], "/seed0/"), settings), tmp_path / "t.csv", tmp_path / "t.md", "X"
    )
    read = pd.read_csv(tmp_path / "t.csv", dtype=str)
    assert set(read["n_lesion"]) == {"16"}
    assert read["n_missed_lesion"].str.fullmatch(r"\d+").all()
    page = (tmp_path / "t.md").read_text(encoding="utf-8")
    assert "> X" in page
    assert " nan" not in page


# Two on the same images


def test_every_two_models_are_compared_once_on_each_subset(study):
    paths, settings = study
    table = segmentation_pairs(paths["metrics"], settings)
    assert len(table.data) == 2 * 4 * 21
    assert len(table.shown) == 2 * 21
    assert not table.data.duplicated(["protocol", "model", "other", "subset"]).any()
    assert "16 all lesions, 6 smallest third, 7 malignant, 3 smallest third of the m" in table.notes[0]
    assert read_json(paths["metrics"][0])["split_sha256"][:12] in table.notes[0]


def test_a_difference_is_that_of_the_means_and_its_interval_pairs_the_images(study):
    """Against scipy's paired t-test, where every image is a group of its own."""
    paths, settings = study
    found = overlap.comparable(of(paths["metrics"], "/paper/", "/seed0/"), settings)
    dice = overlap.dice_per_image(found, "paper")
    dice["group"] = dice["image_id"]
    pair = compare(overlap.mean_dice(dice, ["segformer_b0", "segformer_b1"])).iloc[0]
    value, low, high = pair[["difference", "low", "high"]]
    a, b = dice["segformer_b0"], dice["segformer_b1"]
    assert value == pytest.approx((a - b).mean())
    expected = ttest_rel(a, b).confidence_interval()
    assert [low, high] == pytest.approx(list(expected), abs=0.03)
    unpaired = bootstrap(
        (a, b), lambda x, y, axis: x.mean(axis) - y.mean(axis), method="percentile", rng=1
    ).confidence_interval
    assert abs((high - low) - (unpaired.high - unpaired.low)) > 0.005


def test_images_of_a_group_are_drawn_together():
    """Twelve groups of ten equal images say as much as twelve images."""
    groups = pd.DataFrame({"group": range(12), "a": np.linspace(0.1, 0.9, 12), "b": 0.5})
    columns = ["difference", "low", "high", "p"]
    alone = compare(overlap.mean_dice(groups, ["a", "b"]))[columns]
    tenfold = compare(overlap.mean_dice(pd.concat([groups] * 10), ["a", "b"]))[columns]
    assert tenfold.to_numpy() == pytest.approx(alone.to_numpy())


def test_few_groups_have_a_difference_but_no_interval():
    groups = pd.DataFrame({"group": range(9), "a": [0.9] * 9, "b": [0.1] * 9})
    pair = compare(overlap.mean_dice(groups, ["a", "b"])).iloc[0]
    assert pair["difference"] == pytest.approx(0.8) and pair["p"] == pytest.approx(2 / 2**9)
    assert np.isnan([pair["low"], pair["high"]]).all()
    assert overlap.mean_dice(groups.iloc[:0], ["a", "b"]) == {}


def test_the_smallest_third_keeps_equal_sizes_together():
    table = pd.DataFrame(
        {"label": ["benign", "malignant"] * 5, "relative_area": [1, 2, 2, 2, 3, 4, 5, 6, 7, 8]}
    )
    assert overlap.subset_of(table, "smallest")["relative_area"].tolist() == [1, 2, 2, 2]
    assert overlap.subset_of(table, "malignant_smallest")["relative_area"].tolist() == [2, 2]
    assert len(overlap.subset_of(table, "lesions")) == 10
    assert set(overlap.subset_of(table, "malignant")["label"]) == {"malignant"}


def test_the_smallest_third_is_that_of_the_metrics(study):
    metrics = read_json(study[0]["metrics"][0])
    found = overlap.comparable(study[0]["metrics"][:1], study[1])
    table = overlap.dice_per_image(found, "paper")
    smallest = overlap.subset_of(table, "smallest")
    assert len(smallest) == metrics["sizes"]["smallest"]["n"]
    assert smallest["convnext_tiny"].mean() == pytest.approx(metrics["sizes"]["smallest"]["dice"]["mean"])


def test_normal_images_take_no_part_in_comparisons_and_seeds_are_averaged(study):
    paths, settings = study
    both = of(paths["metrics"], "paper/segmentation/segformer_b4/")
    table = overlap.dice_per_image(overlap.comparable(both, settings), "paper")
    assert set(table["label"]) == {"benign", "malignant"}
    seeds = [{each["image_id"]: each["dice"] for each in read_json(path)["images"]} for path in both]
    expected = [(seeds[0][i] + seeds[1][i]) / 2 for i in table["image_id"]]
    assert table["segformer_b4"].tolist() == pytest.approx(expected)


@pytest.mark.parametrize("make", [table7, segmentation, segmentation_pairs])
def test_a_study_of_one_protocol_and_one_segmenter_has_its_tables(make, tmp_path):
    settings = study_settings(models=["segformer_b0"])
    del settings["protocols"]["grouped"]
    paths = write_study(tmp_path / "study", settings)
    table = make(paths["metrics"], settings)
    assert len(table.data) == {table7: 5, segmentation: 1, segmentation_pairs: 0}[make]
    tables.write(table, tmp_path / "t.csv", tmp_path / "t.md", None)
    pd.read_csv(tmp_path / "t.csv")


@pytest.mark.parametrize("make", [segmentation, segmentation_pairs])
def test_a_test_set_without_lesions_is_undefined_not_zero(make, tmp_path, study):
    split = pd.DataFrame(
        [(f"busi/normal_{i}", "test", "normal", f"busi/normal_{i}") for i in range(4)],
        columns=["image_id", "split", "label", "group"],
    )
    empty = {image_id: np.zeros((60, 80), np.uint8) for image_id in split["image_id"]}
    copies = []
    for model in ("segformer_b0", "segformer_b1"):
        copies.append(tmp_path / f"paper/segmentation/{model}/seed0/metrics.json")
        write_metrics(copies[-1], make_metrics(split, empty, empty))
    table = make(copies, study[1])
    expected = {segmentation: (2, "n/a (0 lesions)"), segmentation_pairs: (3, "n/a")}
    column, text = expected[make]
    assert table.shown.iloc[0, column] == text


@pytest.mark.parametrize("name", ["table7", "segmentation", "segmentation_pairs"])
def test_the_script_makes_each_table(name, study, tmp_path, monkeypatch):
    paths, settings = study
    metrics = [str(path) for path in paths["metrics"]]
    outputs = [text for kind in ("csv", "md", "html") for text in (f"--{kind}", str(tmp_path / f"t.{kind}"))]
    arguments = [f"segmentation:{name}", "--metrics", *metrics, "--settings", json.dumps(settings), *outputs]
    monkeypatch.setattr(sys, "argv", ["make_table.py", *arguments])
    runpy.run_path(str(ROOT / "scripts/make_table.py"), run_name="__main__")
    assert (tmp_path / "t.csv").stat().st_size
    assert "> DEMO: for tests" in (tmp_path / "t.md").read_text(encoding="utf-8")
