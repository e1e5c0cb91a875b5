"""timm networks as backbones for mmdet and mmseg, and the learning rates of backbones."""

import re
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

# Parameters of a backbone, which an RFP has more than one of, and of its stem and stages.
BACKBONE = re.compile(r"(backbone|neck\.rfp_modules\.\d+)\.")
STEM = re.compile(BACKBONE.pattern + r"(network\.)?(stem|patch_embed|conv1|bn1)")
# Stages count from 0 in ConvNeXt and Swin (stages) and in SegFormer (layers), from 1 in ResNet (layer).
STAGE = re.compile(
    BACKBONE.pattern + r"(network\.)?((stages[._]|layers\.)(?P<from_0>\d)|layer(?P<from_1>\d))"
)
STAGES = 4
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
    name: str, backbone: float = 1.0, layer_decay: float = 1.0, head: float = 1.0
) -> float:
    """Factor on the learning rate of a network's parameter.

    Args:
        name: of the parameter.
        backbone: factor for all of the backbone.
        layer_decay: further factor for each of its stages, from the last to the one that the parameter
            is in (Bao et al., BEiT, ICLR 2022, by stages as in ConvNeXt's detectors); the stem counts as one.
        head: factor for everything else.
    """
    if not BACKBONE.match(name):
        return head
    if STEM.match(name):
        stages = STAGES + 1
    elif place := STAGE.match(name):
        stages = STAGES - (int(place["from_0"]) if place["from_0"] else int(place["from_1"]) - 1)
    else:
        stages = 0
    return backbone * layer_decay**stages
