"""Loaders over packed arrays."""

import numpy as np
import pytest
import torch

from busflow.engine.datasets import (
    EpochSampler,
    PackedDataset,
    accumulation_steps,
    evaluation_loader,
    training_loader,
)
from busflow.errors import BusflowError


@pytest.fixture
def dataset() -> PackedDataset:
    images = np.arange(20, dtype=np.uint8)[:, None, None] * np.ones((1, 4, 4), np.uint8)
    ids = [f"busi/{k}" for k in range(20)]
    sizes = np.full((20, 2), 4)
    return PackedDataset(images, np.arange(19, -1, -1), np.arange(20) % 3, ids, sizes)


def test_a_batch_holds_the_rows_of_its_samples(dataset):
    batch = dataset.__getitems__([3, 0])
    assert batch["images"].shape == (2, 1, 4, 4) and batch["images"].dtype == torch.uint8
    assert batch["images"][:, 0, 0, 0].tolist() == [16, 19]
    assert batch["labels"].tolist() == [0, 0] and batch["samples"].tolist() == [3, 0]


def test_evaluation_goes_through_the_dataset_in_order(dataset):
    samples = torch.cat([batch["samples"] for batch in evaluation_loader(dataset, 7, workers=0)])
    assert samples.tolist() == list(range(20))


def test_an_epoch_has_whole_effective_batches_of_distinct_samples(dataset):
    loader = training_loader(dataset, batch_size=6, micro_batch=2, seed=0, workers=0)
    batches = [batch["samples"].tolist() for batch in loader]
    assert [len(batch) for batch in batches] == [2] * 9
    assert len({sample for batch in batches for sample in batch}) == 18


def test_the_order_is_a_function_of_seed_and_epoch():
    sampler = EpochSampler(20, 5, seed=1)
    first = list(sampler)
    sampler.set_epoch(1)
    second = list(sampler)
    sampler.set_epoch(0)
    assert sorted(first) == list(range(20)) and first != second and list(sampler) == first
    assert list(EpochSampler(20, 5, seed=2)) != first


def test_loader_processes_do_not_change_the_batches(dataset):
    def loaded(workers):
        return [
            batch["samples"].tolist() for batch in training_loader(dataset, 4, 4, seed=0, workers=workers)
        ]

    assert loaded(0) == loaded(2)


@pytest.mark.parametrize("batch", [1100, 950, 650, 450, 350, 210, 150, 90])
def test_accumulation_makes_the_papers_batch_exactly(batch):
    steps = accumulation_steps(batch, micro_batch=128)
    assert batch % steps == 0 and batch // steps <= 128
    assert all(batch % fewer or batch // fewer > 128 for fewer in range(1, steps))


def test_a_batch_larger_than_the_training_set_names_the_key(dataset):
    with pytest.raises(BusflowError, match=r"batch_size 64 .* 20 training images.*batch_size"):
        training_loader(dataset, 64, 16, seed=0, workers=0)
