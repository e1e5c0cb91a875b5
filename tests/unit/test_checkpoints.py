"""A weights.pth that comes from anywhere: what each task's prediction refuses, in one line."""

import functools
import os
from pathlib import Path

import pytest
import torch
from inference_files import BUILD, CALIBRATION, SEEN, SETTINGS, meta_of
from test_detectors import CASCADE, RFLA
from test_segmenters import SEGFORMER
from trainings import ORIGIN

from busflow.data.masks import CLASSES
from busflow.engine import classification, detection, segmentation
from busflow.engine.checkpoints import save_weights
from busflow.engine.meta import PREPARATION
from busflow.errors import BusflowError
from busflow.models import classifier, detectors, segmenters

CLASSIFIER = SETTINGS["classification"]
ENGINES = {"classification": classification, "detection": detection, "segmentation": segmentation}
TASKS = {
    task: (engine, functools.partial(BUILD[task], SETTINGS[task]), meta_of(task, 32))
    for task, engine in ENGINES.items()
}
of_each_task = pytest.mark.parametrize("task", TASKS)


@pytest.fixture(scope="module")
def weights() -> dict[str, dict[str, torch.Tensor]]:
    return {name: build().state_dict() for name, (_, build, _) in TASKS.items()}


def refusal(task: str, path: Path) -> str:
    with pytest.raises(BusflowError) as error:
        TASKS[task][0].predict({}, path, {"batch": 1, "warmup": 1, "iterations": 1}, path.parent / "out")
    assert "\n" not in str(error.value) and str(path) in str(error.value)
    assert not (path.parent / "out").exists()
    return str(error.value)


@of_each_task
def test_what_a_training_writes_is_loaded(tmp_path, weights, task):
    save_weights(tmp_path / "weights.pth", weights[task], TASKS[task][2])
    model, known = TASKS[task][0].load(tmp_path / "weights.pth")
    network = model.network
    assert known["task"] == task and known["settings"]["image_size"] == 32 and known["images"] == SEEN
    assert all(torch.equal(each, weights[task][name]) for name, each in network.state_dict().items())


@of_each_task
@pytest.mark.parametrize("value", [float("nan"), float("-inf")])
def test_weights_that_are_no_numbers_do_not_predict(tmp_path, weights, task, value):
    name, tensor = list(weights[task].items())[2]
    spoilt = tensor.clone()
    spoilt.view(-1)[-1] = value
    save_weights(tmp_path / "weights.pth", weights[task] | {name: spoilt}, TASKS[task][2])
    assert f"holds NaN or infinite weights, the first in {name}" in refusal(task, tmp_path / "weights.pth")


class Forged:
    def __init__(self, marker: Path):
        self.marker = marker

    def __reduce__(self):
        return os.mkdir, (str(self.marker),)


@of_each_task
@pytest.mark.parametrize("part", ["state_dict", "meta"])
def test_a_weights_file_runs_no_code(tmp_path, weights, task, part):
    content = {"state_dict": weights[task], "meta": TASKS[task][2]}
    content[part] = content[part] | {"extra": Forged(tmp_path / "marker")}
    torch.save(content, tmp_path / "weights.pth")
    assert "it calls for posix.mkdir" in refusal(task, tmp_path / "weights.pth")
    assert not (tmp_path / "marker").exists()


@of_each_task
@pytest.mark.parametrize(
    "content",
    [5, {}, {"state_dict": {}}, {"state_dict": {"a": 1}, "meta": {}}],
    ids=["5", "{}", "half", "int"],
)
def test_a_file_that_no_training_wrote_is_refused(tmp_path, task, content):
    torch.save(content, tmp_path / "weights.pth")
    assert "is no weights file of a training here" in refusal(task, tmp_path / "weights.pth")


@of_each_task
def test_weights_of_another_network_are_refused(tmp_path, weights, task):
    few = dict(list(weights[task].items())[3:])
    for other in (few, weights[task] | {"more": torch.ones(1)}):
        save_weights(tmp_path / "weights.pth", other, TASKS[task][2])
        assert "does not hold the weights of the network that it names" in refusal(
            task, tmp_path / "weights.pth"
        )


@of_each_task
def test_weights_of_another_task_are_refused(tmp_path, weights, task):
    other = next(name for name in TASKS if name != task)
    save_weights(tmp_path / "weights.pth", weights[other], TASKS[other][2])
    assert "does not describe a network of this task" in refusal(task, tmp_path / "weights.pth")


FOREIGN = {
    "classification": [
        {"pretrained_cfg_overlay": {"file": "other.pth"}},
        {"settings": {"timm": "convnext_atto", "network": {"pretrained": True}}},
        {"settings": {"timm": "convnext_atto", "network": {"checkpoint_path": "other.pth"}}},
        {
            "settings": {
                "timm": "convnext_atto",
                "network": {"pretrained_cfg": {"url": "http://127.0.0.1:9/x"}},
            }
        },
        {"settings": {"timm": "convnext_atto", "network": "drop_path_rate"}},
        {"settings": {"timm": "hf-hub:timm/convnext_atto", "network": {}}},
        {"settings": {"timm": "local-dir:/tmp", "network": {}}},
        {"settings": {"timm": 5, "network": {}}},
        {"settings": CLASSIFIER | {"image_size": "32"}},
        {"settings": CLASSIFIER},
        {"classes": ["a", "b", "c"]},
        {"epoch": None},
        {"preparation": PREPARATION | {"mean": [0, 0, 0]}},
        {"images": {"brightness": [0, 1]}},
        {"images": SEEN | {"aspect": [1, float("inf")]}},
        {"images": SEEN | {"aspect": 1}},
        {"origin": ORIGIN | {"notice": "\x1b[2J"}},
        {"origin": ORIGIN | {"seed": "0"}},
        {"origin": ORIGIN | {"sources": [{"name": "a"}]}},
        {"origin": ORIGIN | {"url": "http://127.0.0.1:9"}},
        {"calibration": None},
        {"calibration": CALIBRATION | {"temperature": 0}},
        {"calibration": CALIBRATION | {"temperature": float("nan")}},
        {"calibration": CALIBRATION | {"n_malignant": 5}},
        {"calibration": CALIBRATION | {"nll": [0.9, 0.8]}},
        {"calibration": CALIBRATION | {"thresholds": {"0.90": 1.5, "0.95": None}}},
        {"calibration": CALIBRATION | {"thresholds": {}}},
        {"calibration": CALIBRATION | {"file": "other.pth"}},
    ],
    "detection": [
        {"pretrained": "other.pth"},
        {"settings": "cascade_rcnn"},
        {"settings": {}},
        {"settings": CASCADE | {"detector": "yolo"}},
        {"settings": CASCADE | {"detector": ["detr"]}},
        {"settings": CASCADE | {"backbone": "hf-hub:timm/convnext_atto"}},
        {"settings": CASCADE | {"backbone": {"type": "ResNet", "init_cfg": "x"}}},
        {"settings": CASCADE | {"neck": "../other.py"}},
        {"settings": CASCADE | {"drop_path": {"a": 1}}},
        {"settings": CASCADE | {"roi_samples": -1}},
        {"settings": CASCADE | {"assigner": "rfla"}},
        {"settings": RFLA | {"prior_sides": [1, 2, "3", 4, 5]}},
        {"classes": ["benign"]},
    ],
    "segmentation": [
        {"checkpoint_path": "other.pth"},
        {"settings": None},
        {"settings": SEGFORMER | {"segmenter": "unet"}},
        {"settings": SEGFORMER | {"backbone": "../../other"}},
        {"settings": SEGFORMER | {"backbone": ["b0"]}},
        {"settings": SEGFORMER | {"segmenter": "upernet", "backbone": "local-dir:/tmp"}},
        {"settings": SEGFORMER | {"drop_path": float("nan")}},
        {"settings": SEGFORMER | {"balance_classes": "yes"}},
        {"classes": list(reversed(CLASSES))},
    ],
}


@pytest.mark.parametrize(
    ("task", "foreign"), [(task, each) for task, cases in FOREIGN.items() for each in cases]
)
def test_what_a_file_says_of_itself_reads_no_other_file(tmp_path, weights, task, foreign, monkeypatch):
    """Only what a training writes, and only in its kind, reaches the making of a network."""
    save_weights(tmp_path / "weights.pth", weights[task], TASKS[task][2] | foreign)
    for module in (classifier.timm, detectors.MODELS, segmenters.MODELS):
        monkeypatch.setattr(module, "create_model" if module is classifier.timm else "build", None)
    message = refusal(task, tmp_path / "weights.pth")
    assert "does not describe a network of this task" in message


@of_each_task
def test_a_file_of_an_earlier_version_is_told_as_such(tmp_path, weights, task):
    save_weights(tmp_path / "weights.pth", weights[task], {"classes": ["benign"], "epoch": 3})
    assert "is of an earlier version of busflow" in refusal(task, tmp_path / "weights.pth")
