"""SegFormer's all-MLP head, whose layers are applied where the maps are small."""

import torch
from mmseg.models.decode_heads import SegformerHead
from mmseg.models.utils import resize
from mmseg.registry import MODELS
from torch.nn import functional


@MODELS.register_module()
class EarlyFusionHead(SegformerHead):
    """mmseg's ``SegformerHead`` (Xie et al., NeurIPS 2021, section 3.2), which fuses before it upsamples.

    The fusing layer is linear over channels and the upsampling over positions, so their order does not
    matter but for rounding: each map meets its part of the layer's weights at its own size, and the sum of
    the upsampled maps is what the layer makes of all of them side by side. Of four maps three are small:
    the layer takes a third of the work, and no map of all channels is kept for the gradients. Parameters
    and their names are mmseg's.
    """

    def forward(self, inputs: list[torch.Tensor]) -> torch.Tensor:
        """Logits [B, K, H, W] of maps [B, C, H, W], the first of which is the largest."""
        maps = self._transform_inputs(inputs)
        fusion = self.fusion_conv
        parts = fusion.conv.weight.split(self.channels, dim=1)
        fused = [
            functional.conv2d(conv(each), part)
            for each, conv, part in zip(maps, self.convs, parts, strict=True)
        ]
        total = sum((self._upsampled(each, fused[0]) for each in fused[1:]), start=fused[0])
        return self.cls_seg(fusion.activate(fusion.norm(total)))

    def _upsampled(self, each: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
        return resize(each, like.shape[2:], mode=self.interpolate_mode, align_corners=self.align_corners)
