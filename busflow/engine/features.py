"""What a frozen network makes of images: the numbers that its head would read."""

from pathlib import Path

import numpy as np
import torch
from mmengine.device import get_device

from busflow.engine.memory import out_of_memory_is
from busflow.files import atomic
from busflow.models.classifier import build_network
from busflow.models.inputs import IMAGENET_MEAN, IMAGENET_STD, to_float, to_network

BATCH = 32


@torch.inference_mode()
@out_of_memory_is("features of 32 images", "take a larger GPU, or set compute.gpus to 0 in the config")
def extract(packed_images: Path, timm: str, weights: Path, output: Path) -> None:
    """Write the pooled features of packed images, float32 [N, C] (``.npy``), in the rows of their array.

    Args:
        packed_images: uint8 [N, S, S], ``.npy``.
        timm: name of a classifier in timm.
        weights: its pretrained weights.
        output: file to write.

    Raises:
        BusflowError: the weights are another network's.
    """
    device = torch.device(get_device())
    network = build_network(timm, weights=weights).eval().to(device)
    images = np.load(packed_images, mmap_mode="r", allow_pickle=False)
    found = [
        network.forward_head(
            network.forward_features(_prepared(images[start : start + BATCH], device)), pre_logits=True
        )
        .float()
        .cpu()
        .numpy()
        for start in range(0, len(images), BATCH)
    ]
    with atomic(output) as temporary:
        np.save(temporary, np.concatenate(found), allow_pickle=False)


def _prepared(images: np.ndarray, device: torch.device) -> torch.Tensor:
    grey = torch.from_numpy(images.copy()).unsqueeze(1).to(device)
    return to_network(to_float(grey), IMAGENET_MEAN, IMAGENET_STD)
