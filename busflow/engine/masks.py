"""Masks of packed images: datasets of them, and augmentation that moves image and mask together."""

from pathlib import Path
from typing import ClassVar

import cv2
import numpy as np
import pandas as pd
import torch
from PIL import Image
from torch.nn import functional
from torch.utils.data import Dataset

from busflow.data.packing import placement
from busflow.engine.augmentation import UltrasoundAugmentation, amplify, move
from busflow.errors import BusflowError
from busflow.labels import LESIONS

IGNORED = 255  # what no loss and no metric counts: the padding


class SegmentationDataset(Dataset):
    """Rows of a packed array with their index masks.

    Args:
        images: uint8 array [N, S, S], usually a memory map.
        rows: int array [n], the row of ``images`` for each sample.
        masks: uint8 array [n, S, S] of ``read_masks``; None where only predictions are wanted.

    Indexing with a list yields ``{"images": uint8 [B, 1, S, S], "masks": uint8 [B, 1, S, S],
    "samples": int64 [B]}``; ``samples`` are the positions in this dataset. Without masks that key is missing.
    """

    metainfo: ClassVar[dict] = {}  # mmengine warns about a dataset without it

    def __init__(self, images: np.ndarray, rows: np.ndarray, masks: np.ndarray | None = None):
        self.images, self.rows, self.masks = images, np.asarray(rows), masks

    def __len__(self) -> int:
        return len(self.rows)

    def __getitems__(self, indices: list[int]) -> dict[str, torch.Tensor]:
        samples = np.asarray(indices)
        batch = {
            "images": torch.from_numpy(self.images[self.rows[samples]]).unsqueeze(1),
            "samples": torch.from_numpy(samples),
        }
        if self.masks is not None:
            batch["masks"] = torch.from_numpy(self.masks[samples]).unsqueeze(1)
        return batch


def read_masks(folder: Path, table: pd.DataFrame, side: int) -> np.ndarray:
    """Index masks placed as ``letterbox`` places their images: 0 background, then the lesions.

    Args:
        folder: holds ``<image_id>.png``.
        table: ``image_id, width, height`` of the images.
        side: of the packed images in pixels.

    Returns:
        uint8 [n, side, side]; the padding is 255.

    Raises:
        BusflowError: a mask is missing, damaged, no index mask, or of another size than its image.
    """
    masks = np.full((len(table), side, side), IGNORED, np.uint8)
    for placed, image in zip(masks, table.itertuples(), strict=True):
        mask = _read(folder / f"{image.image_id}.png", (int(image.width), int(image.height)))
        left, top, width, height = placement(int(image.width), int(image.height), side)
        placed[top : top + height, left : left + width] = cv2.resize(
            mask, (width, height), interpolation=cv2.INTER_NEAREST_EXACT
        )
    return masks


def unletterbox(maps: torch.Tensor, width: int, height: int) -> torch.Tensor:
    """Maps [K, S, S] of a packed image, bilinearly at the original size: [K, height, width]."""
    left, top, inner_width, inner_height = placement(width, height, maps.shape[-1])
    inner = maps[None, :, top : top + inner_height, left : left + inner_width]
    return functional.interpolate(inner, (height, width), mode="bilinear")[0]


class MaskAugmentation(UltrasoundAugmentation):
    """Randomly moved, scaled and re-amplified images, with their masks."""

    def forward(
        self, images: torch.Tensor, masks: torch.Tensor, samples: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Augment float images and uint8 masks [B, 1, S, S]; what comes in from outside is not counted."""
        draws = self.draws.to(images.device)[samples]
        moved = amplify(move(images, draws[:, :5]), draws[:, 5:])
        # ``move`` fills with zeros.
        return moved, IGNORED - move(IGNORED - masks.float(), draws[:, :5], mode="nearest")


def _read(path: Path, size: tuple[int, int]) -> np.ndarray:
    """An index mask uint8 [H, W]; ``size`` is the width and height that it must have."""
    try:
        with Image.open(path) as image:
            mask = np.asarray(image)
    except FileNotFoundError as error:
        raise BusflowError(f"the mask {path} is missing; run the workflow again to make it") from error
    except Exception as error:  # damaged data makes decoders raise nearly anything
        raise BusflowError(f"the mask {path} is damaged ({error}); make the masks again") from error
    if image.mode != "L" or mask.max() > len(LESIONS):
        raise BusflowError(
            f"{path} is no index mask of one channel with values up to {len(LESIONS)}; make the masks again"
        )
    if image.size != size:
        found, wanted = (f"{width} × {height}" for width, height in (image.size, size))
        raise BusflowError(f"the mask {path} is {found} px, its image {wanted}; make the masks again")
    return mask
