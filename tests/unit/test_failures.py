"""Scores of test images, tables of their means, and the page of the worst, on studies made up by hand."""

import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import segmentation_files

from busflow.data.packing import PackedImages
from busflow.errors import BusflowError
from busflow.failures.errors import Files, find_errors, size_thirds
from busflow.figures.gallery import write_gallery
from busflow.files import write_csv, write_json
from busflow.labels import LABELS
from busflow.metrics.segmentation import evaluate
from busflow.tables.failures import failures

TRICKY = "<script>alert('x')</script>"
SIDE = 64
BOX = [10.0, 10.0, 20.0, 20.0]


def settings_of(task: str, models: list[str], notice: str | None = None) -> dict:
    return {
        "study": {"name": "test", "title": "Test", "notice": notice},
        "protocols": {"grouped": {"label": "Grouped protocol", "split": "grouped"}},
        "sources": {"busi": {"label": "BUSI"}, "lin": {"label": TRICKY}},
        "models": {task: {name: {"label": name.capitalize()} for name in models}},
    }


class Study:
    """A study of one protocol with test images of which each is a group of its own."""

    def __init__(self, root: Path, task: str, labels: dict[str, str], boxes: dict[str, list[float]]):
        self.root, self.task, self.labels = root, task, labels
        self.split = root / f"splits/grouped/{task}.csv"
        images = pd.DataFrame({"image_id": list(labels), "label": list(labels.values())})
        images = images.assign(source=images["image_id"].str.split("/").str[0], group=images["image_id"])
        write_csv(self.split, images.assign(split="test")[["image_id", "split", "label", "group"]])
        images = images.assign(path="none.png", width=SIDE, height=SIDE)
        images["pixel_sha256"] = [f"{row:064x}" for row in range(len(images))]
        write_csv(root / "images.csv", images)
        rows = [(f"{name}#1", name, labels[name], *box) for name, box in boxes.items()]
        columns = ["annotation_id", "image_id", "label", "x", "y", "w", "h"]
        write_csv(root / "annotations.csv", pd.DataFrame(rows, columns=columns))
        write_csv(
            root / "marks.csv",
            images[["image_id"]].assign(marked=np.where(images.index == 0, "true", "false")),
        )
        noise = np.random.default_rng(0).integers(0, 256, (len(images), SIDE, SIDE), np.uint8)
        np.save(root / "images.npy", noise)
        write_csv(root / "index.csv", images[["pixel_sha256"]].rename_axis("row").reset_index())
        self.files = Files(root / "images.csv", root / "annotations.csv")
        self.predictions: list[Path] = []

    def unit(self, model: str, seed: int, content: pd.DataFrame | list) -> None:
        folder = self.root / f"results/grouped/{self.task}/{model}/seed{seed}"
        if isinstance(content, pd.DataFrame):
            write_csv(folder / "predictions.csv", content)
        else:
            write_json(folder / "predictions.json", content)
        self.predictions += [*folder.glob("predictions.*")]

    @property
    def settings(self) -> dict:
        return settings_of(self.task, sorted({path.parts[-3] for path in self.predictions}))

    def errors(self) -> pd.DataFrame:
        splits, marks = {self.split: self.files}, self.root / "marks.csv"
        return find_errors(self.task, self.predictions, splits, marks, self.settings)

    def page(self, label_errors: Path | None = None, notice: str | None = None) -> str:
        write_csv(self.root / "failures.csv", self.errors())
        packed = PackedImages(self.root / "images.npy", self.root / "index.csv")
        settings = self.settings | {"study": {"notice": notice}}
        where = (self.root / "page.html", self.root / "failures.csv", self.predictions, self.split)
        write_gallery(*where, self.files, packed, settings, label_errors)
        return (self.root / "page.html").read_text(encoding="utf-8")


def probabilities(labels: dict[str, str], of_truth: list[float]) -> pd.DataFrame:
    """Predictions in which the true class has these probabilities and the next class the rest."""
    values = np.zeros((len(labels), 3))
    truth = np.array([LABELS.index(label) for label in labels.values()])
    values[np.arange(len(labels)), truth] = of_truth
    values[np.arange(len(labels)), (truth + 1) % 3] = 1 - np.array(of_truth)
    table = pd.DataFrame({"image_id": list(labels), "source": "busi", "label": list(labels.values())})
    return table.assign(
        prediction=np.array(LABELS)[values.argmax(axis=1)],
        **{f"p_{label}": values[:, k] for k, label in enumerate(LABELS)},
    )


@pytest.fixture
def classified(tmp_path) -> Study:
    """Two models, the first of two seeds; all are worst at busi/b, and differ most at lin/c."""
    labels = {"busi/a": "benign", "busi/b": "malignant", "lin/c": "benign", "lin/d": "normal"}
    boxes = {"busi/a": [0, 0, 32, 32], "busi/b": [0, 0, 8, 8], "lin/c": [0, 0, 16, 16]}
    study = Study(tmp_path, "classification", labels, boxes)
    study.unit("one", 0, probabilities(labels, [0.9, 0.1, 0.9, 0.8]))
    study.unit("one", 1, probabilities(labels, [0.7, 0.3, 1.0, 0.8]))
    study.unit("two", 0, probabilities(labels, [0.8, 0.2, 0.25, 0.6]))
    return study


def test_a_score_is_the_mean_over_models_of_their_means_over_seeds(classified):
    found = classified.errors().set_index("image_id")
    assert found["score_one"].to_list() == pytest.approx([0.8, 0.2, 0.95, 0.8])
    assert found["score_two"].to_list() == pytest.approx([0.8, 0.2, 0.25, 0.6])
    assert found["score"].to_list() == pytest.approx([0.8, 0.2, 0.6, 0.7])
    assert found["disagreement"].to_list() == pytest.approx([0, 0, 0.7 / 2**0.5, 0.2 / 2**0.5])
    assert found["right"].to_list() == [1, 0, 0.5, 1]
    assert found["score"].idxmin() == "busi/b" and found["disagreement"].idxmax() == "lin/c"


def test_an_image_has_its_source_size_and_marks_beside_it(classified):
    found = classified.errors()
    assert found["source"].to_list() == ["busi", "busi", "lin", "lin"]
    assert found["third"].to_list() == ["largest", "smallest", "middle", ""]
    assert found["marked"].to_list() == [True, False, False, False]
    assert set(found["protocol"]) == {"grouped"}


def test_a_study_without_any_box_has_no_sizes(classified):
    header = "annotation_id,image_id,label,x,y,w,h\n"
    classified.files.annotations.write_text(header)
    assert classified.errors()["third"].to_list() == [""] * 4


def test_equal_sizes_stay_together():
    assert size_thirds(pd.Series([0.1, 0.1, 0.1, np.nan, 0.0])).to_list() == ["smallest"] * 3 + ["", ""]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("image_id,marked\nbusi/a,perhaps\n", "neither true nor false"),
        ("image_id,marked\nbusi/a,True\n", "lacks"),
    ],
)
def test_marks_that_do_not_fit_are_refused_by_the_name_of_their_file(classified, content, words):
    (classified.root / "marks.csv").write_text(content)
    with pytest.raises(BusflowError, match=f"marks.csv: .*{words}"):
        classified.errors()


def test_the_f1_of_boxes_counts_at_one_false_positive_an_image(tmp_path):
    labels = dict.fromkeys(["lin/a", "lin/b", "lin/c"], "benign")
    study = Study(tmp_path, "detection", labels, dict.fromkeys(["lin/a", "lin/b"], BOX))
    away = [40.0, 40.0, 9.0, 9.0]

    def box(image: str, place: list[float], score: float, label: str = "benign") -> dict:
        return {"image_id": image, "label": label, "bbox": place, "score": score}

    # Four false positives on three images: boxes count that score more than the least of the four, 0.3.
    study.unit(
        "one",
        0,
        [
            *(box("lin/a", BOX, 0.9, "malignant"), box("lin/a", BOX, 0.8), box("lin/a", away, 0.7)),
            *(box("lin/b", away, 0.6), box("lin/b", BOX, 0.2), box("lin/b", away, 0.5)),
            box("lin/c", away, 0.3),
        ],
    )
    # lin/a: found, one false; lin/b: missed, two false; lin/c: nothing there, nothing shown.
    assert study.errors()["score"].to_list() == pytest.approx([2 / 3, 0, 1])


@pytest.fixture
def segmented(tmp_path, monkeypatch) -> tuple[Study, dict, dict]:
    """One segmenter on 58 images in 29 groups; with the true and the predicted masks."""
    monkeypatch.setattr(segmentation_files, "COUNTS", {"benign": 30, "malignant": 24, "normal": 4})
    made = segmentation_files.study_settings(models=("segformer_b0",))
    made["protocols"] = {"grouped": made["protocols"]["grouped"]}
    paths = segmentation_files.write_study(tmp_path, made)
    split = segmentation_files.make_split()
    masks = segmentation_files.make_masks(split)
    test = split[split["split"] == "test"]
    study = Study(tmp_path, "segmentation", dict(zip(test["image_id"], test["label"], strict=True)), {})
    write_csv(study.split, split)
    index = pd.read_csv(tmp_path / "images.csv").assign(
        group=test["group"].to_numpy(), width=segmentation_files.WIDTH, height=segmentation_files.HEIGHT
    )
    write_csv(tmp_path / "images.csv", index)
    study.files = study.files._replace(masks=tmp_path / "views/grouped/segmentation/masks")
    study.predictions = paths["predictions"]
    return study, masks, segmentation_files.make_predictions(masks, 0, off=1)


def test_dice_is_that_of_the_definition_and_null_without_a_lesion(segmented):
    study, masks, predicted = segmented
    found = study.errors().set_index("image_id")
    for image_id, truth in masks.items():
        lesion, said = truth > 0, predicted[image_id] > 0
        wanted = segmentation_files.dice(lesion, said) if lesion.any() else np.nan
        assert found.loc[image_id, "score"] == pytest.approx(wanted, nan_ok=True)
        assert found.loc[image_id, "false_positive_area"] == pytest.approx((said & ~lesion).mean())


def test_a_part_has_the_mean_and_the_interval_of_the_metrics(segmented):
    study, _, _ = segmented
    write_csv(study.root / "segmentation.csv", study.errors())
    table = failures(study.root / "segmentation.csv", study.settings)
    metrics = evaluate(study.predictions[0], study.split, study.files.masks)
    rows = table.data.set_index("part")
    parts = {size: ("sizes", size) for size in ("smallest", "middle", "largest")}
    parts |= {label: ("per_image", label) for label in ("benign", "malignant")}
    for part, (block, name) in parts.items():
        wanted = metrics[block][name]["dice"]
        assert rows.loc[part, "n"] == wanted["n"] and rows.loc[part, "score"] == pytest.approx(wanted["mean"])
        ends = rows.loc[part, ["score_low", "score_high"]].to_list()
        assert ends == pytest.approx(metrics["intervals"][block][name]["dice"])
    assert rows.loc["all", "score"] == pytest.approx(metrics["per_image"]["lesion"]["dice"]["mean"])


def test_a_part_without_a_score_or_with_few_groups_says_so(segmented):
    study, _, _ = segmented
    write_csv(study.root / "segmentation.csv", study.errors())
    table = failures(study.root / "segmentation.csv", study.settings)
    shown = table.shown.set_index("Subset")
    assert shown.loc["Normal", "Dice"] == "n/a (n=0)" and shown.loc["Normal", "Groups"] == "0"
    assert "[" not in shown.loc["Marked images", "Dice"] and "[" in shown.loc["Clean images", "Dice"]
    assert any("too few groups" in note for note in table.notes)


def sections(page: str) -> dict[str, list[str]]:
    """The names of the cases of each section, in order."""
    return {
        part.partition("</h2>")[0]: re.findall(r'class="case">(.*?)</p>', part)
        for part in page.split("<h2>")[1:]
    }


def test_the_page_begins_with_the_worst_image_and_with_the_most_disputed(classified):
    found = sections(classified.page())
    assert found["Worst"] == ["busi/b", "lin/c", "lin/d", "busi/a"]
    assert found["Most disagreement"] == ["lin/c", "lin/d"]


def test_frames_of_one_group_do_not_fill_the_page(classified):
    split = pd.read_csv(classified.split)
    write_csv(classified.split, split.assign(group=["one", "one", "two", "two"]))
    assert sections(classified.page())["Worst"] == ["busi/b", "lin/c"]


def test_the_page_has_no_script_loads_nothing_and_shows_names_as_text(classified):
    page = classified.page(notice=TRICKY)
    assert "<script" not in page and "&lt;script&gt;" in page
    assert re.findall(r"(?:https?:)?//[a-z]", re.sub(r"base64,[^\"]*", "", page)) == []
    links = re.findall(r'(?:href|src)="(.{0,23})', page)
    assert links and set(links) == {"data:image/jpeg;base64,"}
    assert classified.page(notice=TRICKY) == page


def test_doubtful_labels_stand_beside_the_image_that_contradicts_them(classified):
    path = classified.root / "label_errors.csv"
    columns = "image_id,source,label,probable_label,confidence,nearest_image_id,similarity\n"
    path.write_text(
        f"{columns}busi/a,busi,benign,malignant,0.01,busi/b,0.99\nlin/c,lin,benign,benign,0.6,busi/a,0.5\n"
    )
    page = classified.page(path)
    assert sections(page)["Probable label errors"] == ["busi/a and busi/b"]
    assert "BUSI, benign; probably malignant" in page and "busi/b: malignant" in page


def test_the_outline_of_the_truth_lies_where_the_lesion_is(segmented):
    study, masks, _ = segmented
    page = study.page()
    worst = sections(page)["Worst"][0]
    picture = re.search(rf'<svg viewBox="0 0 (\d+) (\d+)"[^>]*aria-label="{worst}".*?</svg>', page, re.DOTALL)
    (points,) = re.findall(r'points="([^"]*)" class="truth"', picture[0])
    corners = np.array([pair.split(",") for pair in points.split()], float)
    rows, columns = np.nonzero(masks[worst])
    scale = int(picture[1]) / segmentation_files.WIDTH
    expected = np.array([[columns.min(), rows.min()], [columns.max(), rows.max()]]) * scale
    assert np.abs([corners.min(axis=0), corners.max(axis=0)] - expected).max() <= 1.5
