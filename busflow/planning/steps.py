"""A training step of any model of the registry, on tensors that have a shape and no values.

What depends on values cannot run so: how boxes are assigned to priors, queries and proposals, how they are
sampled, and non-maximum suppression. A step here has all that is learnt and the plainest loss; a Cascade's
heads get as many proposals as they train on at most. For the rest, see ``busflow.planning.price``.
"""

import contextlib
from collections.abc import Callable, Iterator

import torch
from mmengine.registry import DefaultScope
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.library import _scoped_library
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from busflow.labels import LABELS
from busflow.models import classifier

PRIOR_SIDES = [1.0] * 5  # of RFLA: any five cost the same
# What autocast computes in single precision on a GPU and leaves as it is on a CPU, of what the networks have.
# https://docs.pytorch.org/docs/stable/amp.html#cuda-op-specific-behavior
IN_SINGLE = {
    "layer_norm": torch.ops.aten.layer_norm.default,
    "group_norm": torch.ops.aten.group_norm.default,
    "softmax.int": torch.ops.aten.softmax.int,
    "log_softmax.int": torch.ops.aten.log_softmax.int,
    "pow.Tensor_Scalar": torch.ops.aten.pow.Tensor_Scalar,
    "cumsum": torch.ops.aten.cumsum.default,
    "exp": torch.ops.aten.exp.default,
}


class _RatesAreRead(TorchFunctionMode):
    """mmdet and mmseg read the rates of stochastic depth out of a tensor, which has to have values."""

    def __torch_function__(
        self, function: Callable, types: tuple, args: tuple = (), kwargs: dict | None = None
    ) -> object:
        device = {"device": "cpu"} if function is torch.linspace else {}
        return function(*args, **(kwargs or {}) | device)


def build(task: str, settings: dict, pretrained: bool) -> nn.Module:
    """The network of a registry entry on the meta device, in training mode.

    Args:
        task: of ``busflow.tasks``.
        settings: of the model and its training.
        pretrained: it starts from given weights, so that some of DETR's are frozen.

    Raises:
        BusflowError: there is no such network.
    """
    with torch.device("meta"), _RatesAreRead():
        if task == "classification":
            network = classifier.build_network(settings["timm"], options=settings["network"])
        elif task == "detection":
            from busflow.models import detectors

            config = detectors.detector_config({"prior_sides": PRIOR_SIDES} | settings, pretrained)
            with DefaultScope.overwrite_default_scope("mmdet"):
                network = detectors.MODELS.build(config)
        else:
            from busflow.models import segmenters

            network = segmenters.build_network(settings)
        return network.train()


@contextlib.contextmanager
def without_values(network: nn.Module) -> Iterator[None]:
    """Tensors have shapes and no values; so have those of the network, from here on on the CPU."""
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        network.to_empty(device="cpu")
        mode.allow_non_fake_inputs = False
        yield


@contextlib.contextmanager
def mixed_precision() -> Iterator[None]:
    """Half precision where a GPU's autocast has it, though the tensors are the CPU's."""

    def in_single(operator: Callable) -> Callable:
        def compute(tensor: torch.Tensor, *args: object, **kwargs: object) -> torch.Tensor:
            with torch.autocast("cpu", enabled=False):
                return operator(tensor.float(), *args, **kwargs)

        return compute

    with _scoped_library("aten", "IMPL") as library:
        for name, operator in IN_SINGLE.items():
            library.impl(name, in_single(operator), "AutocastCPU")
        with torch.autocast("cpu", torch.float16):
            yield


def loss(task: str, network: nn.Module, settings: dict, images: int) -> torch.Tensor:
    """A number to differentiate, from a batch of so many images."""
    side = settings["image_size"]
    inputs = torch.empty(images, 3, side, side)
    if task == "classification":
        return _cross_entropy(network(inputs), (images,))
    maps = network.extract_feat(inputs)
    if task == "segmentation":
        heads = [network.decode_head, *([network.auxiliary_head] if network.with_auxiliary_head else [])]
        logits = [functional.interpolate(head(maps), (side, side), mode="bilinear") for head in heads]
        return sum(_cross_entropy(each, (images, side, side)) for each in logits)
    outputs = {"detr": _detr, "cascade_rcnn": _cascade_rcnn, "gfl": _gfl}[settings["detector"]]
    return sum(output.float().sum() for output in outputs(network, maps, settings, images))


def _cross_entropy(logits: torch.Tensor, shape: tuple[int, ...]) -> torch.Tensor:
    return functional.cross_entropy(logits, torch.empty(shape, dtype=torch.long) % len(LABELS))


def _detr(network: nn.Module, maps: tuple, settings: dict, images: int) -> Iterator[torch.Tensor]:
    from mmdet.structures import DetDataSample

    shape = (settings["image_size"],) * 2
    samples = [DetDataSample(metainfo={"img_shape": shape, "batch_input_shape": shape})] * images
    yield from network.bbox_head(**network.forward_transformer(maps, samples))


def _gfl(network: nn.Module, maps: tuple, settings: dict, images: int) -> Iterator[torch.Tensor]:
    for levels in network.bbox_head(maps):
        yield from levels


def _cascade_rcnn(network: nn.Module, maps: tuple, settings: dict, images: int) -> Iterator[torch.Tensor]:
    for levels in network.rpn_head(maps):
        yield from levels
    roi = network.roi_head
    for extractor, head in zip(roi.bbox_roi_extractor, roi.bbox_head, strict=True):
        size = extractor.roi_layers[0].output_size
        yield from head(torch.empty(images * settings["roi_samples"], extractor.out_channels, *size))
