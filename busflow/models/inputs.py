"""What networks take in: grey images as normalised floats of three channels."""

import timm
import torch
from torchvision.transforms.v2 import functional as v2

IMAGENET_MEAN, IMAGENET_STD = timm.data.IMAGENET_DEFAULT_MEAN, timm.data.IMAGENET_DEFAULT_STD


def to_float(images: torch.Tensor) -> torch.Tensor:
    """uint8 [B, 1, H, W] to float32 in [0, 1]."""
    return v2.to_dtype(images, torch.float32, scale=True)


def to_network(images: torch.Tensor, mean: tuple[float, ...], std: tuple[float, ...]) -> torch.Tensor:
    """Grey float images [B, 1, H, W] in [0, 1] to normalised three-channel input [B, 3, H, W]."""
    return v2.normalize(v2.grayscale_to_rgb(images), list(mean), list(std))
