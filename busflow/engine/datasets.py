"""Batches straight from a packed array: no decoding, no per-sample collation."""

import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import numpy as np
import pandas as pd
import torch
from mmengine.dataset import DefaultSampler
from mmengine.dist import get_dist_info, get_world_size
from torch.utils.data import BatchSampler, DataLoader, Dataset, Sampler, SequentialSampler

from busflow.errors import BusflowError


class PackedDataset(Dataset):
    """Labelled rows of a packed array, gathered a batch at a time.

    Args:
        images: uint8 array [N, S, S], usually a memory map.
        rows: int array [n], the row of ``images`` for each sample.
        labels: int array [n], class indices.
        image_ids: of the samples.
        sizes: int array [n, 2], widths and heights of the original images.

    Indexing with a list yields ``{"images": uint8 [B, 1, S, S], "labels": int64 [B],
    "samples": int64 [B]}``; ``samples`` are the positions in this dataset.
    """

    metainfo: ClassVar[dict] = {}  # mmengine warns about a dataset without it

    def __init__(
        self,
        images: np.ndarray,
        rows: np.ndarray,
        labels: np.ndarray,
        image_ids: list[str],
        sizes: np.ndarray,
    ):
        self.images, self.rows, self.labels = images, np.asarray(rows), np.asarray(labels, np.int64)
        self.image_ids, self.sizes = image_ids, sizes

    def __len__(self) -> int:
        return len(self.rows)

    def __getitems__(self, indices: list[int]) -> dict[str, torch.Tensor]:
        samples = np.asarray(indices)
        return {
            "images": torch.from_numpy(self.images[self.rows[samples]]).unsqueeze(1),
            "labels": torch.from_numpy(self.labels[samples]),
            "samples": torch.from_numpy(samples),
        }


class EpochSampler(Sampler[int]):
    """A permutation that is a function of (seed, epoch), cut to whole effective batches.

    What is cut differs from epoch to epoch, so no sample is lost for good, and no accumulated
    gradient crosses the border of an epoch. Each process of a distributed training takes its share of every
    batch.

    Attributes:
        done: samples of the epoch that are left out because a run that goes on within it has seen them.
    """

    def __init__(self, size: int, batch_size: int, seed: int):
        self.size, self.length, self.seed, self.epoch = size, size // batch_size * batch_size, seed, 0
        self.rank, self.processes = get_dist_info()
        self.done = 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        return self.length // self.processes

    def __iter__(self) -> Iterator[int]:
        order = np.random.default_rng([self.seed, self.epoch]).permutation(self.size)
        return iter(order[self.done + self.rank : self.length : self.processes].tolist())


def split_images(split: Path, images: Path, name: str, columns: list[str]) -> pd.DataFrame:
    """The rows of one split, each with these columns of the index of images; all values are text.

    Raises:
        BusflowError: the split has no image, or one that the index lacks.
    """
    rows = pd.read_csv(split, dtype=str).query("split == @name")
    if rows.empty:
        raise BusflowError(f"{split} has no image in its {name} split; build the splits again")
    index = pd.read_csv(images, dtype=str)[["image_id", *columns]]
    if missing := sorted(set(rows["image_id"]) - set(index["image_id"])):
        raise BusflowError(f"{split} names {missing[0]}, which {images} lacks; run the workflow again")
    return rows.merge(index, on="image_id", validate="one_to_one")


def accumulation_steps(batch_size: int, micro_batch: int) -> int:
    """Fewest equal parts of a process's share of ``batch_size`` that each fit in ``micro_batch`` images.

    Raises:
        BusflowError: the processes of a distributed training cannot share the batch.
    """
    share, rest = divmod(batch_size, get_world_size())
    if rest:
        raise BusflowError(
            f"batch_size {batch_size} cannot be shared by {get_world_size()} processes; make it a multiple"
        )
    return next(n for n in range(1, share + 1) if share % n == 0 and share // n <= micro_batch)


def training_loader(
    dataset: PackedDataset, batch_size: int, micro_batch: int, seed: int, workers: int
) -> DataLoader:
    """Shuffled micro-batches; ``accumulation_steps`` of them make one effective batch.

    Raises:
        BusflowError: there are fewer samples than one effective batch.
    """
    if len(dataset) < batch_size:
        raise BusflowError(
            f"batch_size {batch_size} is larger than the {len(dataset)} training images; "
            "lower models.<task>.<model>.batch_size"
        )
    micro = batch_size // get_world_size() // accumulation_steps(batch_size, micro_batch)
    sampler = EpochSampler(len(dataset), batch_size, seed)
    return _loader(dataset, BatchSampler(sampler, micro, drop_last=True), workers)


def evaluation_loader(
    dataset: PackedDataset, batch_size: int, workers: int, shared: bool = True
) -> DataLoader:
    """Batches in the order of the dataset, ``shared`` by the processes of a distributed training or all."""
    sampler = DefaultSampler(dataset, shuffle=False) if shared else SequentialSampler(dataset)
    return _loader(dataset, BatchSampler(sampler, batch_size, drop_last=False), workers)


def _loader(dataset: Dataset, batches: BatchSampler, workers: int) -> DataLoader:
    return DataLoader(
        dataset,
        batch_sampler=batches,
        collate_fn=_as_is,
        num_workers=workers,
        worker_init_fn=_end_with_the_parent,
        pin_memory=torch.cuda.is_available(),
    )


def _end_with_the_parent(worker: int) -> None:
    """Let only the training end this loader process.

    A scheduler, or Ctrl-C, signals all processes of a job, and a training that loses its loaders cannot save
    its state any more.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})

    def wait() -> None:
        while signal.sigwaitinfo({signal.SIGTERM}).si_pid != os.getppid():
            pass
        os._exit(0)

    threading.Thread(target=wait, daemon=True).start()


def _as_is(batch: dict) -> dict:
    return batch
