"""The study's detectors: mmdet's own configurations, changed where the registry says so."""

from collections.abc import Callable
from pathlib import Path

import mmdet
import torch
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample
from mmengine.config import ConfigDict
from mmengine.model import BaseDataPreprocessor, BaseModel
from mmengine.registry import DefaultScope
from mmengine.structures import InstanceData

from busflow.errors import BusflowError
from busflow.labels import LESIONS
from busflow.models import (
    backbones,
    detr_head,  # noqa: F401  (registers its class)
    recursive_swin,
    rfla,
    roi_extractor,  # noqa: F401  (the same)
    targets,
)
from busflow.models.classifier import is_network
from busflow.models.inputs import IMAGENET_MEAN, IMAGENET_STD, to_float, to_network
from busflow.models.published import published_model
from busflow.models.rules import is_among, is_count, is_positive, is_rate, picked

SWINS = {
    "swin_base": {"embed_dims": 128, "depths": [2, 2, 18, 2], "num_heads": [4, 8, 16, 32], "window_size": 7}
}
NECKS = {
    "fpn": "_base_/models/cascade-rcnn_r50_fpn.py",
    "rfp": "detectors/cascade-rcnn_r50-rfp_1x_coco.py",
}
GFL = "gfl/gfl_r50_fpn_1x_coco.py"


class DetectorInput(BaseDataPreprocessor):
    """Move a batch to the device; augment it in training; normalise it; wrap the boxes for mmdet.

    Args:
        augmentation: maps images, boxes, labels and sample positions of a batch to new images, boxes, labels.
    """

    def __init__(self, augmentation: Callable | None = None):
        super().__init__(non_blocking=True)
        self.augmentation = augmentation

    def forward(self, data: dict, training: bool = False) -> dict:
        data = self.cast_data(data)
        images, boxes, labels = to_float(data["images"]), data["boxes"], data["labels"]
        if training and self.augmentation is not None:
            images, boxes, labels = self.augmentation(images, boxes, labels, data["samples"])
        shape = tuple(images.shape[-2:])
        meta = dict.fromkeys(("ori_shape", "img_shape", "pad_shape", "batch_input_shape"), shape)
        samples = [
            DetDataSample(
                metainfo={**meta, "scale_factor": (1.0, 1.0)}, gt_instances=InstanceData(bboxes=b, labels=k)
            )
            for b, k in zip(boxes, labels, strict=True)
        ]
        return {"inputs": to_network(images, IMAGENET_MEAN, IMAGENET_STD), "data_samples": samples}


class Detector(BaseModel):
    """Training and prediction around one of mmdet's detectors.

    Args:
        network: an mmdet detector.
        augmentation: of training batches (see ``DetectorInput``).
    """

    def __init__(self, network: BaseModel, augmentation: Callable | None = None):
        super().__init__(data_preprocessor=DetectorInput(augmentation))
        self.network = network

    def forward(
        self, inputs: torch.Tensor, data_samples: list[DetDataSample], mode: str = "predict"
    ) -> dict[str, torch.Tensor] | list[dict[str, torch.Tensor]]:
        """The network's losses ("loss"), or each image's detections ("predict").

        Detections are ``boxes`` [D, 4] as left, top, right, bottom in input pixels, ``scores`` [D] in [0, 1]
        and ``labels`` [D], positions in ``LESIONS``.
        """
        if mode == "loss":
            return self.network(inputs, data_samples, mode)
        # Never in half precision: bf16 puts the sides of boxes on a grid of 4 px, and ties many scores.
        with torch.autocast(inputs.device.type, enabled=False):
            found = self.network(inputs, data_samples, mode)
        return [
            {"boxes": each.bboxes, "scores": each.scores, "labels": each.labels}
            for each in (sample.pred_instances for sample in found)
        ]


def detector_config(settings: dict, pretrained: bool = False) -> ConfigDict:
    """mmdet's configuration of a registry entry's detector.

    Args:
        settings: ``detector`` (cascade_rcnn, gfl or detr) and, but for DETR, ``backbone`` (swin_base, or one
            for ``TimmFeatures``) and ``drop_path``. For a Cascade R-CNN ``neck`` (fpn or rfp), ``assigner``
            (max_iou or rfla), ``roi_samples``, ``train_proposals``, ``test_proposals``, and
            ``anchor_scale`` (max_iou) or ``prior_sides`` (rfla, see ``prior_sides``). For GFL
            ``anchor_scale`` and ``head_channels``.
        pretrained: the backbone starts from given weights, not from scratch.

    Raises:
        BusflowError: there is no such backbone, or it does not go with the neck.
    """
    config = BUILDERS[settings["detector"]](settings, pretrained)
    config.data_preprocessor = None  # Detector has its own
    targets.put_in(config)
    return config


def build_network(settings: dict, pretrained: Path | None = None) -> BaseModel:
    """The mmdet detector of ``detector_config``, its weights not yet initialised but for pretrained ones.

    Args:
        settings: as there.
        pretrained: file of the backbone's weights; None: from scratch.

    Raises:
        BusflowError: as there, or the pretrained weights are another network's.
    """
    # Another scope may be left over from a Runner of this process.
    with DefaultScope.overwrite_default_scope("mmdet"):
        network = MODELS.build(detector_config(settings, pretrained is not None))
    if pretrained:
        copies = getattr(network.neck, "rfp_modules", ())  # of the backbone, in a recursive pyramid
        naming = recursive_swin.SWIN_FILE if settings.get("backbone") in SWINS else {}
        backbones.start_from(pretrained, network.backbone, *copies, **naming)
    return network


def shaping(settings: dict) -> dict:
    """Those of the settings that shape the network, if it can be built from them.

    Raises:
        ValueError: one is missing or no value of its kind; the message names it.
    """
    if settings.get("detector") == "detr":
        return {"detector": "detr"}
    rules = {
        "detector": is_among("cascade_rcnn", "gfl"),
        "backbone": lambda value: value in tuple(SWINS) or is_network(value),
        "drop_path": is_rate,
    }
    if settings.get("detector") == "gfl":
        return picked(settings, rules | {"anchor_scale": is_positive, "head_channels": is_count})
    rules |= {
        "neck": is_among(*NECKS),
        "assigner": is_among("max_iou", "rfla"),
        **dict.fromkeys(("roi_samples", "train_proposals", "test_proposals"), is_count),
    }
    if settings.get("assigner") == "rfla":
        rules["prior_sides"] = lambda value: (
            isinstance(value, list) and len(value) == 5 and all(map(is_positive, value))
        )
    else:
        rules["anchor_scale"] = is_positive
    return picked(settings, rules)


def prior_sides(settings: dict, pretrained: Path | None = None) -> list[float]:
    """Sides in pixels of RFLA's priors on the levels P2 to P6: the effective receptive fields.

    Args:
        settings: those of ``detector_config``, ``image_size``, and ``receptive_fields``: resnet50, half of a
            ResNet-50's theoretical fields as RFLA has it, or measured, on the network itself.
        pretrained: the backbone's weights.
    """
    sides = [field / 2 for field in rfla.resnet50_receptive_fields()[:5]]
    if settings["receptive_fields"] == "resnet50":
        return sides
    network = build_network({**settings, "prior_sides": sides}, pretrained)
    network.init_weights()
    return rfla.effective_receptive_fields(network.eval().extract_feat, (settings["image_size"],) * 2)


def layer_place(name: str, layers: int) -> int:
    """Place of a parameter (see ``backbones.learning_rate_scale``) in mmdet's recipe for ConvNeXts."""
    # Imported here: mmdet's datasets come with it and take a second, which predictions need not wait for.
    from mmdet.engine.optimizers.layer_decay_optimizer_constructor import get_layer_id_for_convnext

    return get_layer_id_for_convnext(name, layers)


def _cascade_rcnn(settings: dict, pretrained: bool) -> ConfigDict:
    """Cascade R-CNN (Cai & Vasconcelos, CVPR 2018) with a feature pyramid."""
    config = published_model(mmdet, NECKS[settings["neck"]])
    config.backbone, config.neck.in_channels = _backbone(settings)
    if settings["neck"] == "rfp":
        if config.backbone.type != "SwinTransformer":
            raise BusflowError(f"neck rfp takes the backbones {', '.join(SWINS)}, not {settings['backbone']}")
        config.neck.rfp_backbone = {
            **config.backbone,
            "type": "RecursiveSwin",
            "rfp_inplanes": config.neck.out_channels,
        }
        config.backbone.update(type="RecursiveSwin", output_img=True)
    config.roi_head.bbox_roi_extractor.type = "FloatRoIExtractor"
    if settings["assigner"] == "rfla":
        config.rpn_head.anchor_generator = rfla.receptive_field_priors(settings["prior_sides"])
        config.train_cfg.rpn.assigner = {"type": "HierarchicalAssigner"}
    else:
        config.rpn_head.anchor_generator.scales = [settings["anchor_scale"]]
    _limit_proposals(config.train_cfg.rpn_proposal, settings["train_proposals"])
    _limit_proposals(config.test_cfg.rpn, settings["test_proposals"])
    for head, stage in zip(config.roi_head.bbox_head, config.train_cfg.rcnn, strict=True):
        head.num_classes = len(LESIONS)
        stage.sampler.num = settings["roi_samples"]
    return config


def _gfl(settings: dict, pretrained: bool) -> ConfigDict:
    """Generalised Focal Loss (Li et al., NeurIPS 2020): one stage, and a fraction of a Cascade's cost.

    Neck and head have ``head_channels`` channels, 256 as published; narrow ones are for small machines.
    """
    config = published_model(mmdet, GFL)
    config.backbone, config.neck.in_channels = _backbone(settings)
    head = config.bbox_head
    config.neck.out_channels = head.in_channels = head.feat_channels = settings["head_channels"]
    head.num_classes = len(LESIONS)
    head.anchor_generator.octave_base_scale = settings["anchor_scale"]
    return config


def _limit_proposals(stage: ConfigDict, number: int) -> None:
    stage.update(nms_pre=number, max_per_img=number)


def _backbone(settings: dict) -> tuple[ConfigDict, list[int]]:
    """A backbone's config and its channels."""
    name, drop_path = settings["backbone"], settings["drop_path"]
    if name in SWINS:
        swin = SWINS[name]
        config = ConfigDict(type="SwinTransformer", drop_path_rate=drop_path, **swin)
        return config, [swin["embed_dims"] * 2**i for i in range(len(swin["depths"]))]
    if not is_network(name):
        raise BusflowError(f"there is no backbone {name}: it is none of {', '.join(SWINS)} and timm has none")
    channels = backbones.feature_channels(name)
    return ConfigDict(type="TimmFeatures", name=name, drop_path=drop_path), channels


def _detr(settings: dict, pretrained: bool) -> ConfigDict:
    """DETR with ResNet-50 as published (Carion et al., ECCV 2020)."""
    config = published_model(mmdet, "detr/detr_r50_8xb2-150e_coco.py")
    config.bbox_head.update(type="BatchedDETRHead", num_classes=len(LESIONS))
    config.backbone.init_cfg = None  # as published it would be fetched
    if not pretrained:
        # Frozen layers and statistics only make sense where there is something to keep.
        config.backbone.update(
            frozen_stages=-1, norm_eval=False, norm_cfg={"type": "BN", "requires_grad": True}
        )
    return config


BUILDERS = {"cascade_rcnn": _cascade_rcnn, "gfl": _gfl, "detr": _detr}
