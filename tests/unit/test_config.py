"""The config of a study: strict reading, what is left of it, and whether its parts fit."""

import json
from pathlib import Path

import pytest
import yaml
from docutils.core import publish_parts

from busflow.config import (
    MIX_TRANSFORMERS,
    SWINS,
    Text,
    check,
    check_files,
    check_networks,
    resolve,
    training_settings,
)
from busflow.errors import BusflowError
from busflow.models.detectors import SWINS as OF_DETECTORS
from busflow.models.segmenters import MIX_TRANSFORMERS as OF_SEGMENTERS

ARCHIVE = {"archive": "set.zip", "urls": [], "use": "study"}
CONFIG = {
    "root": ".",
    "sources": {
        "lin": {"tasks": ["classification", "detection"], **ARCHIVE, "reader": "lin"},
        "busi": {"tasks": ["classification", "segmentation"], **ARCHIVE, "reader": "busi"},
    },
    "training": {"classification": {"network": {}}, "detection": {}, "segmentation": {}},
    "weights": {},
    "models": {
        "classification": {
            "atto": {"timm": "convnext_atto"},
            "femto": {"timm": "convnext_femto"},
        },
        "detection": {"detr": {"detector": "detr"}},
        "segmentation": {"b0": {"segmenter": "segformer", "backbone": "b0"}},
    },
}


def changed(**changes) -> dict:
    return json.loads(json.dumps(CONFIG)) | changes


def models_of(config: dict) -> dict[str, list[str]]:
    return {task: list(models) for task, models in config["models"].items()}


def written(folder: Path, text: str) -> list[Path]:
    (folder / "overlay.yaml").write_text(text)
    return [folder / "overlay.yaml"]


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("seeds: [0]\nroot: a\nseeds: [1]\n", 3),
        ("models:\n  detection:\n    mine: {label: a}\n    mine: {label: b}\n", 4),
        ("models: {detection: {mine: {label: a, label: b}}}\n", 1),
        ("seeds: [0]\n'seeds': [1]\n", 2),
    ],
)
def test_a_key_that_is_given_twice_is_refused_with_its_line(tmp_path, text, line):
    (path,) = written(tmp_path, text)
    with pytest.raises(BusflowError, match=rf"{path}: line {line} gives '\w+' again"):
        check_files([path])


@pytest.mark.parametrize("number", ["1e-4", "5E-3", "+2e6", "1.e5", "2.5e3"])
def test_a_number_that_yaml_takes_for_text_is_refused_and_the_right_form_named(tmp_path, number):
    assert isinstance(yaml.safe_load(number), str)
    with pytest.raises(
        BusflowError, match=r"line 2 is text in YAML; for the number write ([\d.e+-]+)"
    ) as caught:
        check_files(written(tmp_path, f"training:\n  learning_rate: {number}\n"))
    advised = str(caught.value).rsplit("write ", 1)[1].split(",")[0]
    assert yaml.safe_load(advised) == pytest.approx(float(number))


def test_what_yaml_reads_as_it_is_meant_is_let_through(tmp_path):
    check_files(written(tmp_path, "a: 1.0e-4\nb: '1e-4'\nc: {d: x1e4, e: 1}\nf: {d: 2}\n"))


def test_a_file_that_is_no_yaml_is_named(tmp_path):
    with pytest.raises(BusflowError, match=r"overlay\.yaml: .*line 1"):
        check_files(written(tmp_path, "a: [1\n"))


def test_null_takes_a_task_out_and_the_sources_that_only_it_needs():
    config = resolve(changed(models=CONFIG["models"] | {"classification": None, "detection": None}))
    assert models_of(config) == {"segmentation": ["b0"]}
    assert list(config["sources"]) == ["busi"] and config["sources"]["busi"]["tasks"] == ["segmentation"]


def test_a_task_without_models_is_no_part_of_the_study():
    emptied = CONFIG["models"] | {"classification": {"atto": None, "femto": None}}
    assert "classification" not in resolve(changed(models=emptied))["models"]


def test_only_keeps_the_models_that_it_names():
    config = resolve(changed(only={"classification": ["femto"], "segmentation": ["b0"]}))
    assert models_of(config) == {"classification": ["femto"], "segmentation": ["b0"]}
    assert "only" not in config and config["sources"]["lin"]["tasks"] == ["classification"]


@pytest.mark.parametrize(
    ("only", "named"),
    [
        ({"classification": ["pico"]}, "only.classification names pico.*atto, femto"),
        ({"counting": ["one"]}, "only.counting names one.*there are none of counting"),
        ({"detection": "detr"}, "expected a list of models by task"),
        (["detr"], "expected a list of models by task"),
    ],
)
def test_only_with_what_the_study_lacks_is_refused(only, named):
    with pytest.raises(BusflowError, match=named):
        resolve(changed(only=only))


def test_a_study_of_nothing_is_refused():
    with pytest.raises(BusflowError, match="no model of any task"):
        resolve(changed(models=dict.fromkeys(CONFIG["models"])))


def test_a_task_without_data_or_hyperparameters_is_refused():
    with pytest.raises(
        BusflowError,
        match=r"no source of the config is there to learn detection from.*models\.detection: null",
    ):
        check(resolve(changed(sources={"busi": CONFIG["sources"]["busi"]})))
    with pytest.raises(BusflowError, match=r"models\.detection needs training\.detection"):
        check(resolve(changed(training={"classification": {}, "segmentation": {}})))


def test_weights_that_nobody_described_or_that_are_not_there_are_named(tmp_path):
    entry = {"timm": "convnext_atto", "pretrained": "mine"}
    models = {"classification": {"atto": entry}}
    with pytest.raises(
        BusflowError, match=r"models\.classification\.atto\.pretrained names mine, .* are none"
    ):
        check(resolve(changed(models=models)))
    weights = {"mine": {"file": "a.pth", "urls": [f"file:{tmp_path}/a%20b.pth"]}}
    with pytest.raises(BusflowError, match=r"weights\.mine: .*/a b\.pth does not exist"):
        check(resolve(changed(models=models, weights=weights)))
    (tmp_path / "a b.pth").touch()
    check(resolve(changed(models=models, weights=weights)))


@pytest.mark.parametrize("task", ["detection", "segmentation"])
def test_rates_by_layers_of_what_is_no_convnext_are_refused(task):
    training = CONFIG["training"] | {task: {"layer_decay": 0.9}}
    with pytest.raises(BusflowError, match=rf"models\.{task}\.\w+: a layer_decay of 0\.9 is for ConvNeXts"):
        check(resolve(changed(training=training)))
    entry = {"segmenter": "upernet", "detector": "cascade_rcnn", "backbone": "convnext_atto"}
    check(resolve(changed(training=training, models={task: {"a": entry, "b": {"layer_decay": 1}}})))


@pytest.mark.parametrize("other", ["nonesuch", "twin", "sibling"])
def test_an_ablation_of_what_the_study_does_not_compare_is_refused(other):
    entry = {"detector": "cascade_rcnn", "backbone": "convnext_atto"}
    models = {"a": entry, "sibling": entry | {"ablation_of": ["a"]}}
    check(resolve(changed(models={"detection": models})))
    models["twin"] = entry | {"ablation_of": [other]}
    with pytest.raises(BusflowError, match=rf"models\.detection\.twin\.ablation_of names {other}"):
        check(resolve(changed(models={"detection": models})))


def test_what_a_model_is_an_ablation_of_shapes_no_training():
    entry = {"detector": "cascade_rcnn", "backbone": "convnext_atto"}
    models = {"detection": {"a": entry, "b": entry | {"ablation_of": ["a"]}}}
    config = resolve(changed(models=models))
    one, other = (training_settings(config, "grouped", "detection", model) for model in "ab")
    assert one == other


NETWORKS = [
    ({"classification": {"a": {"timm": "convnext_atom"}}}, r"classification\.a\.timm: .*mean convnext_atto"),
    (
        {"classification": {"a": {"timm": "convnext_atto", "network": {"drop_pathrate": 0.1}}}},
        r"classification\.a\.timm: .*drop_pathrate",
    ),
    (
        {"detection": {"a": {"detector": "cascade_rcnn", "backbone": "nonesuch"}}},
        r"detection\.a\.backbone: timm has no network nonesuch",
    ),
    (
        {"segmentation": {"a": {"segmenter": "upernet", "backbone": "vit_tiny_patch16_224"}}},
        r"segmentation\.a\.backbone: .*vit_tiny_patch16_224 is no backbone",
    ),
]


@pytest.mark.parametrize(("models", "message"), NETWORKS, ids=["unknown", "argument", "backbone", "strides"])
def test_a_network_that_timm_lacks_is_found_before_any_job(tmp_path, models, message):
    with pytest.raises(BusflowError, match=message):
        check_networks(changed(models=models), tmp_path / "known.json")
    assert not (tmp_path / "known.json").exists()


def test_a_network_is_asked_for_once(tmp_path, monkeypatch):
    check_networks(CONFIG, tmp_path / "known.json")
    monkeypatch.setattr("subprocess.run", None)
    check_networks(CONFIG, tmp_path / "known.json")
    with pytest.raises(TypeError):
        check_networks(
            changed(models={"classification": {"a": {"timm": "resnet18"}}}), tmp_path / "known.json"
        )


def test_backbones_that_are_not_timms_are_those_of_the_detectors_and_segmenters():
    assert set(SWINS) == set(OF_DETECTORS) and MIX_TRANSFORMERS == OF_SEGMENTERS


@pytest.mark.parametrize(
    "words",
    [
        ".. raw:: html\n\n   <script>alert(1)</script>",
        ".. include:: /etc/hostname",
        "*a* **b** ``c`` `d`_ |e| f_ http://g :math:`h`",
        "trailing \\",
        "  DEMO: minutes of training  ",
    ],
)
def test_words_of_the_config_are_no_markup_in_captions(words):
    body = publish_parts(f"**{Text(words).rst}**", writer_name="html")["body"]
    plain = " ".join(words.split()).replace("<", "&lt;").replace(">", "&gt;")
    assert body.strip() == f"<p><strong>{plain}</strong></p>"
