"""The seven segmenters: mmseg's configurations with the study's changes, their losses and their sizes."""

import subprocess

import mmpretrain.models  # noqa: F401  (mmseg's published UPerNet takes its ConvNeXt from there)
import mmseg
import numpy as np
import pytest
import torch
from mmengine.config import ConfigDict
from mmengine.registry import DefaultScope
from mmengine.structures import PixelData
from mmseg.models import DiceLoss
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample
from torch.nn import functional

from busflow.errors import BusflowError
from busflow.models.published import published_model
from busflow.models.segmenters import (
    LesionDice,
    Segmenter,
    build_network,
    segmenter_config,
)

SEGFORMER = {
    "segmenter": "segformer",
    "backbone": "b0",
    "drop_path": 0.1,
    "auxiliary_weight": 0.4,
    "balance_classes": True,
}
UPERNET = SEGFORMER | {"segmenter": "upernet", "backbone": "convnext_atto"}
ALL_MLP = SEGFORMER | {"backbone": "tf_efficientnet_lite0"}  # SegFormer's head on another backbone
SEVEN = [SEGFORMER | {"backbone": f"b{k}"} for k in range(5)] + [
    UPERNET | {"backbone": f"convnext_{size}"} for size in ("tiny", "small")
]
# Millions: SegFormer's encoders in Table 1 of Xie et al., 2021; UPerNets in Table 4 of Liu et al., CVPR 2022.
PRINTED = {
    "b0": 3.4,
    "b1": 13.1,
    "b2": 24.2,
    "b3": 44.0,
    "b4": 60.8,
    "convnext_tiny": 60,
    "convnext_small": 82,
}


def name_of(settings: dict) -> str:
    return settings["backbone"]


def published(settings: dict) -> ConfigDict:
    """mmseg's own configuration on ADE20K, by the path under which it is published."""
    name = settings["backbone"]
    path = (
        f"convnext/{name.replace('_', '-')}_upernet_8xb2-amp-160k_ade20k-512x512.py"
        if settings["segmenter"] == "upernet"
        else f"segformer/segformer_mit-{name}_8xb2-160k_ade20k-512x512.py"
    )
    return published_model(mmseg, path)


def size(module: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def segmenter(settings: dict) -> Segmenter:
    torch.manual_seed(0)
    network = build_network(settings)
    network.init_weights()
    return Segmenter(network)


def batch(*classes: int, side: int = 64) -> dict:
    """One noise image for each class, which fills a quarter of it; the lowest eighth is padding."""
    generator = torch.Generator().manual_seed(0)
    masks = torch.zeros(len(classes), 1, side, side, dtype=torch.uint8)
    for mask, k in zip(masks, classes, strict=True):
        mask[:, side // 4 : 3 * side // 4, side // 4 : 3 * side // 4] = k
    masks[:, :, -side // 8 :] = 255
    return {
        "images": torch.randint(0, 256, masks.shape, generator=generator).to(torch.uint8),
        "masks": masks,
        "samples": torch.arange(len(classes)),
    }


def losses_of(model: Segmenter, data: dict) -> dict[str, torch.Tensor]:
    return model.train()(**model.data_preprocessor(data, training=True), mode="loss")


@pytest.mark.parametrize("settings", SEVEN, ids=name_of)
def test_a_segmenter_is_as_large_as_published(settings):
    network, config = build_network(settings), published(settings)
    config.data_preprocessor = None
    with DefaultScope.overwrite_default_scope("mmseg"):
        reference = MODELS.build(config)
    heads = [reference.decode_head, *([reference.auxiliary_head] if reference.with_auxiliary_head else [])]
    fewer_classes = sum((150 - 3) * (head.channels + 1) for head in heads)
    assert size(network) == size(reference) - fewer_classes
    printed = size(reference) if settings["segmenter"] == "upernet" else size(reference.backbone)
    assert printed / 1e6 == pytest.approx(PRINTED[settings["backbone"]], rel=0.01, abs=0.1)


def test_building_a_segmenter_installs_nothing(monkeypatch):
    """mmengine's ``get_config`` calls pip when it looks for mmseg under another distribution's name."""

    def refuse(*arguments, **options):
        raise AssertionError(f"a process was started: {arguments}")

    monkeypatch.setattr(subprocess, "Popen", refuse)
    build_network(SEGFORMER)
    build_network(UPERNET)


@pytest.mark.parametrize("settings", [SEGFORMER, UPERNET, ALL_MLP], ids=name_of)
@pytest.mark.parametrize("side", [64, 96])
def test_logits_have_the_size_of_the_image(settings, side):
    model = segmenter(settings).eval()
    with torch.inference_mode():
        data = model.data_preprocessor(batch(0, 1, side=side))
        logits = model(**data)
        each = model(**data, mode="predict")
    assert logits.shape == (2, 3, side, side) and torch.isfinite(logits).all()
    for k, found in enumerate(each):
        assert torch.equal(found["logits"], logits[k]) and torch.equal(found["mask"], data["masks"][k, 0])


@pytest.mark.parametrize("settings", [SEGFORMER, UPERNET, ALL_MLP], ids=name_of)
@pytest.mark.parametrize("classes", [(1, 2, 0), (0, 0)], ids=["some lesions", "no lesion"])
def test_a_segmenter_learns_from_images_with_and_without_lesions(settings, classes):
    model = segmenter(settings)
    loss, _ = model.parse_losses(losses_of(model, batch(*classes)))
    loss.backward()
    assert torch.isfinite(loss) and loss > 0
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    assert gradients and all(torch.isfinite(gradient).all() for gradient in gradients)


@pytest.mark.parametrize(
    ("settings", "balance", "expected"),
    [
        (SEGFORMER, False, {"decode.loss_ce"}),
        (SEGFORMER, True, {"decode.loss_ce", "decode.loss_dice"}),
        (UPERNET, False, {"decode.loss_ce", "aux.loss_ce"}),
        (UPERNET, True, {"decode.loss_ce", "decode.loss_dice", "aux.loss_ce", "aux.loss_dice"}),
        (UPERNET | {"auxiliary_weight": 0}, False, {"decode.loss_ce"}),
    ],
)
def test_plain_cross_entropy_unless_classes_are_balanced(settings, balance, expected):
    losses = losses_of(segmenter(settings | {"balance_classes": balance}), batch(1, 2))
    assert {name for name in losses if "loss" in name} == expected


def test_the_auxiliary_loss_has_its_weight():
    losses = [
        losses_of(segmenter(UPERNET | {"auxiliary_weight": weight}), batch(1, 2)) for weight in (0.4, 0.1)
    ]
    for name in ("aux.loss_ce", "aux.loss_dice"):
        assert losses[0][name].item() == pytest.approx(4 * losses[1][name].item())


@pytest.fixture
def logits() -> torch.Tensor:
    return torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(1), requires_grad=True)


@pytest.mark.parametrize("settings", [SEGFORMER, UPERNET], ids=name_of)
def test_padding_never_contributes_to_the_loss(settings, logits):
    masks = batch(1, 2)["masks"].long()
    samples = [SegDataSample(gt_sem_seg=PixelData(data=mask)) for mask in masks]
    network = build_network(settings)
    padding = (masks == 255).expand_as(logits)
    for head in [network.decode_head, *([network.auxiliary_head] if network.with_auxiliary_head else [])]:
        losses = head.loss_by_feat(logits, samples)
        (gradient,) = torch.autograd.grad(losses["loss_ce"] + losses["loss_dice"], logits)
        assert (gradient[padding] == 0).all() and (gradient[~padding] != 0).all()
        other = head.loss_by_feat(torch.where(padding, 9 * logits.flip(1), logits), samples)
        for name in ("loss_ce", "loss_dice"):
            assert other[name].item() == pytest.approx(losses[name].item(), rel=1e-6)


def test_the_losses_are_what_their_formulas_say(logits):
    masks = batch(1, 2)["masks"].long()
    samples = [SegDataSample(gt_sem_seg=PixelData(data=mask)) for mask in masks]
    losses = build_network(SEGFORMER).decode_head.loss_by_feat(logits, samples)
    expected = functional.cross_entropy(logits, masks[:, 0], ignore_index=255)
    assert losses["loss_ce"].item() == pytest.approx(expected.item(), rel=1e-6)

    dice = []
    for row, mask in zip(logits.detach().double().softmax(1).numpy(), masks[:, 0].numpy(), strict=True):
        counted = mask != 255
        share = np.stack([row[k][counted] for k in (1, 2)])
        truth = np.stack([mask[counted] == k for k in (1, 2)])
        dice.append(2 * (share * truth).sum() / ((share**2).sum() + truth.sum()))
    assert losses["loss_dice"].item() == pytest.approx(1 - np.mean(dice), rel=1e-4)


def test_mmsegs_own_dice_counts_what_is_predicted_on_ignored_pixels(logits):
    """The reason for LesionDice; when it goes, that can."""
    target = batch(1, 2)["masks"][:, 0].long()
    other = torch.where((target == 255).unsqueeze(1), 9 * logits, logits)
    own = DiceLoss(use_sigmoid=False)
    assert own(logits, target).item() != pytest.approx(own(other, target).item(), rel=1e-6)
    ours = LesionDice()
    assert ours(logits, target, 255).item() == pytest.approx(ours(other, target, 255).item(), rel=1e-6)


@pytest.mark.parametrize("settings", [SEVEN[2], SEVEN[5]], ids=name_of)
def test_a_segmenter_is_mmsegs_but_for_what_the_settings_name(settings):
    config, reference = segmenter_config(settings), published(settings)
    for name in ("decode_head", "auxiliary_head"):
        if name in reference:
            changed = {"num_classes", "norm_cfg", "loss_decode"}
            if settings["segmenter"] == "segformer":
                changed.add("type")  # which test_segformer_head holds against mmseg's
            assert {k: v for k, v in config[name].items() if k not in changed} == {
                k: v for k, v in reference[name].items() if k not in changed
            }
            assert config[name].norm_cfg == reference[name].norm_cfg | {"type": "BN"}
    if settings["segmenter"] == "segformer":
        assert config.backbone == reference.backbone | {"init_cfg": None, "drop_path_rate": 0.1}
    else:
        assert config.backbone == {
            "type": "TimmFeatures",
            "name": "convnext_tiny",
            "drop_path": 0.1,
        }


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            SEGFORMER | {"backbone": "b9"},
            r"b9: none of SegFormer's own \(b0, .*\), and timm has none",
        ),
        (UPERNET | {"backbone": "convnext_gigantic"}, "no backbone convnext_gigantic"),
    ],
)
def test_an_unknown_backbone_is_named(settings, message):
    with pytest.raises(BusflowError, match=message):
        segmenter_config(settings)


def test_segformers_smallest_head_takes_the_features_of_a_timm_network():
    config, reference = segmenter_config(ALL_MLP), segmenter_config(SEGFORMER)
    assert config.backbone == {"type": "TimmFeatures", "name": "tf_efficientnet_lite0", "drop_path": 0.1}
    assert config.decode_head == reference.decode_head | {"in_channels": [24, 40, 112, 320]}


def test_a_mix_transformer_starts_from_its_own_weights(tmp_path):
    source = segmenter(SEGFORMER).network.backbone
    torch.save({"state_dict": source.state_dict()}, tmp_path / "mit_b0.pth")
    torch.manual_seed(1)
    network = build_network(SEGFORMER, tmp_path / "mit_b0.pth")
    network.init_weights()  # what the Runner calls
    for name, parameter in source.named_parameters():
        assert torch.equal(parameter, network.backbone.get_parameter(name))


def test_weights_of_another_network_are_refused(tmp_path):
    torch.save(segmenter(SEGFORMER).network.backbone.state_dict(), tmp_path / "mit_b0.pth")
    with pytest.raises(
        BusflowError, match=r"mit_b0\.pth does not hold this network's weights \(\d+ of \d+ are"
    ):
        build_network(SEGFORMER | {"backbone": "b1"}, tmp_path / "mit_b0.pth")
    (tmp_path / "cut.pth").write_bytes((tmp_path / "mit_b0.pth").read_bytes()[:-1000])
    with pytest.raises(BusflowError, match=r"cut\.pth is no intact weights file"):
        build_network(SEGFORMER, tmp_path / "cut.pth")
