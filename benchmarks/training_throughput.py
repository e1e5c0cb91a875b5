"""Images a second in training from a packed array, against the same loop on one resident random batch.

Both take the same steps of the same model, augmentation included; rounds alternate, so that a busy
machine slows both. Target: at least 0.97.
"""

import argparse
import itertools
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from mmengine.optim import OptimWrapper

from busflow.engine.augmentation import UltrasoundAugmentation
from busflow.engine.datasets import PackedDataset, training_loader
from busflow.models.classifier import Classifier, build_network

IMAGES = 4096


def throughput(
    model: Classifier, wrapper: OptimWrapper, batches: Iterator[dict], steps: int, batch: int
) -> float:
    start = time.perf_counter()
    for data in itertools.islice(batches, steps):
        model.train_step(data, wrapper)
    return steps * batch / (time.perf_counter() - start)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--network", default="convnext_atto")
    parser.add_argument("--size", type=int, default=64, help="side of the images in pixels")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--steps", type=int, default=8, help="of one round")
    parser.add_argument("--rounds", type=int, default=9)
    args = parser.parse_args()
    torch.set_num_threads(1)
    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "images.npy"
        np.save(path, rng.integers(0, 256, (IMAGES, args.size, args.size), dtype=np.uint8))
        images, rows, labels = np.load(path, mmap_mode="r"), np.arange(IMAGES), rng.integers(0, 3, IMAGES)
        dataset = PackedDataset(images, rows, labels, image_ids=[str(row) for row in rows])
        loader = training_loader(dataset, args.batch, args.batch, seed=0, workers=0)
        packed = itertools.chain.from_iterable(itertools.repeat(loader))
        resident = itertools.repeat(dataset.__getitems__(list(range(args.batch))))
        model = Classifier(build_network(args.network), UltrasoundAugmentation(0, IMAGES)).train()
        wrapper = OptimWrapper(torch.optim.AdamW(model.parameters(), lr=1e-4))
        throughput(model, wrapper, packed, args.steps, args.batch)
        rounds = [
            [throughput(model, wrapper, source, args.steps, args.batch) for source in (packed, resident)]
            for _ in range(args.rounds)
        ]
    ratio = statistics.median(from_packed / from_memory for from_packed, from_memory in rounds)
    packed_rate, resident_rate = (statistics.median(column) for column in zip(*rounds, strict=True))
    print(f"{args.network}, {args.size} px, batch {args.batch}, 1 thread, {args.rounds} rounds")
    print(f"packed array {packed_rate:.1f} images/s, resident batch {resident_rate:.1f} images/s")
    print(f"ratio {ratio:.3f} (target >= 0.97)")


if __name__ == "__main__":
    main()
