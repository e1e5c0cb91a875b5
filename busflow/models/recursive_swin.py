"""A Swin Transformer that takes the features of mmdet's recursive feature pyramid (RFP).

DetectoRS (Qiao et al., CVPR 2021) runs its backbone twice: the second copy also sees the pyramid that
came out of the first. mmdet has this for ResNet only. Here, as there, every stage but the first adds its
level of the pyramid to the output of its first block.
"""

import torch
from mmdet.models.backbones.swin import SwinTransformer, swin_converter
from mmdet.registry import MODELS
from torch import nn


def _swin_names(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name.removeprefix("backbone."): each for name, each in swin_converter(tensors).items()}


# How weights lie in the authors' file of a Swin: a classifier has no norms of its stages' outputs.
SWIN_FILE = {"renamed": _swin_names, "new": ("norm", "rfp_convs")}


@MODELS.register_module()
class RecursiveSwin(SwinTransformer):
    """mmdet's SwinTransformer for both passes of an RFP; weights of the plain network load into either.

    Args:
        rfp_inplanes: channels of the pyramid, for the second copy; None: the first, which takes none.
        output_img: return the image before the features, which is what the RFP wants of the first copy.
        **swin: arguments of ``SwinTransformer``.
    """

    def __init__(self, rfp_inplanes: int | None = None, output_img: bool = False, **swin):
        super().__init__(**swin)
        self.output_img = output_img
        if rfp_inplanes is not None:
            self.rfp_convs = nn.ModuleList(
                nn.Conv2d(rfp_inplanes, channels, kernel_size=1) for channels in self.num_features[1:]
            )

    def init_weights(self) -> None:
        """As the plain network; the pyramid's ways in start at zero, so that at first they add nothing."""
        if not self.is_init:  # else its weights were loaded, which an RFP does not heed
            super().init_weights()
        if hasattr(self, "rfp_convs"):
            for parameter in self.rfp_convs.parameters():
                nn.init.zeros_(parameter)

    def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """[B, 3, H, W] to maps [B, C_i, H / s_i, W / s_i] at strides 4, 8, 16 and 32."""
        features = tuple(super().forward(image))
        return (image, *features) if self.output_img else features

    def rfp_forward(self, image: torch.Tensor, pyramid: list[torch.Tensor]) -> tuple[torch.Tensor, ...]:
        """The same with the pyramid taken in; its level i is [B, rfp_inplanes, H / s_i, W / s_i]."""
        x, size = self.patch_embed(image)
        x = self.drop_after_pos(x)
        features = []
        for i, stage in enumerate(self.stages):
            x = stage.blocks[0](x, size)
            if i > 0:
                x = x + self.rfp_convs[i - 1](pyramid[i]).flatten(2).transpose(1, 2)
            for block in stage.blocks[1:]:
                x = block(x, size)
            feature = getattr(self, f"norm{i}")(x)
            features.append(feature.transpose(1, 2).unflatten(2, size).contiguous())
            if stage.downsample is not None:
                x, size = stage.downsample(x, size)
        return tuple(features)
