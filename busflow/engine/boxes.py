"""Boxes in packed images: datasets of them, and augmentation that moves image and boxes together."""

from typing import ClassVar

import numpy as np
import torch
from torch.utils.data import Dataset

from busflow.data.packing import placement
from busflow.engine.augmentation import SCALE, SHIFT, UltrasoundAugmentation, amplify, move
from busflow.labels import LESIONS


class DetectionDataset(Dataset):
    """A view's images in a packed array, with their boxes.

    Args:
        view: in the COCO schema (``busflow.data.views``).
        images: uint8 array [N, S, S], usually a memory map.
        rows: int array [n], the row of ``images`` for each image of the view.

    Indexing with a list yields ``{"images": uint8 [B, 1, S, S], "boxes": B times float [K, 4],
    "labels": B times int64 [K], "samples": int64 [B]}``. Boxes are left, top, right, bottom in pixels of the
    packed image; ``samples`` are the positions in this dataset.
    """

    metainfo: ClassVar[dict] = {}  # mmengine warns about a dataset without it

    def __init__(self, view: dict, images: np.ndarray, rows: np.ndarray):
        self.view, self.images, self.rows = view, images, np.asarray(rows)
        self.image_ids = [image["file_name"] for image in view["images"]]
        self.sizes = np.array([(image["width"], image["height"]) for image in view["images"]])
        position = {image["id"]: k for k, image in enumerate(view["images"])}
        self.boxes: list[list] = [[] for _ in self.sizes]
        self.labels: list[list] = [[] for _ in self.sizes]
        for annotation in view["annotations"]:
            k = position[annotation["image_id"]]
            corner, size = np.split(np.array(annotation["bbox"]), 2)
            offset, scale = placed_by(*self.sizes[k], images.shape[1])
            ends = np.stack([corner, corner + size]) * scale + offset
            self.boxes[k].append(ends.ravel())
            self.labels[k].append(annotation["category_id"] - 1)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitems__(self, indices: list[int]) -> dict[str, torch.Tensor | list[torch.Tensor]]:
        samples = np.asarray(indices)
        return {
            "images": torch.from_numpy(self.images[self.rows[samples]]).unsqueeze(1),
            "boxes": [
                torch.tensor(np.array(self.boxes[k]), dtype=torch.float).reshape(-1, 4) for k in indices
            ],
            "labels": [torch.tensor(self.labels[k], dtype=torch.long) for k in indices],
            "samples": torch.from_numpy(samples),
        }

    def results(self, sample: int, detections: dict[str, torch.Tensor]) -> list[dict]:
        """One image's detections in pixels of the original image, cut at its border.

        Returns:
            Of each box ``{"image_id", "label", "bbox": [x, y, w, h], "score"}``, the label by name.
        """
        ends = original_boxes(detections["boxes"], *self.sizes[sample], self.images.shape[1]).reshape(
            -1, 2, 2
        )
        boxes = np.concatenate([ends[:, 0], ends[:, 1] - ends[:, 0]], axis=1).round(3)
        image_id = self.image_ids[sample]
        return [
            {"image_id": image_id, "label": LESIONS[label], "bbox": box, "score": round(score, 9)}
            for box, label, score in zip(
                boxes.tolist(), detections["labels"].tolist(), detections["scores"].tolist(), strict=True
            )
        ]


def placed_by(width: int, height: int, side: int) -> tuple[np.ndarray, np.ndarray]:
    """How ``letterbox`` moves points of an image of ``width`` × ``height``: offset and scale, in x and y."""
    left, top, inner_width, inner_height = placement(int(width), int(height), side)
    return np.array([left, top]), np.array([inner_width / width, inner_height / height])


def original_boxes(boxes: torch.Tensor, width: int, height: int, side: int) -> np.ndarray:
    """Boxes [D, 4] of a packed image in pixels of the original image, cut at its border; float64 [D, 4].

    Both are left, top, right, bottom.
    """
    offset, scale = placed_by(width, height, side)
    ends = boxes.double().cpu().numpy().reshape(-1, 2, 2)
    return ((ends - offset) / scale).clip(0, (width, height)).reshape(-1, 4)


class BoxAugmentation(UltrasoundAugmentation):
    """Randomly mirrored, scaled, shifted and re-amplified images, with their boxes.

    Images are not turned: the box around a turned lesion is not known from the box around the lesion.
    """

    def forward(
        self,
        images: torch.Tensor,
        boxes: list[torch.Tensor],
        labels: list[torch.Tensor],
        samples: torch.Tensor,
    ) -> tuple[torch.Tensor, list[torch.Tensor], list[torch.Tensor]]:
        """Augment a batch; boxes are cut at the border, and left out when a side keeps less than a pixel."""
        draws = self.draws_of(samples)
        draws[:, 1] = 0
        images = amplify(move(images, draws[:, :5]), draws[:, 5:])
        moved = [move_boxes(b, draw, images.shape[-1]) for b, draw in zip(boxes, draws, strict=True)]
        visible = torch.cat([(b[:, 2:] - b[:, :2] >= 1).all(dim=1) for b in moved])
        if not visible.all():  # the one wait for a GPU; most batches keep all their boxes
            counts = [len(b) for b in moved]
            moved, labels = (
                [each[seen] for each, seen in zip(column, visible.split(counts), strict=True)]
                for column in (moved, labels)
            )
        return images, moved, labels


def move_boxes(boxes: torch.Tensor, draw: torch.Tensor, side: int) -> torch.Tensor:
    """Boxes [K, 4] of one image, moved as ``move`` moves the image by this draw, if it does not turn it.

    Args:
        boxes: left, top, right, bottom in pixels.
        draw: random numbers of the image, in [-1, 1].
        side: of the image in pixels; the boxes are cut there.
    """
    mirror, _, zoom, right, down = draw[:5]
    # ``move`` says where each pixel comes from, in coordinates from -1 to 1; this is the inverse.
    ends = boxes.reshape(-1, 2, 2) / side * 2 - 1
    ends = (ends - 2 * SHIFT * torch.stack([right, down])) / torch.exp(zoom * SCALE)
    ends = ((ends + 1) / 2 * side).clamp(0, side)
    left, top, right, bottom = ends.reshape(-1, 4).unbind(1)
    mirrored = torch.stack([side - right, top, side - left, bottom], dim=1)
    return mirrored.where(mirror < 0, torch.stack([left, top, right, bottom], dim=1))
