"""The seven detectors: mmdet's configurations with the study's changes, and their losses and predictions."""

import pytest
import timm
import torch
import yaml
from mmdet.models import RFP
from mmengine.hub import get_config

from busflow.errors import BusflowError
from busflow.models import detectors, targets
from busflow.models.detectors import (
    Detector,
    build_network,
    detector_config,
    prior_sides,
)
from busflow.models.recursive_swin import RecursiveSwin

CASCADE = {
    "detector": "cascade_rcnn",
    "backbone": "convnext_atto",
    "neck": "fpn",
    "assigner": "max_iou",
    "drop_path": 0.1,
    "anchor_scale": 4,
    "roi_samples": 16,
    "train_proposals": 30,
    "test_proposals": 20,
    "image_size": 64,
    "receptive_fields": "resnet50",
}
RFLA = CASCADE | {"assigner": "rfla", "prior_sides": [17.5, 45.5, 133.5, 213.5, 277.5]}
DETR = CASCADE | {"detector": "detr"}
GFL = CASCADE | {"detector": "gfl", "head_channels": 32}


def batch(*boxes: list) -> dict:
    """One 64 px image for each list of boxes."""
    images = torch.randint(0, 256, (len(boxes), 1, 64, 64), generator=torch.Generator().manual_seed(0))
    return {
        "images": images.to(torch.uint8),
        "boxes": [torch.tensor(each, dtype=torch.float).reshape(-1, 4) for each in boxes],
        "labels": [torch.arange(len(each)) % 2 for each in boxes],
        "samples": torch.arange(len(boxes)),
    }


def detector(settings: dict) -> Detector:
    torch.manual_seed(0)
    network = build_network(settings)
    network.init_weights()
    return Detector(network)


def loss_of(model: Detector, data: dict) -> torch.Tensor:
    losses = model.train()(**model.data_preprocessor(data, training=True), mode="loss")
    return model.parse_losses(losses)[0]


@pytest.mark.parametrize("settings", [CASCADE, RFLA, GFL, DETR], ids=["cascade", "rfla", "gfl", "detr"])
def test_a_detector_learns_from_images_with_and_without_boxes(settings):
    model = detector(settings)
    loss = loss_of(model, batch([[10, 10, 40, 30], [30, 30, 60, 60]], []))
    loss.backward()
    assert torch.isfinite(loss) and loss > 0
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    assert all(torch.isfinite(gradient).all() for gradient in gradients)
    assert torch.isfinite(loss_of(model, batch([], [])))


@pytest.mark.parametrize("settings", [CASCADE, RFLA, GFL, DETR], ids=["cascade", "rfla", "gfl", "detr"])
def test_detections_are_boxes_inside_the_image_with_scores_and_labels(settings):
    model = detector(settings).eval()
    with torch.inference_mode():
        found = model(**model.data_preprocessor(batch([[10, 10, 40, 30]], [])))
    assert len(found) == 2
    for each in found:
        assert each["boxes"].shape == (len(each["scores"]), 4) and len(each["scores"]) <= 100
        assert ((each["boxes"] >= 0) & (each["boxes"] <= 64)).all()
        assert ((each["scores"] >= 0) & (each["scores"] <= 1)).all()
        assert set(each["labels"].tolist()) <= {0, 1}


def test_a_detector_may_find_nothing():
    model = detector(CASCADE).eval()
    model.network.roi_head.test_cfg.score_thr = 1.1
    with torch.inference_mode():
        (found,) = model(**model.data_preprocessor(batch([[10, 10, 40, 30]])))
    assert found["boxes"].shape == (0, 4) and len(found["scores"]) == len(found["labels"]) == 0


@pytest.mark.parametrize("settings", [CASCADE, RFLA, GFL, DETR], ids=["cascade", "rfla", "gfl", "detr"])
def test_a_detector_is_built_without_reading_what_mmdet_says_of_its_models(settings, monkeypatch):
    """mmengine's ``get_config`` reads a hundred YAML files for it, which takes a second."""

    def refuse(*arguments, **options):
        raise AssertionError(f"YAML was read: {arguments}")

    monkeypatch.setattr(yaml, "load", refuse)
    build_network(settings)


def test_the_cascade_is_mmdets_but_for_what_the_settings_name():
    config = detector_config(CASCADE)
    published = get_config("mmdet::_base_/models/cascade-rcnn_r50_fpn.py").model
    targets.put_in(published)
    assert config.backbone == {
        "type": "TimmFeatures",
        "name": "convnext_atto",
        "drop_path": 0.1,
    }
    assert config.neck == published.neck | {"in_channels": [40, 80, 160, 320]}
    assert [head.num_classes for head in config.roi_head.bbox_head] == [2, 2, 2]
    assert [stage.sampler.num for stage in config.train_cfg.rcnn] == [16, 16, 16]
    assert [stage.assigner.pos_iou_thr for stage in config.train_cfg.rcnn] == [0.5, 0.6, 0.7]
    assert config.train_cfg.rpn_proposal.max_per_img == 30 and config.test_cfg.rpn.max_per_img == 20
    assert config.test_cfg.rcnn == published.test_cfg.rcnn
    assert config.rpn_head.anchor_generator == published.rpn_head.anchor_generator | {"scales": [4]}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_a_box_is_pooled_from_the_level_of_its_size_in_every_precision(dtype, monkeypatch):
    (extractor, *_) = build_network(CASCADE).roi_head.bbox_roi_extractor
    sides = torch.arange(200.0, 461.0)
    boxes = torch.stack([sides * 0, sides * 0, sides * 0, sides, sides], dim=1)
    features = [torch.zeros(1, 256, 8 >> level, 8 >> level, dtype=dtype) for level in range(4)]
    levels = []
    choose = type(extractor).map_roi_levels
    monkeypatch.setattr(
        type(extractor), "map_roi_levels", lambda *args: levels.append(choose(*args)) or levels[0]
    )
    with torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
        pooled = extractor(features, boxes)
    # Lin et al. 2017 (FPN), eq. 1: P2 up to a side of 112 px, and a level more for each doubling.
    assert levels[0].tolist() == [1 + int(side >= 224) + int(side >= 448) for side in sides]
    assert pooled.dtype == torch.float32 and pooled.shape == (len(sides), 256, 7, 7)


def test_gfl_is_as_published_but_for_what_the_settings_name():
    published, config = get_config("mmdet::gfl/gfl_r50_fpn_1x_coco.py").model, detector_config(GFL)
    targets.put_in(published)
    assert config.neck == published.neck | {"in_channels": [40, 80, 160, 320], "out_channels": 32}
    generator = published.bbox_head.anchor_generator | {"octave_base_scale": 4}
    narrow = {"num_classes": 2, "in_channels": 32, "feat_channels": 32, "anchor_generator": generator}
    assert config.bbox_head == published.bbox_head | narrow
    assert (config.train_cfg, config.test_cfg) == (published.train_cfg, published.test_cfg)
    as_published = detector_config(GFL | {"head_channels": 256, "anchor_scale": 8})
    assert as_published.bbox_head == published.bbox_head | {"num_classes": 2}


def test_rfla_changes_priors_and_assigner_of_the_proposals_alone():
    config, plain = detector_config(RFLA), detector_config(CASCADE)
    assert config.rpn_head.anchor_generator.base_sizes == RFLA["prior_sides"]
    assert config.train_cfg.rpn.assigner == {"type": "HierarchicalAssigner"}
    assert config.train_cfg.rpn.allowed_border == plain.train_cfg.rpn.allowed_border == 0
    assert config.roi_head == plain.roi_head and config.train_cfg.rcnn == plain.train_cfg.rcnn


def test_the_priors_are_half_of_a_resnets_receptive_fields_or_measured():
    assert prior_sides(RFLA) == [17.5, 45.5, 133.5, 213.5, 277.5]
    torch.manual_seed(0)
    measured = prior_sides(RFLA | {"receptive_fields": "measured"})
    assert len(measured) == 5 and all(0 < side <= 64 for side in measured)
    assert measured[0] < measured[2]


def test_detectors_is_a_recursive_pyramid_over_two_swin_bases():
    network = build_network(RFLA | {"backbone": "swin_base", "neck": "rfp"})
    assert isinstance(network.neck, RFP) and network.neck.rfp_steps == 2
    with torch.device("meta"):
        reference = timm.create_model("swin_base_patch4_window7_224", num_classes=0)
    size = sum(p.numel() for name, p in reference.named_parameters() if not name.startswith("norm"))
    for copy in (network.backbone, network.neck.rfp_modules[0]):
        assert isinstance(copy, RecursiveSwin)
        own = {name: p for name, p in copy.named_parameters() if not name.startswith(("norm", "rfp_convs"))}
        assert sum(p.numel() for p in own.values()) == size


def test_over_a_plain_pyramid_swin_is_mmdets():
    config = detector_config(CASCADE | {"backbone": "swin_base"})
    assert config.backbone.type == "SwinTransformer" and config.neck.type == "FPN"
    assert config.neck.in_channels == [128, 256, 512, 1024]


def test_detr_is_as_published_but_for_the_classes():
    published = get_config("mmdet::detr/detr_r50_8xb2-150e_coco.py").model
    config = detector_config(DETR, pretrained=True)
    config.backbone.init_cfg, config.data_preprocessor = (
        published.backbone.init_cfg,
        published.data_preprocessor,
    )
    config.bbox_head.update(num_classes=80, type=published.bbox_head.type)
    assert config == published


def test_without_pretrained_weights_nothing_of_detrs_backbone_is_frozen():
    network = detector(DETR).network.train()
    assert all(parameter.requires_grad for parameter in network.backbone.parameters())
    assert all(module.training for module in network.backbone.modules())


def test_an_unknown_backbone_is_named():
    with pytest.raises(BusflowError, match="no backbone convnext_gigantic"):
        detector_config(CASCADE | {"backbone": "convnext_gigantic"})


def test_the_recursive_pyramid_refuses_other_backbones():
    with pytest.raises(BusflowError, match="neck rfp takes the backbones swin_base, not convnext_atto"):
        detector_config(CASCADE | {"neck": "rfp"})


SMALL_SWIN = {"embed_dims": 24, "depths": [1, 1, 1, 1], "num_heads": [1, 2, 4, 8], "window_size": 7}


def as_published(swin: torch.nn.Module) -> dict:
    """A Swin's weights by the names that its authors give them; they have no norm of each stage."""
    renamings = [
        ("stages", "layers"),
        ("projection", "proj"),
        ("attn.w_msa", "attn"),
        ("ffn.layers.0.0", "mlp.fc1"),
        ("ffn.layers.1", "mlp.fc2"),
    ]

    def published(name: str) -> str:
        for ours, theirs in renamings:
            name = name.replace(ours, theirs)
        return name

    weights = swin.state_dict().items()
    return {"model": {published(name): each for name, each in weights if not name.startswith("norm")}}


def test_a_detector_starts_from_its_backbones_published_weights_and_from_no_others(tmp_path, monkeypatch):
    monkeypatch.setitem(detectors.SWINS, "swin_base", SMALL_SWIN)
    settings = CASCADE | {"backbone": "swin_base"}
    torch.save(as_published(detector(settings).network.backbone), tmp_path / "swin.pth")
    torch.save(detector(DETR).network.backbone.state_dict(), tmp_path / "resnet50.pth")
    for mine, own, other in ((settings, "swin", "resnet50"), (DETR, "resnet50", "swin")):
        build_network(mine, tmp_path / f"{own}.pth").init_weights()
        with pytest.raises(BusflowError, match=rf"{other}\.pth does not hold this network's weights"):
            build_network(mine, tmp_path / f"{other}.pth")


def test_a_network_without_maps_at_the_four_strides_is_no_backbone():
    with pytest.raises(BusflowError, match="vit_tiny_patch16_224 is no backbone"):
        detector_config(CASCADE | {"backbone": "vit_tiny_patch16_224"})
