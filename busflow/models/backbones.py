"""timm networks as backbones for mmdet and mmseg."""

import timm
import torch
from mmengine.model import BaseModule
from mmengine.registry import MODELS
from timm.layers import LayerNorm2d
from torch import nn


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
