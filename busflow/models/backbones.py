"""timm networks as backbones for mmdet and mmseg, and the learning rates of backbones."""

import re
from collections.abc import Callable
from pathlib import Path

import timm
import torch
from mmengine.model import BaseModule
from mmengine.registry import MODELS
from mmengine.runner.checkpoint import CheckpointLoader
from timm.layers import LayerNorm2d
from torch import nn

from busflow.errors import BusflowError

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
        weights: file of pretrained weights, head included or not; None: from scratch.
    """

    def __init__(self, name: str, drop_path: float = 0.0, weights: str | None = None):
        super().__init__()
        pretrained = {"pretrained": True, "pretrained_cfg_overlay": {"file": weights}} if weights else {}
        self.network = timm.create_model(
            name, features_only=True, out_indices=(-4, -3, -2, -1), drop_path_rate=drop_path, **pretrained
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


def check_weights(
    path: Path, backbone: BaseModule, renamed: Callable[[dict], dict] = lambda weights: weights, new: str = ""
) -> None:
    """See that a file holds a backbone's weights.

    mmengine takes what fits and only logs the rest: with a foreign file a network would train from scratch.

    Args:
        path: of the file.
        backbone: that will load it.
        renamed: maps the file's tensors to the backbone's names, perhaps behind "backbone.".
        new: the beginning of the names that no such file has.

    Raises:
        BusflowError: the file is broken, or another network's.
    """
    try:
        loaded = CheckpointLoader.load_checkpoint(str(path), map_location="cpu")
        tensors = renamed(loaded.get("state_dict", loaded.get("model", loaded)))
        shapes = {name.removeprefix("backbone."): tensor.shape for name, tensor in tensors.items()}
    except Exception as error:  # whatever a broken file makes torch raise
        raise BusflowError(f"{path} is no intact weights file ({error}); fetch it again") from error
    expected = {
        name: tensor.shape
        for name, tensor in backbone.state_dict().items()
        if not (new and name.startswith(new))
    }
    unlike = [name for name, shape in expected.items() if shapes.get(name) != shape]
    if unlike:
        raise BusflowError(
            f"{path} does not hold this backbone's weights ({len(unlike)} are missing or of another shape, "
            f"the first: {unlike[0]}); take the file that was published for it"
        )


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
