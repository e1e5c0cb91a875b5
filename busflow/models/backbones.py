"""timm networks as backbones for mmdet and mmseg, and the learning rates of backbones."""

import math
import re
from collections.abc import Callable
from pathlib import Path

import timm
import torch
from mmengine.model import BaseModule
from mmengine.registry import MODELS
from timm.layers import LayerNorm2d
from torch import nn

from busflow.errors import BusflowError
from busflow.models.classifier import timm_names
from busflow.models.weights import load_pretrained, read_tensors

# Parameters of a backbone, which an RFP has more than one of.
BACKBONE = re.compile(r"(backbone|neck\.rfp_modules\.\d+)\.")
STRIDES = [4, 8, 16, 32]


# In mmengine's own registry, which those of mmdet and mmseg both fall back to.
@MODELS.register_module()
class TimmFeatures(BaseModule):
    """Features of a timm network at strides 4, 8, 16 and 32, each normalised.

    The layer norms are those that ConvNeXt takes when it is a backbone (Liu et al., CVPR 2022; official
    detection code).

    Args:
        name: of a timm network whose last four features have these strides.
        drop_path: stochastic depth rate.
    """

    def __init__(self, name: str, drop_path: float = 0.0):
        super().__init__()
        self.name = name
        self.network = timm.create_model(
            name, features_only=True, out_indices=(-4, -3, -2, -1), drop_path_rate=drop_path
        )
        self.channels = self.network.feature_info.channels()
        self.norms = nn.ModuleList(LayerNorm2d(channels, eps=1e-6) for channels in self.channels)

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """[B, 3, H, W] to four maps [B, C_i, H / s_i, W / s_i].

        The maps are contiguous. timm's ConvNeXt hands out channels-last memory, from which mmcv's compiled
        RoIAlign computes wrong values on the CPU without a word (open-mmlab/mmcv#2203).
        """
        features = self.network(images)
        return tuple(norm(x).contiguous() for norm, x in zip(self.norms, features, strict=True))

    def load_pretrained(self, tensors: dict[str, torch.Tensor], path: Path) -> None:
        """Load weights of the whole network, head included or not; the norms of the maps start afresh."""
        with torch.device("meta"):  # only its names and shapes count
            whole = timm.create_model(self.name)
        features = getattr(self.network, "model", self.network)  # timm wraps some networks in another
        load_pretrained(features, tensors, path, timm_names(whole), known=whole.state_dict())


def feature_channels(name: str) -> list[int]:
    """Channels of the four maps that a timm network gives as a backbone.

    Raises:
        BusflowError: it gives no such maps.
    """
    side = 2 * STRIDES[-1]
    try:
        with torch.device("meta"):
            maps = TimmFeatures(name)(torch.empty(1, 3, side, side))
        strides = [side // each.shape[-1] for each in maps]
    except Exception as error:  # whatever timm raises of a network that is none
        raise BusflowError(f"timm's {name} is no backbone: {error}; choose another") from error
    if strides != STRIDES:
        raise BusflowError(f"timm's {name} has features at strides {strides}, not {STRIDES}; choose another")
    return [each.shape[1] for each in maps]


def start_from(path: Path, *backbones: BaseModule, **naming: object) -> None:
    """Load the pretrained weights of a file into backbones, whose ``init_weights`` then draws none anew.

    Args:
        path: of the file.
        backbones: of one kind.
        naming: arguments of ``load_pretrained`` for those that are not timm's.

    Raises:
        BusflowError: the file is broken, or another network's.
    """
    tensors = read_tensors(path)
    for backbone in backbones:
        if isinstance(backbone, TimmFeatures):
            backbone.load_pretrained(tensors, path)
        else:
            load_pretrained(backbone, tensors, path, **naming)
        backbone.is_init = True


def learning_rate_scale(
    network: nn.Module,
    place: Callable[[str, int], int],
    layer_decay: float = 1.0,
    backbone: float = 1.0,
    head: float = 1.0,
) -> Callable[[str], float]:
    """Factor on the learning rate of a network's parameter, by the parameter's name.

    Args:
        network: of mmdet or mmseg; with a ``layer_decay`` its backbone is one of timm's ConvNeXts.
        place: of a parameter among the layers of a ConvNeXt, by the name that mmpretrain gives it and the
            number of the layers: 0 for the stem, one more than there are layers outside of the backbone.
        layer_decay: factor for each layer from a parameter's own to the end of the backbone (Bao et al.,
            BEiT, ICLR 2022; Liu et al., ConvNeXt, CVPR 2022).
        backbone: further factor for all of the backbone.
        head: factor for everything else.
    """
    layers = convnext_layers(network.backbone) if layer_decay != 1 else 0

    def scale(name: str) -> float:
        if not BACKBONE.match(name):
            return head
        if layer_decay == 1:
            return backbone
        return backbone * layer_decay ** (layers + 1 - place(mmpretrain_name(name), layers))

    return scale


def convnext_layers(backbone: TimmFeatures) -> int:
    """Layers that a ConvNeXt's learning rates are told apart by: 6 of a Tiny, 12 of a Small or larger one.

    As its authors count them, after the stem: the first two stages, each three blocks of the third, the last.
    """
    return 3 + math.ceil(len(backbone.network.stages_2.blocks) / 3)


def mmpretrain_name(name: str) -> str:
    """What mmpretrain calls a parameter of a ConvNeXt in ``TimmFeatures``, as far as its layer goes."""
    name = name.replace("network.stem_", "downsample_layers.0.")
    name = re.sub(r"network\.stages_(\d)\.downsample", r"downsample_layers.\1", name)
    return re.sub(r"network\.stages_(\d)\.blocks", r"stages.\1", name)
