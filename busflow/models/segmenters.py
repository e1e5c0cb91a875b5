"""The study's segmenters: mmseg's own configurations, changed where the registry says so."""

from collections.abc import Callable
from pathlib import Path

import mmseg
import torch
from mmengine.config import ConfigDict
from mmengine.model import BaseDataPreprocessor, BaseModel
from mmengine.registry import DefaultScope
from mmseg.models import DiceLoss
from mmseg.models.utils import resize
from mmseg.registry import MODELS
from torch.nn import functional

from busflow.data.masks import CLASSES
from busflow.errors import BusflowError
from busflow.models import segformer_head  # noqa: F401  (registers its class)
from busflow.models.backbones import feature_channels, start_from
from busflow.models.classifier import is_network
from busflow.models.inputs import IMAGENET_MEAN, IMAGENET_STD, to_float, to_network
from busflow.models.published import published_model
from busflow.models.rules import is_among, is_flag, is_number, is_rate, picked

UPERNET = "_base_/models/upernet_convnext.py"
SEGFORMER = "segformer/segformer_mit-{}_8xb2-160k_ade20k-512x512.py"
MIX_TRANSFORMERS = ("b0", "b1", "b2", "b3", "b4")
LESION_CLASSES = slice(CLASSES.index("background") + 1, None)


@MODELS.register_module()
class LesionDice(DiceLoss):
    """Dice loss of each image's lesion classes together (Milletari et al., 3DV 2016), padding left out.

    What mmseg's own ignores is a class, by a mask that is copied to the GPU at each step; whatever is
    predicted on ignored pixels it counts as wrong. And with the background in it, a small lesion hardly
    matters.

    Args:
        loss_weight: factor on the loss.
    """

    def __init__(self, loss_weight: float = 1.0):
        super().__init__(activate=False, ignore_index=None, loss_weight=loss_weight)

    def forward(self, pred: torch.Tensor, target: torch.Tensor, ignore_index: int, **kwargs) -> torch.Tensor:
        """Mean over the images of logits [B, K, H, W] and classes [B, H, W]."""
        counted = (target != ignore_index).unsqueeze(1)
        found = pred.softmax(dim=1) * counted
        truth = functional.one_hot(target.where(target != ignore_index, 0), pred.shape[1]).movedim(-1, 1)
        return super().forward(found[:, LESION_CLASSES], truth[:, LESION_CLASSES], **kwargs)


class SegmenterInput(BaseDataPreprocessor):
    """Move a batch to the device; augment it in training; normalise it.

    Args:
        augmentation: maps images, masks and sample positions of a batch to new images and masks.
    """

    def __init__(self, augmentation: Callable | None = None):
        super().__init__(non_blocking=True)
        self.augmentation = augmentation

    def forward(self, data: dict, training: bool = False) -> dict:
        data = self.cast_data(data)
        images, masks = to_float(data["images"]), data.get("masks")
        if training and self.augmentation is not None:
            images, masks = self.augmentation(images, masks, data["samples"])
        return {
            "inputs": to_network(images, IMAGENET_MEAN, IMAGENET_STD),
            "masks": None if masks is None else masks.long(),
        }


class Segmenter(BaseModel):
    """Training and prediction around one of mmseg's segmentors.

    Args:
        network: an mmseg segmentor.
        augmentation: of training batches (see ``SegmenterInput``).
    """

    def __init__(self, network: BaseModel, augmentation: Callable | None = None):
        super().__init__(data_preprocessor=SegmenterInput(augmentation))
        self.network = network

    def forward(
        self, inputs: torch.Tensor, masks: torch.Tensor | None = None, mode: str = "tensor"
    ) -> torch.Tensor | dict[str, torch.Tensor] | list[dict[str, torch.Tensor]]:
        """Logits [B, K, S, S] ("tensor"), losses ("loss"), or {"logits", "mask"} of each image ("predict").

        Args:
            inputs: normalised images [B, 3, S, S].
            masks: classes int64 [B, 1, S, S], positions in ``CLASSES``, 255 where a pixel does not count.
            mode: of the three.
        """
        if mode == "loss":
            return self._losses(inputs, masks.squeeze(1))
        logits = self.network.encode_decode(inputs, [{"img_shape": inputs.shape[2:]}])
        if mode == "predict":
            return [{"logits": row, "mask": mask[0]} for row, mask in zip(logits, masks, strict=True)]
        return logits

    def _losses(self, inputs: torch.Tensor, truth: torch.Tensor) -> dict[str, torch.Tensor]:
        """Each head's losses, by mmseg's names; not its accuracy, for which a GPU is waited for each time."""
        network, losses = self.network, {}
        features = network.extract_feat(inputs)
        heads = {"decode": network.decode_head}
        if network.with_auxiliary_head:
            heads["aux"] = network.auxiliary_head
        for name, head in heads.items():
            logits = resize(
                head(features), truth.shape[1:], mode="bilinear", align_corners=head.align_corners
            )
            for loss in head.loss_decode:
                losses[f"{name}.{loss.loss_name}"] = loss(logits, truth, ignore_index=head.ignore_index)
        return losses


def segmenter_config(settings: dict) -> ConfigDict:
    """mmseg's configuration of a registry entry's segmenter.

    Args:
        settings: ``segmenter`` (upernet or segformer), ``backbone`` (one for ``TimmFeatures``; of a segformer
            also b0 to b4, its own), ``drop_path``, ``auxiliary_weight`` (of the loss of UPerNet's second
            head; 0: no such head) and ``balance_classes`` (Dice loss beside the cross-entropy).

    Raises:
        BusflowError: there is no such backbone.
    """
    config = {"upernet": _upernet, "segformer": _segformer}[settings["segmenter"]](settings)
    weights = {"decode_head": 1.0, "auxiliary_head": settings["auxiliary_weight"]}
    for name in weights.keys() & config.keys():
        head = config[name]
        head.num_classes = len(CLASSES)
        head.norm_cfg.type = "BN"  # published as SyncBN, which is the same on one device
        head.loss_decode = _losses(weights[name], settings["balance_classes"])
    config.data_preprocessor = None  # Segmenter has its own
    return config


def build_network(settings: dict, pretrained: Path | None = None) -> BaseModel:
    """The mmseg segmentor of ``segmenter_config``, its weights not yet initialised but for pretrained ones.

    Args:
        settings: as there.
        pretrained: file of the backbone's weights; None: from scratch.

    Raises:
        BusflowError: as there, or the pretrained weights are another network's.
    """
    # Another scope may be left over from a Runner of this process.
    with DefaultScope.overwrite_default_scope("mmseg"):
        network = MODELS.build(segmenter_config(settings))
    if pretrained:
        start_from(pretrained, network.backbone)
    return network


def shaping(settings: dict) -> dict:
    """Those of the settings that shape the network, if it can be built from them.

    Raises:
        ValueError: one is missing or no value of its kind; the message names it.
    """
    own = MIX_TRANSFORMERS if settings.get("segmenter") == "segformer" else ()
    rules = {
        "segmenter": is_among("upernet", "segformer"),
        "backbone": lambda value: value in own or is_network(value),
        "drop_path": is_rate,
        "auxiliary_weight": is_number,
        "balance_classes": is_flag,
    }
    return picked(settings, rules)


def stage_place(name: str, layers: int) -> int:
    """Place of a parameter (see ``backbones.learning_rate_scale``) in mmseg's recipe for ConvNeXts.

    The stages have the places 1 to 4 however many layers there are, what lies between them that of the stem.
    """
    # Imported here: mmseg's datasets come with it, which predictions need not wait for.
    from mmseg.engine.optimizers.layer_decay_optimizer_constructor import get_stage_id_for_convnext

    return get_stage_id_for_convnext(name, layers + 2)


def _upernet(settings: dict) -> ConfigDict:
    """UPerNet (Xiao et al., ECCV 2018) with mmseg's auxiliary FCN, over a timm backbone."""
    config = published_model(mmseg, UPERNET)
    config.backbone, channels = _timm_backbone(settings)
    config.decode_head.in_channels = channels
    if settings["auxiliary_weight"]:
        config.auxiliary_head.in_channels = channels[config.auxiliary_head.in_index]
    else:
        del config.auxiliary_head
    return config


def _segformer(settings: dict) -> ConfigDict:
    """SegFormer as published (Xie et al., NeurIPS 2021), or its smallest head over a timm backbone."""
    name = settings["backbone"]
    is_own = name in MIX_TRANSFORMERS
    config = published_model(mmseg, SEGFORMER.format(name if is_own else MIX_TRANSFORMERS[0]))
    config.decode_head.type = "EarlyFusionHead"
    if is_own:
        config.backbone.drop_path_rate = settings["drop_path"]
        config.backbone.init_cfg = None  # as published it would be fetched
    else:
        config.backbone, config.decode_head.in_channels = _timm_backbone(settings)
    return config


def _timm_backbone(settings: dict) -> tuple[ConfigDict, list[int]]:
    """A backbone's config and the channels of its four maps."""
    name, own = settings["backbone"], f"none of SegFormer's own ({', '.join(MIX_TRANSFORMERS)}), and "
    if not is_network(name):
        raise BusflowError(
            f"there is no backbone {name}: {own * (settings['segmenter'] == 'segformer')}timm has none"
        )
    return ConfigDict(type="TimmFeatures", name=name, drop_path=settings["drop_path"]), feature_channels(name)


def _losses(weight: float, balance_classes: bool) -> list[dict]:
    # Over the pixels that count: mmseg's default divides by those of the padding too.
    losses = [{"type": "CrossEntropyLoss", "avg_non_ignore": True, "loss_weight": weight}]
    if balance_classes:
        losses.append({"type": "LesionDice", "loss_weight": weight})
    return losses
