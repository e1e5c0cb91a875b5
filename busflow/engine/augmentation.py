"""Augmentation for ultrasound, a whole batch at a time on the training device.

What may vary is what a sonographer varies: the probe's position, angle and depth setting, the gain,
the dynamic range and the time-gain compensation. Images are mirrored left to right but never upside
down, because shadows fall away from the probe, and never stretched, because "taller than wide" is a
sign of malignancy (BI-RADS).
"""

import math

import numpy as np
import torch
from torch import nn
from torch.nn import functional

# Full ranges of the uniform draws.
ROTATION = math.radians(10)
SCALE = math.log(1.2)
SHIFT = 0.10  # of the image side
GAIN = 0.10  # of full scale
CONTRAST = math.log(1.25)
TIME_GAIN = 0.10  # of full scale, from the skin to the deepest line
DRAWS = 8  # random numbers that one image takes


class UltrasoundAugmentation(nn.Module):
    """Randomly moved, scaled and re-amplified images.

    Every image's random numbers are a function of (seed, epoch, sample): batch order, number of
    workers and an interruption do not change them.

    Args:
        seed: of the run.
        samples: size of the training set.
        strength: share in [0, 1] of the full ranges; mirroring is a matter of chance at any strength.
    """

    def __init__(self, seed: int, samples: int, strength: float = 1.0):
        super().__init__()
        self.seed, self.samples, self.strength = seed, samples, strength
        self.set_epoch(0)

    def set_epoch(self, epoch: int) -> None:
        """Draw the random numbers of all samples for this epoch."""
        draws = np.random.default_rng([self.seed, epoch]).uniform(-1, 1, (self.samples, DRAWS))
        draws[:, 1:] *= self.strength  # all but the mirror
        self.draws = torch.from_numpy(draws.astype(np.float32))

    def draws_of(self, samples: torch.Tensor) -> torch.Tensor:
        """The random numbers [B, 8] of these samples, on their device."""
        self.draws = self.draws.to(samples.device)  # once an epoch
        return self.draws[samples]

    def forward(self, images: torch.Tensor, samples: torch.Tensor) -> torch.Tensor:
        """Augment float images [B, 1, H, W] in [0, 1]; ``samples`` [B] are their dataset positions."""
        draws = self.draws_of(samples)
        return amplify(move(images, draws[:, :5]), draws[:, 5:])


def move(images: torch.Tensor, draws: torch.Tensor, mode: str = "bilinear") -> torch.Tensor:
    """Mirror, rotate, scale and shift each image by its own draws [B, 5] in [-1, 1]; zeros outside.

    ``mode`` is the interpolation: bilinear, or nearest for maps of classes.

    torchvision's affine transforms share one set of parameters over a batch, hence grid_sample.
    """
    mirror, turn, zoom, right, down = draws.unbind(1)
    angle, scale = turn * ROTATION, torch.exp(zoom * SCALE)
    sign = torch.where(mirror < 0, -1.0, 1.0)
    cosine, sine = torch.cos(angle) * scale, torch.sin(angle) * scale
    theta = torch.stack(
        [
            torch.stack([sign * cosine, -sine, right * 2 * SHIFT], dim=1),
            torch.stack([sign * sine, cosine, down * 2 * SHIFT], dim=1),
        ],
        dim=1,
    )
    grid = functional.affine_grid(theta, list(images.shape), align_corners=False)
    return functional.grid_sample(images, grid, mode, align_corners=False)


def amplify(images: torch.Tensor, draws: torch.Tensor) -> torch.Tensor:
    """Change gain, contrast and time-gain slope of each image by its own draws [B, 3] in [-1, 1].

    Black stays black: the border around the sector carries no echoes to amplify.
    """
    gain, contrast, slope = (draw.view(-1, 1, 1, 1) for draw in draws.unbind(1))
    depth = torch.linspace(-0.5, 0.5, images.shape[2], device=images.device).view(1, 1, -1, 1)
    changed = images * torch.exp(contrast * CONTRAST) + gain * GAIN + slope * TIME_GAIN * depth
    return torch.where(images > 0, changed.clamp(0, 1), images)
