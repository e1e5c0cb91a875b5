"""What networks take in: grey images as normalised floats of three channels."""

import functools

import timm
import torch
from torchvision.transforms.v2 import functional as v2

IMAGENET_MEAN, IMAGENET_STD = timm.data.IMAGENET_DEFAULT_MEAN, timm.data.IMAGENET_DEFAULT_STD


def to_float(images: torch.Tensor) -> torch.Tensor:
    """uint8 [B, 1, H, W] to float32 in [0, 1]."""
    return v2.to_dtype(images, torch.float32, scale=True)


def to_network(images: torch.Tensor, mean: tuple[float, ...], std: tuple[float, ...]) -> torch.Tensor:
    """Grey float images [B, 1, H, W] in [0, 1] to normalised three-channel input [B, 3, H, W]."""
    colours = v2.grayscale_to_rgb(images)
    return colours.sub(_per_channel(mean, images.device)).div_(_per_channel(std, images.device))


@functools.cache
def _per_channel(values: tuple[float, ...], device: torch.device) -> torch.Tensor:
    """[3, 1, 1], made once on a device: copying them there at each step would make the CPU wait."""
    return torch.tensor(values, device=device).view(-1, 1, 1)
