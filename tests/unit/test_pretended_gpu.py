"""The pretended GPU refuses what a real one refuses, counts what is waited for, computes what a CPU does."""

import contextlib

import numpy as np
import pandas as pd
import pytest
import torch
from torch.nn import functional

from busflow.engine.augmentation import UltrasoundAugmentation
from busflow.engine.checkpoints import load_weights
from busflow.models import classifier, rfla, segmenters
from busflow.models.nms import nms
from busflow.models.roi_align import roi_align, roi_align_backward
from pretended import DEVICE, card, entries

MIXED = "two devices meet"
INDEXED = "is indexed by one on"
NUMPY = "numpy cannot read"


@pytest.fixture
def gpu():
    with card() as ledger:
        yield ledger


def there(*values, **options) -> torch.Tensor:
    return torch.tensor(values, **options).to(DEVICE)


@pytest.mark.parametrize(
    "mix",
    [
        lambda here, there, index: here + there,
        lambda here, there, index: there.add_(here),
        lambda here, there, index: torch.cat([there, here]),
        lambda here, there, index: torch.stack([there.sum(), here.sum()]),
        lambda here, there, index: here.add_(there.sum()),  # of numbers only those on the CPU travel
        lambda here, there, index: there.view(1, 3) @ here.view(3, 1),
        lambda here, there, index: torch.where(there > 0, there, here),
        lambda here, there, index: functional.linear(there, here.view(1, 3)),
        lambda here, there, index: here.index_select(0, index),
        lambda here, there, index: here.gather(0, index),
        lambda here, there, index: here.scatter_add(0, index, here[:2]),
        lambda here, there, index: there.index_put((index,), here[:2]),
        lambda here, there, index: there[index].copy_(here[:2]).add_(here[:2]),
    ],
)
def test_an_operator_on_tensors_of_two_devices_fails(gpu, mix):
    with pytest.raises(RuntimeError, match=MIXED):
        mix(torch.arange(3.0), there(0.0, 1, 2), there(0, 1))


@pytest.mark.parametrize(
    "index",
    [
        lambda here, index: here[index],
        lambda here, index: here[index > 0],
        lambda here, index: here.view(1, 2)[:, index],
        lambda here, index: here.view(2, 1)[index, torch.tensor([0, 0])],
        lambda here, index: here.__setitem__(index, 0.0),
        lambda here, index: here.__setitem__(index, there(1.0, 2.0)),
        lambda here, index: here.index_put_((index,), here, accumulate=True),
        lambda here, index: here.index_put((index,), torch.tensor(1.0)),
    ],
)
def test_indices_on_the_gpu_into_a_tensor_on_the_cpu_fail(gpu, index):
    with pytest.raises(RuntimeError, match=INDEXED):
        index(torch.ones(2), there(0, 1))


def test_indices_on_the_cpu_into_a_tensor_on_the_gpu_are_copied_there(gpu):
    values = there(5.0, 6, 7)
    gpu.clear()
    assert values[torch.tensor([2, 0])].tolist() == [7, 5]
    assert values[torch.tensor([False, True, False])].tolist() == [6]
    assert (gpu.copies.total(), gpu.waits.total()) == (2, 4)  # tolist waits too


@pytest.mark.parametrize(
    "read",
    [
        lambda value: value.numpy(),
        np.asarray,
        lambda value: np.asarray(value, np.float32),
        lambda value: np.stack([value, value]),
        lambda value: np.ones(3)[value.long()],
        lambda value: value.requires_grad_().detach().numpy(),
    ],
)
def test_numpy_cannot_read_a_tensor_on_the_gpu(gpu, read):
    with pytest.raises(TypeError, match=NUMPY):
        read(there(0.0, 1, 2))


def test_numbers_on_the_cpu_meet_tensors_on_the_gpu_where_operators_work_by_element(gpu):
    number, values = torch.tensor(2.0), there(1.0, 2)
    results = [values * number, number - values, values.masked_fill(values > 1, number), values.clamp(number)]
    results.append(torch.where(values > 1, values, number))
    assert [each.tolist() for each in results] == [[2, 4], [1, 0], [1, 2], [2, 2], [2, 2]]
    with pytest.raises(RuntimeError, match=MIXED):
        values.index_select(0, torch.tensor(1))
    with pytest.raises(RuntimeError, match=MIXED):
        number += values.sum()


@pytest.mark.parametrize(
    ("waits", "ask"),
    [
        (1, lambda values: values.sum().item()),
        (1, lambda values: bool(values.any())),
        (1, lambda values: float(values[0])),
        (1, lambda values: values.tolist()),
        (1, lambda values: values.cpu()),
        (1, lambda values: values.nonzero()),
        (1, lambda values: values[values > 0]),
        (1, lambda values: values.__setitem__(values > 0, 0.0)),
        (1, lambda values: values.masked_select(values > 0)),
        (1, lambda values: torch.where(values > 0)),
        (1, lambda values: values.unique()),
        (1, lambda values: torch.equal(values, values)),
        (1, lambda values: torch.bincount(values.long())),
        (1, lambda values: values.repeat_interleave(values.long())),
        (1, lambda values: values.to("cpu", non_blocking=True).to("cpu")),
        (0, lambda values: values.repeat_interleave(values.long(), output_size=3)),
        (0, lambda values: values.masked_fill(values > 0, 0)),
        (0, lambda values: torch.where(values > 0, values, 0)),
        (0, lambda values: values[values.argsort()]),
        (0, lambda values: functional.one_hot(values.long(), 4)),
    ],
)
def test_what_needs_a_result_on_the_cpu_waits_for_it(gpu, waits, ask):
    values = there(0.0, 1, 2)
    gpu.clear()
    ask(values)
    assert gpu.waits.total() == waits


@pytest.mark.parametrize(
    ("counted", "copy"),
    [
        ((1, 1), lambda values: values.to(DEVICE)),
        (
            (1, 1),
            lambda values: values.to(DEVICE, non_blocking=True),
        ),  # not from memory that may be swapped out
        ((1, 1), lambda values: values.pin_memory().to(DEVICE)),
        ((1, 0), lambda values: values.pin_memory().to(DEVICE, non_blocking=True)),
        ((1, 1), lambda values: torch.empty(3, device=DEVICE).copy_(values)),
        ((1, 1), lambda values: torch.tensor([1.0, 2.0], device=DEVICE)),
        ((0, 0), lambda values: torch.full((3,), 2.0, device=DEVICE)),
        ((0, 0), lambda values: torch.arange(3, device=DEVICE) + 1),
    ],
)
def test_copies_to_the_gpu_wait_unless_they_neither_block_nor_come_from_common_memory(gpu, counted, copy):
    copy(torch.ones(3))
    assert (gpu.copies.total(), gpu.waits.total()) == counted


def test_mixed_precision_casts_what_cudas_does(gpu):
    one, half = torch.ones(2, 2, device=DEVICE), torch.ones(2, 2, device=DEVICE, dtype=torch.half)
    with torch.autocast(DEVICE.type):
        found = [one @ one, functional.linear(one, one), half.softmax(1), half.exp(), half.sum(), half + half]
        found += [torch.addcmul(half, half, half), torch.addcmul(one, half, half)]
    names = [str(each.dtype).removeprefix("torch.float") for each in found]
    assert names == ["16", "16", "32", "32", "32", "16", "16", "32"]
    with torch.autocast(DEVICE.type, enabled=False):
        assert (one @ one).dtype == torch.float32


def test_the_operators_of_plain_torch_run_on_a_gpu(gpu):
    generator = torch.Generator().manual_seed(0)
    corners = torch.rand(60, 2, generator=generator) * 40
    boxes = torch.cat([corners, corners + 4 + torch.rand(60, 2, generator=generator) * 20], dim=1)
    scores, features = torch.rand(60, generator=generator), torch.rand(2, 3, 16, 16, generator=generator)
    rois = torch.cat([torch.arange(60.0).remainder(2)[:, None], boxes], dim=1)
    for function, tensors, options in [
        (nms, (boxes, scores), (0.5,)),
        (roi_align, (features, rois), ((7, 7), 0.25, 0, True)),
        (roi_align_backward, (torch.rand(60, 3, 7, 7), rois), (features.shape, 0.25, 0, True)),
    ]:
        found = function(*(each.to(DEVICE) for each in tensors), *options)
        assert torch.equal(found.cpu(), function(*tensors, *options))


def test_a_training_in_single_precision_computes_what_the_cpu_does(tmp_path):
    """To within rounding: torch splits some operators otherwise for a CPU."""
    entry = entries.settings("classification", "convnext_atto") | {"precision": "fp32", "learning_rate": 1e-2}
    weights, losses = [], []
    for name, place in (("gpu", card()), ("cpu", contextlib.nullcontext())):
        folder = tmp_path / name
        inputs = entries.write_inputs(folder, "classification", entries.SIDE, *entries.IMAGES)
        with place, entries.narrow():
            entries.train(entries.ENGINES["classification"], inputs, entry, folder, folder)
        weights.append(load_weights(folder / "weights.pth")["state_dict"])
        losses.append(pd.read_csv(folder / "history.csv")["train_loss"].tolist())
    torch.testing.assert_close(*weights, rtol=1e-4, atol=1e-4)
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)


def mixed_in_forward(monkeypatch):
    forward = classifier.Classifier.forward
    monkeypatch.setattr(
        classifier.Classifier,
        "forward",
        lambda self, inputs, *args, **options: forward(self, inputs * torch.ones(3, 1, 1), *args, **options),
    )


def draws_left_on_the_cpu(monkeypatch):
    monkeypatch.setattr(UltrasoundAugmentation, "draws_of", lambda self, samples: self.draws[samples])


def numpy_in_a_loss(monkeypatch):
    monkeypatch.setattr(
        segmenters.LesionDice,
        "forward",
        lambda self, pred, target, **options: pred.sum() * target.numpy().any(),
    )


def mixed_in_an_assigner(monkeypatch):
    shrink = rfla._shrink
    monkeypatch.setattr(rfla, "_shrink", lambda boxes, factor: shrink(boxes, factor).cpu())


@pytest.mark.parametrize(
    ("plant", "message", "task", "model"),
    [
        (mixed_in_forward, MIXED, "classification", "convnext_atto"),
        (draws_left_on_the_cpu, INDEXED, "classification", "convnext_atto"),
        (numpy_in_a_loss, NUMPY, "segmentation", "segformer_b0"),
        (mixed_in_an_assigner, MIXED, "detection", "convnext_small_rfla"),
    ],
)
def test_a_fault_in_a_model_of_the_study_ends_its_training(
    monkeypatch, tmp_path, plant, message, task, model
):
    plant(monkeypatch)
    with pytest.raises((RuntimeError, TypeError), match=message):
        entries.run(task, model, tmp_path)
