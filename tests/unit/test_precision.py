"""What a training computes in: chosen by the card, its weights single whatever it is."""

import mmengine.optim.optimizer.amp_optimizer_wrapper as amp
import pandas as pd
import pytest
import test_detection_engine as boxes
import test_segmentation_engine as masks
import test_training as classes
import torch
from mmengine.evaluator import Evaluator
from trainings import train

from busflow.engine import classification, detection, precision, segmentation
from busflow.engine.checkpoints import load_weights
from busflow.files import read_json
from busflow.labels import LESIONS


@pytest.mark.parametrize(
    ("wanted", "has_bf16", "chosen"),
    [
        ("auto", True, "bf16"),
        ("auto", False, "fp16"),
        ("fp16", True, "fp16"),
        ("bf16", False, "bf16"),
        ("fp32", True, "fp32"),
    ],
)
def test_auto_is_the_half_precision_that_the_card_has(wanted, has_bf16, chosen, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: has_bf16)
    assert precision.resolve(wanted) == chosen


@pytest.mark.parametrize("wanted", ["auto", "bf16", "fp16", "fp32"])
def test_a_cpu_computes_in_single_precision(wanted, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert precision.resolve(wanted) == "fp32"


@pytest.fixture
def card(monkeypatch):
    """mmengine takes this machine for one whose device has mixed precision, which a CPU has in bf16."""
    monkeypatch.setattr(amp, "is_cuda_available", lambda: True)


def wrapped(chosen: str):
    weights = torch.nn.Linear(3, 1)
    return weights, precision.wrap(chosen, optimizer=torch.optim.AdamW(weights.parameters(), lr=0.1))


def test_a_step_in_bf16_multiplies_in_bf16_and_keeps_single_weights_without_scaling(card):
    network, wrapper = wrapped("bf16")
    with wrapper.optim_context(network):
        output = network(torch.ones(2, 3))
    assert output.dtype == torch.bfloat16 and not wrapper.loss_scaler.is_enabled()
    wrapper.update_params(output.float().sum())
    assert all(each.dtype == torch.float32 and each.isfinite().all() for each in network.parameters())


@pytest.mark.parametrize(("chosen", "dtype"), [("bf16", torch.bfloat16), ("fp16", torch.float16)])
def test_on_a_gpu_a_validation_takes_the_half_precision_of_its_training(card, chosen, dtype):
    before = torch.get_autocast_dtype("cuda")
    try:
        torch.set_autocast_dtype("cuda", torch.float32)
        wrapped(chosen)
        assert torch.get_autocast_dtype("cuda") == dtype
    finally:
        torch.set_autocast_dtype("cuda", before)


@pytest.mark.parametrize("goes_on", ["bf16", "fp16", "fp32"])
@pytest.mark.parametrize("began", ["bf16", "fp16", "fp32"])
@pytest.mark.filterwarnings("ignore:torch.cuda.amp.GradScaler is enabled, but CUDA is not available")
def test_a_training_goes_on_on_a_card_of_another_precision(card, began, goes_on):
    _, before = wrapped(began)
    _, after = wrapped(goes_on)
    before.optimizer.param_groups[0]["lr"] = 0.05
    after.load_state_dict(before.state_dict())
    assert after.optimizer.param_groups[0]["lr"] == 0.05


def inputs_of(task, folder) -> tuple[dict, dict]:
    if task is classification:
        return classes.write_inputs(folder), classes.SETTINGS
    engine = {detection: boxes, segmentation: masks}[task]
    images, outlines, *labels = zip(*(engine.picture(k) for k in range(6)), strict=True)
    labels = labels[0] if labels else [LESIONS[k % 2] for k in range(6)]
    split = ["train"] * 4 + ["val", "test"]
    return engine.write_inputs(folder, images, outlines, labels, split, engine.SIZE), engine.SETTINGS


@pytest.mark.parametrize("task", [classification, detection, segmentation], ids=lambda task: task.__name__)
def test_each_task_trains_in_bf16(card, task, tmp_path, monkeypatch):
    monkeypatch.setattr(precision, "resolve", lambda wanted: "bf16")
    boxes.shrink_heads(monkeypatch)
    inputs, settings = inputs_of(task, tmp_path)
    train(task, inputs, settings | {"epochs": 1}, tmp_path, "out")
    weights = load_weights(tmp_path / "out/weights.pth")["state_dict"]
    assert all(each.dtype != torch.bfloat16 for each in weights.values())
    assert pd.read_csv(tmp_path / "out/history.csv")["train_loss"].notna().all()
    assert read_json(tmp_path / "out/run.json")["precision"] == "bf16"


@pytest.mark.parametrize(
    ("task", "output", "dtype"),
    [
        (classification, "logits", torch.bfloat16),
        (segmentation, "logits", torch.bfloat16),
        (detection, "boxes", torch.float32),
    ],
    ids=["classification", "segmentation", "detection"],
)
def test_a_training_validates_in_its_precision_but_finds_boxes_in_single(
    card, task, output, dtype, tmp_path, monkeypatch
):
    monkeypatch.setattr(precision, "resolve", lambda wanted: "bf16")
    boxes.shrink_heads(monkeypatch)
    found, process = set(), Evaluator.process

    def spy(evaluator, data_samples, data_batch):
        found.update(sample[output].dtype for sample in data_samples)
        process(evaluator, data_samples, data_batch)

    monkeypatch.setattr(Evaluator, "process", spy)
    inputs, settings = inputs_of(task, tmp_path)
    train(task, inputs, settings | {"epochs": 1}, tmp_path, "out")
    assert found == {dtype}
