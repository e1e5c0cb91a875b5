"""Pooling of proposals in single precision, whatever the precision of the training."""

import torch
from mmdet.models.roi_heads.roi_extractors import SingleRoIExtractor
from mmdet.registry import MODELS


@MODELS.register_module()
class FloatRoIExtractor(SingleRoIExtractor):
    """mmdet's extractor, but for mixed precision and any memory layout.

    mmdet gives the boxes the type of the features. In half precision an area above 65,504 square pixels (a
    side of 256) is infinite, and its box is pooled from the coarsest level; bfloat16 moves boxes by pixels.
    From channels-last features mmcv's compiled operator pools wrong values without a word
    (open-mmlab/mmcv#2203).
    """

    def forward(
        self, feats: tuple[torch.Tensor, ...], rois: torch.Tensor, roi_scale_factor: float | None = None
    ) -> torch.Tensor:
        """Features float32 [R, C, 7, 7] of the boxes ``rois`` [R, 5] (image, left, top, right, bottom)."""
        levels = [level.float().contiguous() for level in feats]
        with torch.autocast(feats[0].device.type, enabled=False):
            return super().forward(levels, rois.float(), roi_scale_factor)
