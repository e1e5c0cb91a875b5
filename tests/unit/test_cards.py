"""Cards: which model they are about, the numbers that they repeat, what they do not know; and no markup."""

import re
import runpy
import sys
from html.parser import HTMLParser
from pathlib import Path

import detection_files
import pandas as pd
import pytest
import segmentation_files
import yaml
from huggingface_hub import ModelCard

import study_files
from busflow.cards.claim import UNANSWERED, claim_checklist
from busflow.cards.model import model_card
from busflow.cards.study import Study, chosen_protocol, read_study
from busflow.files import read_json, write_csv, write_json, write_text
from busflow.metrics.resamples import read_metrics, write_metrics
from busflow.tables.document import Document, Rows, write

ROOT = Path(__file__).parents[2]
TASKS = {"classification": study_files, "detection": detection_files, "segmentation": segmentation_files}
MODELS = {
    "classification": ("convnext_atto", "convnext_nano", "convnext_small"),
    "detection": ("convnext_tiny",),
    "segmentation": ("segformer_b0", "segformer_b1"),
}
SELECTED_BY = {"classification": "macro_f1", "detection": "ap", "segmentation": "miou"}
SOURCES = {
    "lin": {"tasks": ["classification", "detection"], "licence": "research only", "citation": "Lin et al."},
    "busi": {"tasks": ["classification", "segmentation"], "licence": "CC0-1.0", "citation": "Al-Dhabyani"},
    "rodrigues": {"tasks": ["classification"], "licence": "unknown", "citation": "unknown"},
}
TRICKY = """a|b <script>alert(1)</script> [x](javascript:alert(2)) ![y](z) `c` *d* __e__ \\| &amp; <f@g.h>
- key: 'v' # "w"
---
# Title ```"""
SHOWN = " ".join(TRICKY.split())


class Files:
    """A tiny study of one task on disk, with all that its cards read."""

    def __init__(self, root: Path, task: str = "classification", seeds=(0,)):
        self.root, self.task = root, task
        self.config = TASKS[task].study_settings(MODELS[task]) | {"splits": {"seed": 1337}, "weights": {}}
        self.config["sources"] = {
            name: source | SOURCES[name] for name, source in self.config["sources"].items()
        }
        paths = TASKS[task].write_study(root, self.config, seeds)
        self.metrics = paths["metrics"]
        self.splits = paths["splits"] if "splits" in paths else paths[task]
        self.leakage, self.external = paths.get("leakage", []), []
        for path in self.metrics:
            self.trained(path.parent)
            self.learnt(path.parent, [0.2, 0.5, 0.4])
        for path in self.splits:
            left_out = pd.DataFrame(
                {"image_id": ["busi/x", "busi/y"], "reason": ["copy: of z", "copy: of w"]}
            )
            write_csv(path.with_suffix(".excluded.csv"), left_out)
        write_csv(root / "quarantine.csv", pd.DataFrame({"reason": ["truncated: image"], "scope": ["all"]}))

    def unit(self, model: str = "convnext_atto", protocol: str = "grouped", seed: int = 0) -> Path:
        return self.root / f"results/{protocol}/{self.task}/{model}/seed{seed}"

    def learnt(self, unit: Path, scores: list[float]) -> None:
        """Let the validation scores of a unit's epochs be these."""
        scores = {"epoch": range(1, len(scores) + 1), f"val_{SELECTED_BY[self.task]}": scores}
        write_csv(unit / "history.csv", pd.DataFrame(scores))

    def trained(self, unit: Path, device: str = "Test GPU", seconds: float = 1800) -> None:
        settings = {"timm": "convnext_atto", "epochs": 3, "image_size": 32, "seed": int(unit.name[4:])}
        record = {
            "git": {"commit": "0123abc", "dirty": False},
            "settings": settings,
            "device": device,
            "threads": 1,
            "python": "3.11.7",
            "packages": {"torch": "2.13.0"},
            "seconds": seconds,
            "weights_sha256": "f" * 64,
        }
        write_json(unit / "run.json", record)

    def change_metrics(self, unit: Path, **changes) -> dict:
        metrics = read_json(unit / "metrics.json") | changes
        write_json(unit / "metrics.json", metrics)
        return metrics

    def arguments(self) -> dict:
        write_text(self.root / "config.yaml", yaml.safe_dump(self.config, sort_keys=False))
        return {
            "config": self.root / "config.yaml",
            "metrics": self.metrics,
            "splits": self.splits,
            "quarantine": self.root / "quarantine.csv",
            "external": self.external,
            "leakage": self.leakage,
        }

    def read(self) -> Study:
        return read_study(**self.arguments())

    def card(self) -> Document:
        return model_card(self.read(), self.task)


@pytest.fixture
def files(tmp_path) -> Files:
    return Files(tmp_path)


class Page(HTMLParser):
    """A page's elements, its text outside of styles, and the number of cells in each row of its tables."""

    def __init__(self, page: str):
        super().__init__()
        self.elements, self.loads, self.text, self.rows, self.inside = [], [], "", [], None
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        self.inside = tag
        self.elements.append(tag)
        self.loads += [name for name, _ in attributes if name in ("src", "href")]
        if tag == "tr":
            self.rows.append(0)
        elif tag in ("td", "th"):
            self.rows[-1] += 1

    def handle_data(self, data):
        self.text += data * (self.inside != "style")


def written(document: Document, folder: Path) -> tuple[dict, Page]:
    """The head and the page of a document."""
    write(document, folder / "card.md", folder / "card.html")
    text = (folder / "card.md").read_text()
    front = re.match(r"---\n(.*?)^---$", text, re.DOTALL | re.MULTILINE)
    head = yaml.safe_load(front[1]) if front else {}
    return head, Page((folder / "card.html").read_text())


def tables(document: Document, section: str) -> list[Rows]:
    return [block for block in document.sections[section] if isinstance(block, Rows)]


def texts(document: Document, section: str) -> str:
    """The paragraphs and lists of a section."""
    blocks = [block for block in document.sections[section] if not isinstance(block, Rows)]
    return "\n".join(block if isinstance(block, str) else "\n".join(block) for block in blocks)


def answers(study: Study) -> dict[int, list[str]]:
    """Rows of the checklist by the number of the item."""
    *_, (table,) = claim_checklist(study).sections.values()
    return {int(row[0]): row for row in table.cells}


@pytest.mark.parametrize("task", TASKS)
def test_a_hub_reads_the_scores_of_the_metrics_files_from_the_head(tmp_path, task):
    files = Files(tmp_path, task, seeds=(0, 1))
    study = files.read()
    best = study.best(task)
    head, _ = written(model_card(study, task), tmp_path)
    card = ModelCard.load(tmp_path / "card.md")
    found = {each.metric_type: each.metric_value for each in card.data.eval_results}
    units = [read_json(files.unit(best.model, seed=seed) / "metrics.json") for seed in (0, 1)]
    places = {
        "classification": {"accuracy": lambda m: m["accuracy"], "macro_f1": lambda m: m["macro_f1"]},
        "detection": {"ap": lambda m: m["coco"]["ap"], "ap50": lambda m: m["coco"]["ap50"]},
        "segmentation": {"miou": lambda m: m["views"]["three_class"]["miou"]},
    }
    for name, place in places[task].items():
        assert found[name] == pytest.approx(sum(map(place, units)) / 2)
    assert head["datasets"] == [name for name, source in SOURCES.items() if task in source["tasks"]]
    assert card.data.license == "other" and task in card.data.tags and card.data.library_name == "busflow"


def test_the_best_by_validation_has_the_card_though_another_is_better_in_the_test(files):
    files.learnt(files.unit("convnext_atto"), [0.1, 0.9, 0.2])
    tested = {
        model: read_json(files.unit(model) / "metrics.json")["macro_f1"]
        for model in ("convnext_atto", "convnext_small")
    }
    card = files.card()
    assert tested["convnext_small"] > tested["convnext_atto"]
    assert card.title == "ConvNeXt-Atto: classification of breast ultrasound"
    (ranking,) = tables(card, "Which model this is")
    assert ranking.cells[0] == ["ConvNeXt-Atto", "90.00", "1"]


def test_models_are_ranked_by_the_mean_over_seeds_of_the_best_epochs(tmp_path):
    files = Files(tmp_path, seeds=(0, 1))
    for model, seeds in {"convnext_atto": (0.9, 0.5), "convnext_nano": (0.8, 0.7)}.items():
        for seed, best in enumerate(seeds):
            files.learnt(files.unit(model, seed=seed), [best, 0.1])
    files.learnt(files.unit("convnext_small", "paper"), [0.99])  # under another protocol
    assert files.card().title.startswith("ConvNeXt-Nano")


PAPER, GROUPED = {"split": "paper"}, {"split": "grouped"}


@pytest.mark.parametrize(
    ("entries", "expected"),
    [
        ({"a": PAPER, "b": GROUPED, "c": GROUPED}, "b"),
        ({"a": PAPER}, "a"),
        ({"a": GROUPED | {"leave_out": ["busi"]}, "b": GROUPED}, "b"),
        ({"a": PAPER, "b": GROUPED | {"leave_out": ["busi"]}}, "b"),
        ({"a": GROUPED | {"fold": [1, 5]}, "b": PAPER}, "b"),
        ({"a": GROUPED | {"fold": [2, 2]}, "b": GROUPED | {"fold": [1, 2]}}, "a"),
    ],
)
def test_the_protocol_of_the_cards_keeps_related_images_together_if_one_does(entries, expected):
    assert chosen_protocol(entries).name == expected


def test_a_card_says_which_protocol_it_is_about_and_why(tmp_path):
    card = Files(tmp_path).card()
    assert "Protocol: Grouped protocol. It keeps related images" in texts(card, "Which model this is")


def test_a_study_that_lets_related_images_straddle_says_so(files):
    del files.config["protocols"]["grouped"]
    for name in ("metrics", "splits", "leakage"):
        setattr(files, name, [path for path in getattr(files, name) if "grouped" not in str(path)])
    card = files.card()
    assert "no protocol that keeps related images" in texts(card, "Which model this is")
    split = pd.read_csv(files.splits[0])
    straddling = (split.groupby("group")["split"].nunique() > 1).sum()
    assert f"{straddling} groups of related images on more than one side" in texts(card, "Limitations")
    assert "90.0 % of the test images have relatives" in texts(card, "Limitations")
    assert "not known: the leak gap" in texts(card, "Leak gap")


def test_images_are_counted_by_split_source_group_and_class(files):
    split = pd.read_csv(next(path for path in files.splits if "grouped" in str(path)))
    _, counts = tables(files.card(), "Data")
    rows = {(row[0], row[1]): row[2:] for row in counts.cells}
    train = split[split["split"] == "train"]
    busi = train[train["image_id"].str.startswith("busi/")]
    for row, part in ((rows["train", "all"], train), (rows["train", study_files.BUSI], busi)):
        classes = [(part["label"] == label).sum() for label in study_files.LABELS]
        assert row == [str(n) for n in (len(part), part["group"].nunique(), *classes)]
    assert "Left out of it: copy (2)." in texts(files.card(), "Data")


def test_results_are_those_of_the_metrics_by_source_and_by_class(files):
    metrics = read_json(files.unit() / "metrics.json")
    overall, by_source, by_class = tables(files.card(), "Results")
    low, high = (100 * end for end in metrics["intervals"]["accuracy"]["cluster"])
    assert overall.cells[0] == ["Accuracy", f"{100 * metrics['accuracy']:.2f} [{low:.1f}, {high:.1f}]"]
    busi = metrics["per_source"]["busi"]
    row = next(row for row in by_source.cells if row[0] == study_files.BUSI)
    low, high = (100 * end for end in metrics["intervals"]["per_source"]["busi"]["accuracy"])
    assert row[1:3] == [str(busi["n"]), f"{100 * busi['accuracy']:.2f} [{low:.1f}, {high:.1f}]"]
    malignant = metrics["per_class"]["malignant"]
    assert by_class.cells[1][:2] == ["malignant", str(malignant["n"])]
    assert by_class.cells[1][3].startswith(f"{100 * malignant['recall']:.2f} [")
    assert by_class.cells[2][2] == "n/a"  # this model never predicts normal


def test_what_is_not_known_is_named(tmp_path):
    files = Files(tmp_path, "detection")
    card = files.card()
    for section, fact in {
        "Data": "a licence of the weights",
        "Results": "scores by source",
        "External tests": "scores on sources that it was not trained on",
        "Calibration": "calibration",
        "Leak gap": "shares of test images that training knows",
        "Limitations": "age, sex",
        "Environmental cost": "energy",
    }.items():
        assert f"not known: {fact}" in texts(card, section)
    sources, _ = tables(Files(tmp_path / "other").card(), "Data")
    assert sources.cells[2][2:] == ["not known: licence", "not known: citation", "not known: homepage"]
    run = read_json(files.unit("convnext_tiny") / "run.json")
    write_json(files.unit("convnext_tiny") / "run.json", run | {"git": {"commit": None, "dirty": None}})
    assert "not known: commit" in texts(files.card(), "Training")


def test_external_tests_have_their_rows_and_stand_in_the_head(files, tmp_path):
    clinic = {"label": "Clinic", "tasks": ["classification"], "use": "external", "licence": "MIT"}
    files.config["sources"]["clinic"] = clinic
    metrics = read_metrics(files.unit() / "metrics.json") | {"accuracy": 0.125}
    files.external = [files.unit() / "external/clinic/metrics.json"]
    write_metrics(files.external[0], metrics)
    card = files.card()
    (table,) = tables(card, "External tests")
    assert table.cells[0][0] == "Clinic" and table.cells[0][3].startswith("12.50")
    outside = card.head["model-index"][0]["results"][1]
    assert outside["dataset"]["type"] == "clinic" and outside["metrics"][0]["value"] == 0.125
    assert "clinic" not in card.head["datasets"]
    assert "not tested on a source" not in texts(card, "Limitations")
    assert "12.50" in answers(files.read())[33][3]


def test_calibration_is_shown_where_the_metrics_have_it(files):
    both = {"ece": [0.1, 0.2], "brier": [0.3, 0.4]}
    never = {"sensitivity": None, "specificity": None}
    point = {"target": 0.9, "threshold": 0.31, "sensitivity": 0.875, "specificity": 0.5}
    point |= {"n_malignant": 17, "n_other": 24, "intervals": {"sensitivity": [0.7, 1.0], "specificity": None}}
    calibration = {
        "temperature": 1.75,
        "n_validation": 25,
        "before": {"ece": 0.15, "brier": 0.35},
        "after": {"ece": 0.12, "brier": 0.33},
        "intervals": {"before": both, "after": both},
        "operating_points": [
            point,
            point | never | {"target": 0.95, "threshold": None, "intervals": never},
        ],
    }
    files.change_metrics(files.unit(), calibration=calibration)
    fits, points = tables(files.card(), "Calibration")
    before = ["0.150 [0.100, 0.200]", "0.120 [0.100, 0.200]"]
    assert fits.cells == [["0", "1.750", "25", *before, "0.350 [0.300, 0.400]", "0.330 [0.300, 0.400]"]]
    assert points.cells == [
        ["0", "90.0 %", "0.310", "0.875 [0.700, 1.000]", "0.500", "17", "24"],
        ["0", "95.0 %", "n/a", "n/a", "n/a", "17", "24"],
    ]
    assert "sensitivity 0.875 [0.700, 1.000]" in answers(files.read())[38][3]


def test_the_leak_gap_is_the_difference_between_protocols(files):
    for protocol, accuracy in {"paper": 0.9, "grouped": 0.65}.items():
        files.change_metrics(files.unit(protocol=protocol), accuracy=accuracy)
    gap, leakage = tables(files.card(), "Leak gap")
    assert gap.cells[0][:2] == ["Paper protocol", "Accuracy"] and gap.cells[0][-1] == "+25.00"
    assert "balance classes" not in texts(files.card(), "Leak gap")
    files.config["protocols"]["grouped"]["balance_classes"] = True
    assert "not all balance classes" in texts(files.card(), "Leak gap")
    assert leakage.cells[0][:2] == ["Paper protocol", "90.0 %"] and leakage.cells[1][1] == "0.0 %"


def test_device_hours_are_summed_over_seeds_and_models_by_device(tmp_path):
    files = Files(tmp_path, seeds=(0, 1, 2))
    for seed, device, hours in ((0, "A", 2), (1, "A", 3), (2, "B", 0.25)):
        files.trained(files.unit(seed=seed), device, 3600 * hours)
    (table,) = tables(files.card(), "Environmental cost")
    # Two other models and another protocol: 15 trainings of half an hour.
    assert table.cells == [["A", "5", "5"], ["B", "0.25", "0.25"], ["Test GPU", "0", "7.5"]]


def test_a_class_from_one_source_alone_is_a_limitation(files):
    said = texts(files.card(), "Limitations")
    assert f"All images of class normal are from {study_files.BUSI}" in said
    assert "All images of class benign" not in said


@pytest.mark.parametrize("task", TASKS)
def test_each_item_of_claim_stands_there_once_and_has_an_answer_with_its_file_or_none(tmp_path, task):
    files = Files(tmp_path, task)
    *_, (table,) = claim_checklist(files.read()).sections.values()
    assert [row[0] for row in table.cells] == [str(number) for number in range(1, 45)]
    assert len({row[2] for row in table.cells}) == 44
    for *_, answer, file in table.cells:
        assert (answer == UNANSWERED) == (file == "–") and answer
        for path in file.split("; "):
            if "/seed" in path:
                assert [*tmp_path.glob(path)], path
    unanswered = [row[0] for row in table.cells if row[3] == "not answered by this study"]
    assert {"11", "13", "18", "34", "44"} <= set(unanswered) and len(unanswered) < 20


def test_answers_hold_the_numbers_of_their_files(files):
    split = pd.read_csv(next(path for path in files.splits if "grouped" in str(path)))
    found = answers(files.read())
    assert f"{len(split)} images of {split['group'].nunique()} groups included, 2 images" in found[35][3]
    assert f"Grouped protocol has 0 of {split['group'].nunique()} groups" in found[20][3]
    benign, malignant, _ = read_json(files.unit() / "metrics.json")["confusion_matrix"]
    assert f"of {sum(malignant)} malignant images {malignant[0]} were taken for benign" in found[39][3]
    assert f"of {sum(benign)} benign ones {benign[1]} for malignant" in found[39][3]


@pytest.fixture
def tricky(files) -> Files:
    """A study in whose words a reader of YAML, Markdown or HTML might see markup."""
    files.config["study"] |= {"title": TRICKY, "notice": TRICKY}
    for entry in (*files.config["protocols"].values(), *files.config["models"]["classification"].values()):
        entry["label"] = TRICKY
    for source in files.config["sources"].values():
        source.update(dict.fromkeys(("label", "licence", "citation", "homepage"), TRICKY))
    for path in files.metrics:
        files.trained(path.parent, device=TRICKY)
    return files


def test_words_of_the_config_are_text_in_yaml_markdown_and_html(tricky, tmp_path):
    head, page = written(tricky.card(), tmp_path)
    assert head["model-index"][0]["name"] == TRICKY
    assert not {"script", "a", "img", "code", "em", "strong", "hr"} & set(page.elements)
    assert page.elements.count("h1") == 1 and page.elements.count("h2") == 12
    assert page.text.count(SHOWN) > 20


def test_no_word_of_the_config_divides_a_row(tricky, tmp_path):
    plain = Files(tmp_path / "plain")
    documents = [(files.card(), claim_checklist(files.read())) for files in (tricky, plain)]
    for one, other in zip(*documents, strict=True):
        assert written(one, tmp_path)[1].rows == written(other, tmp_path)[1].rows


def test_a_page_loads_nothing_and_the_same_study_gives_the_same_bytes(files, tmp_path):
    card = files.card()
    _, page = written(card, tmp_path)
    first = (tmp_path / "card.html").read_bytes()
    assert page.loads == [] and b"url(" not in first and b"@import" not in first
    write(files.card(), tmp_path / "card.md", tmp_path / "card.html")
    assert (tmp_path / "card.html").read_bytes() == first


def run_script(monkeypatch, files: Files, card: str) -> str:
    """What scripts/make_card.py writes as Markdown."""
    arguments = []
    for name, paths in files.arguments().items():
        if paths:
            arguments += [f"--{name}", *(paths if isinstance(paths, list) else [paths])]
    md, html = (files.root / f"{card}.{kind}" for kind in ("md", "html"))
    command = ["make_card.py", card, *arguments, "--md", md, "--html", html]
    monkeypatch.setattr(sys, "argv", [*map(str, command)])
    runpy.run_path(str(ROOT / "scripts/make_card.py"), run_name="__main__")
    assert html.read_text().startswith("<!doctype html>")
    return md.read_text()


@pytest.mark.parametrize("task", TASKS)
def test_the_script_writes_the_card_and_the_checklist_of_a_study_of_one_task(tmp_path, monkeypatch, task):
    files = Files(tmp_path, task)
    files.leakage = []
    assert run_script(monkeypatch, files, task).startswith("---\nlicense: other\n")
    assert run_script(monkeypatch, files, "claim_checklist").startswith("# CLAIM 2024 checklist: Test\n")
