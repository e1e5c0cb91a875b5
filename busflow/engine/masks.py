"""Masks of packed images: datasets of them, and augmentation that moves image and mask together."""

from pathlib import Path
from typing import ClassVar

import cv2
import numpy as np
import pandas as pd
import torch
from torch.nn import functional
from torch.utils.data import Dataset

from busflow.data.masks import load_mask
from busflow.data.packing import placement
from busflow.engine.augmentation import UltrasoundAugmentation, amplify, move
from busflow.errors import BusflowError

IGNORED = 255  # what no loss and no metric counts: the padding


class SegmentationDataset(Dataset):
    """Rows of a packed array with their index masks.

    Args:
        images: uint8 array [N, S, S], usually a memory map.
        rows: int array [n], the row of ``images`` for each sample.
        image_ids: of the samples.
        sizes: int array [n, 2], width and height of the original images in pixels.
        masks: uint8 array [n, S, S] of ``read_masks``; None where only predictions are wanted.

    Indexing with a list yields ``{"images": uint8 [B, 1, S, S], "masks": uint8 [B, 1, S, S],
    "samples": int64 [B]}``; ``samples`` are the positions in this dataset. Without masks that key is missing.
    """

    metainfo: ClassVar[dict] = {}  # mmengine warns about a dataset without it

    def __init__(
        self,
        images: np.ndarray,
        rows: np.ndarray,
        image_ids: list[str],
        sizes: np.ndarray,
        masks: np.ndarray | None = None,
    ):
        self.images, self.rows, self.image_ids = images, np.asarray(rows), image_ids
        self.sizes, self.masks = sizes, masks

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
    """Index masks placed as ``letterbox`` places their images.

    Args:
        folder: of ``busflow.data.masks.make_masks``.
        table: ``image_id, width, height`` of the images.
        side: of the packed images in pixels.

    Returns:
        uint8 [n, side, side]: positions in ``CLASSES``; the padding is 255.

    Raises:
        BusflowError: a mask is missing, damaged or no index mask, or of another size than its image.
    """
    masks = np.full((len(table), side, side), IGNORED, np.uint8)
    for placed, image in zip(masks, table.itertuples(), strict=True):
        mask, size = load_mask(folder, image.image_id), (int(image.width), int(image.height))
        if mask.shape[::-1] != size:
            found, wanted = (f"{width} × {height}" for width, height in (mask.shape[::-1], size))
            raise BusflowError(
                f"the mask of {image.image_id} in {folder} is {found} px, the image {wanted}; "
                "run the workflow again to make the masks"
            )
        left, top, width, height = placement(*size, side)
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
        draws = self.draws_of(samples)
        moved = amplify(move(images, draws[:, :5]), draws[:, 5:])
        # ``move`` fills with zeros.
        return moved, IGNORED - move(IGNORED - masks.float(), draws[:, :5], mode="nearest")
