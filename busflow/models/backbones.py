"""timm networks as backbones for mmdet and mmseg, and the learning rates of backbones."""

import re

import timm
import torch
from mmengine.model import BaseModule
from mmengine.registry import MODELS
from timm.layers import LayerNorm2d
from torch import nn

# Parameters of a backbone, which an RFP has more than one of, and of its stem and stages.
BACKBONE = re.compile(r"(backbone|neck\.rfp_modules\.\d+)\.")
STAGE = re.compile(BACKBONE.pattern + r"(network\.)?(stem|patch_embed|stages[._](?P<stage>\d))")
STAGES = 4


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
    place = STAGE.match(name)
    stages = 0 if place is None else STAGES - int(place["stage"] or -1)
    return backbone * layer_decay**stages
