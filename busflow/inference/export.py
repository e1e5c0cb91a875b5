"""Models for other programs: ONNX graphs that take images as they are."""

import json
import logging
from pathlib import Path

import onnx
import torch
from mmdet.structures import DetDataSample
from mmengine.model import BaseModel
from torch import nn
from torch.export import Dim
from torchvision.ops import box_convert
from torchvision.transforms.v2.functional import grayscale_to_rgb, normalize

from busflow.data.images import MAX_PIXELS, MIN_SIDE
from busflow.errors import BusflowError
from busflow.files import atomic
from busflow.inference.job import Job
from busflow.inference.members import Member, load_members
from busflow.models.inputs import IMAGENET_MEAN, IMAGENET_STD

# Each tells of every constant that it leaves as it is.
for name in ("onnxscript", "onnx_ir"):
    logging.getLogger(name).setLevel(logging.ERROR)

OPSET = 20
OUTPUTS = {
    "classification": ["probabilities"],
    "detection": ["boxes", "scores", "labels"],
    "segmentation": ["mask"],
}


class Letterbox(nn.Module):
    """``busflow.data.packing.letterbox`` and ``busflow.engine.masks.unletterbox`` as products of matrices.

    Either is a weighted sum along each axis, whose weights follow from the image's size: so images of any
    size go through one graph of standard operators.

    Args:
        side: of the packed images in pixels.
    """

    def __init__(self, side: int):
        super().__init__()
        self.side = side

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """uint8 [B, 1, H, W] to float32 [B, 1, side, side] of whole numbers, 0 to 255."""
        height, width, longest = _extent(images)
        shrinks = self.side < longest
        rows = self._packing(height, longest, images.shape[-2], shrinks)
        columns = self._packing(width, longest, images.shape[-1], shrinks)
        resized = rows @ images.float() @ columns.T
        # OpenCV halves both sides by whole numbers, and rounds up what lies between two.
        halves = (longest == 2 * self.side) & (self._inner(height, longest) * 2 == height)
        halves = halves & (self._inner(width, longest) * 2 == width)
        return torch.where(halves, torch.floor(resized + 0.5), torch.round(resized)).clamp(0, 255)

    def undo(self, maps: torch.Tensor, images: torch.Tensor) -> torch.Tensor:
        """Maps [B, K, side, side] of packed images, bilinearly at their size: [B, K, H, W]."""
        height, width, longest = _extent(images)
        rows = self._unpacking(height, longest, images.shape[-2])
        columns = self._unpacking(width, longest, images.shape[-1])
        return rows @ maps @ columns.T

    def undo_boxes(self, boxes: torch.Tensor, images: torch.Tensor) -> torch.Tensor:
        """Boxes [B, D, 4] (left, top, right, bottom) of packed images, in theirs and cut at their border."""
        height, width, longest = _extent(images)
        (top, rows), (left, columns) = (self._placed(length, longest) for length in (height, width))
        offset = torch.stack([left, top, left, top])
        ends = torch.stack([width, height, width, height])
        scale = torch.stack([columns / width, rows / height] * 2)
        return torch.minimum(((boxes - offset) / scale).clamp(min=0), ends).float()

    def _inner(self, length: torch.Tensor, longest: torch.Tensor) -> torch.Tensor:
        return torch.clamp(torch.round(length * (self.side / longest)), min=1)

    def _placed(self, length: torch.Tensor, longest: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Where an image lies along an axis of the packed one: first pixel and number of pixels."""
        inner = self._inner(length, longest)
        return torch.floor((self.side - inner) / 2), inner

    def _packing(
        self, length: torch.Tensor, longest: torch.Tensor, pixels: int, shrinks: torch.Tensor
    ) -> torch.Tensor:
        """Weights [side, pixels] of resizing: by area where the image shrinks, else cubic."""
        start, inner = self._placed(length, longest)
        target = torch.arange(self.side, dtype=torch.float64)[:, None] - start
        source = torch.arange(pixels, dtype=torch.float64)
        step = length / inner
        overlap = torch.minimum((target + 1) * step, source + 1) - torch.maximum(target * step, source)
        area = overlap.clamp(min=0) / step
        cubic = _gathered(((target + 0.5) * step - 0.5), source, length, _cubic, reach=2)
        inside = (target >= 0) & (target < inner)
        return torch.where(inside, torch.where(shrinks, area, cubic), 0.0).float()

    def _unpacking(self, length: torch.Tensor, longest: torch.Tensor, pixels: int) -> torch.Tensor:
        """Weights [pixels, side] of a bilinear interpolation within the image's part of the packed one."""
        start, inner = self._placed(length, longest)
        target = torch.arange(pixels, dtype=torch.float64)[:, None]
        source = torch.arange(self.side, dtype=torch.float64) - start
        position = ((target + 0.5) * (inner / length) - 0.5).clamp(min=0)
        weights = _gathered(position, source, inner, _linear, reach=1)
        return torch.where((source >= 0) & (source < inner), weights, 0.0).float()


def _extent(images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Height, width and the greater of both, as numbers of the graph."""
    height, width = (torch.scalar_tensor(side, dtype=torch.float64) for side in images.shape[-2:])
    return height, width, torch.maximum(height, width)


def _gathered(position, source, length, kernel, reach: int) -> torch.Tensor:
    """Weights of the pixels ``source`` at ``position``; beyond the border, the border's pixel is taken."""
    first = torch.floor(position)
    weights = torch.zeros_like(position + source)
    for k in range(1 - reach, reach + 1):
        pixel = torch.minimum((first + k).clamp(min=0), length - 1)
        weights = weights + torch.where(source == pixel, kernel(position - first - k), 0.0)
    return weights


def _linear(distance: torch.Tensor) -> torch.Tensor:
    return 1 - distance.abs()


def _cubic(distance: torch.Tensor) -> torch.Tensor:
    """Keys, IEEE Trans. Acoust. Speech Signal Process. 29(6), 1981; OpenCV's a is -3/4."""
    a, x = -0.75, distance.abs()
    near = (a + 2) * x**3 - (a + 3) * x**2 + 1
    far = a * x**3 - 5 * a * x**2 + 8 * a * x - 4 * a
    return torch.where(x <= 1, near, far)


class ClassifierGraph(nn.Module):
    """Grey images uint8 [B, 1, H, W] to probabilities float32 [B, K]."""

    def __init__(self, model: BaseModel, side: int):
        super().__init__()
        self.letterbox, self.network = Letterbox(side), model.network

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.network(_normalised(self.letterbox(images))).softmax(dim=1)


class SegmenterGraph(nn.Module):
    """Grey images uint8 [B, 1, H, W] to positions in ``busflow.data.masks.CLASSES``, uint8 [B, H, W]."""

    def __init__(self, model: BaseModel, side: int):
        super().__init__()
        self.letterbox, self.model = Letterbox(side), model

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        logits = self.model(_normalised(self.letterbox(images)))
        return self.letterbox.undo(logits, images).argmax(dim=1).to(torch.uint8)


class DetrGraph(nn.Module):
    """Grey images uint8 [B, 1, H, W] to boxes float32 [B, D, 4], scores [B, D] and labels int64 [B, D].

    Boxes are left, top, right, bottom in pixels, in no order; labels are positions in
    ``busflow.labels.LESIONS``. DETR has as many boxes as queries, whatever is in an image, and suppresses
    none: so it is a graph of standard operators, which other detectors are not.
    """

    def __init__(self, model: BaseModel, side: int):
        super().__init__()
        self.letterbox, self.network = Letterbox(side), model.network

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        side = self.letterbox.side
        features = self.network.extract_feat(_normalised(self.letterbox(images)))
        # Without padding, mmdet asks one sample for the size of all, and the batch may have any.
        sample = DetDataSample(metainfo=dict.fromkeys(("img_shape", "batch_input_shape"), (side, side)))
        decoded = self.network.forward_transformer(features, [sample])
        logits, places = (each[-1] for each in self.network.bbox_head(decoded["hidden_states"]))
        scores, labels = logits.softmax(dim=-1)[..., :-1].max(dim=-1)
        boxes = (box_convert(places, "cxcywh", "xyxy") * side).clamp(0, side)
        return self.letterbox.undo_boxes(boxes, images), scores, labels


def _graph(task: str, member: Member) -> type[nn.Module] | None:
    """What a member is exported as; None where it cannot be."""
    detr = member.meta["settings"].get("detector") == "detr"
    graphs = {"classification": ClassifierGraph, "segmentation": SegmenterGraph}
    return graphs.get(task, DetrGraph if detr else None)


def _normalised(levels: torch.Tensor) -> torch.Tensor:
    """What ``busflow.models.inputs`` does, with constants of the graph's own."""
    return normalize(grayscale_to_rgb(levels / 255), IMAGENET_MEAN, IMAGENET_STD)


def graph_of(task: str, member: Member) -> nn.Module:
    """A member as a module from grey images to what a user wants, in evaluation mode.

    Raises:
        BusflowError: it is a detector other than DETR.
    """
    graph = _graph(task, member)
    if graph is None:
        raise BusflowError(
            f"{member.path} is a detector that suppresses, or pools, as many boxes as an image has, which is "
            "no graph of standard operators; use busflow predict, or export a DETR"
        )
    return graph(member.model, member.side).eval()


def export(weights: Path, output: Path) -> None:
    """Write a model as an ONNX graph, from images of any size to what a user wants.

    Input ``images``: uint8 [B, 1, H, W], grey, a batch of one size. Outputs: see the graphs above. Classes
    and what else is to be known are in the file's metadata.

    Args:
        weights: a published weights.pth.
        output: file to write.

    Raises:
        BusflowError: it is a detector other than DETR.
    """
    task, (member,) = load_members([weights], torch.device("cpu"))
    graph = graph_of(task, member)
    sides = {"min": MIN_SIDE, "max": MAX_PIXELS // MIN_SIDE}
    shapes = {0: Dim("batch", min=1, max=4096), 2: Dim("height", **sides), 3: Dim("width", **sides)}
    # No side of the example is special: neither the model's nor one of the other.
    example = torch.zeros(2, 1, member.side + 37, member.side + 91, dtype=torch.uint8)
    with torch.inference_mode():
        program = torch.onnx.export(
            graph,
            (example,),
            dynamo=True,
            dynamic_shapes=(shapes,),
            input_names=["images"],
            output_names=OUTPUTS[task],
            opset_version=OPSET,
            verbose=False,
        )
    program.model.metadata_props.update(_metadata(task, member))
    with atomic(output) as temporary:
        program.save(temporary, external_data=False)
        onnx.checker.check_model(temporary)


def _metadata(task: str, member: Member) -> dict[str, str]:
    sources = member.meta["origin"]["sources"]
    return {
        "notice": Job([member], Path(), None, False, False).notice,
        "task": task,
        "classes": json.dumps(member.meta["classes"]),
        "image_size": str(member.side),
        "preparation": json.dumps(member.meta["preparation"]),
        "training_data": json.dumps(sources, ensure_ascii=False),
        "licence": "; ".join(dict.fromkeys(f"{each['name']}: {each['licence']}" for each in sources)),
        "weights_sha256": member.sha256,
    }
