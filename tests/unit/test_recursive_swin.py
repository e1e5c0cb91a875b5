"""The recursive feature pyramid over a Swin Transformer."""

from pathlib import Path

import pytest
import torch
from mmdet.models import FPN, RFP, SwinTransformer
from mmengine.registry import DefaultScope

from busflow.models.backbones import start_from
from busflow.models.recursive_swin import SWIN_FILE, RecursiveSwin

SWIN = {"embed_dims": 8, "depths": (2, 2, 2, 2), "num_heads": (1, 2, 2, 4), "window_size": 3}
CHANNELS = [8, 16, 32, 64]
PYRAMID = 16
SIZES = ((18, 25), (9, 13), (5, 7), (3, 4))  # of the pyramid's levels


@pytest.fixture(autouse=True)
def scope():
    """mmdet's: a Runner of another test may have left its own."""
    with DefaultScope.overwrite_default_scope("mmdet"):
        yield


def pyramid_of_swin(weights: Path | None = None) -> tuple[RecursiveSwin, RFP]:
    backbone = RecursiveSwin(output_img=True, **SWIN)
    neck = RFP(
        rfp_steps=2,
        rfp_backbone={"type": "RecursiveSwin", "rfp_inplanes": PYRAMID, **SWIN},
        aspp_out_channels=PYRAMID // 4,
        in_channels=CHANNELS,
        out_channels=PYRAMID,
        num_outs=5,
    )
    if weights:
        start_from(weights, backbone, *neck.rfp_modules, **SWIN_FILE)
    else:
        backbone.init_weights()
    neck.init_weights()
    for module in (backbone, neck):
        module.eval()
    return backbone, neck


@pytest.fixture
def image() -> torch.Tensor:
    return torch.rand(2, 3, 72, 100, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def weights(tmp_path) -> Path:
    """Swin weights as its authors publish them."""
    torch.manual_seed(1)
    swin = SwinTransformer(**SWIN)
    swin.init_weights()
    renamed = {
        name.replace("stages", "layers")
        .replace("projection", "proj")
        .replace("attn.w_msa", "attn")
        .replace("ffn.layers.0.0", "mlp.fc1")
        .replace("ffn.layers.1", "mlp.fc2"): tensor
        for name, tensor in swin.state_dict().items()
    }
    torch.save({"model": renamed}, tmp_path / "swin.pth")
    return tmp_path / "swin.pth"


def test_at_first_the_recursive_pyramid_is_the_plain_one(image, weights):
    backbone, neck = pyramid_of_swin(weights)
    plain = FPN(in_channels=CHANNELS, out_channels=PYRAMID, num_outs=5)
    plain.load_state_dict(
        {name: tensor for name, tensor in neck.state_dict().items() if not name.startswith("rfp_")}
    )
    with torch.inference_mode():
        features = backbone(image)
        assert torch.equal(features[0], image)
        for level, expected in zip(neck(features), plain(features[1:]), strict=True):
            torch.testing.assert_close(level, expected)


@pytest.fixture
def recursive() -> RecursiveSwin:
    swin = RecursiveSwin(rfp_inplanes=PYRAMID, **SWIN)
    swin.init_weights()
    swin.eval()
    return swin


def test_without_the_pyramid_it_is_the_plain_network(image, recursive):
    plain = SwinTransformer(**SWIN)
    plain.load_state_dict(
        {name: tensor for name, tensor in recursive.state_dict().items() if not name.startswith("rfp_")}
    )
    plain.eval()
    pyramid = [torch.rand(2, PYRAMID, *size) for size in SIZES]
    with torch.inference_mode():
        for passed in (recursive(image), recursive.rfp_forward(image, pyramid)):
            for x, expected in zip(passed, plain(image), strict=True):
                torch.testing.assert_close(x, expected)


@pytest.mark.parametrize("level", [1, 2, 3])
def test_a_level_of_the_pyramid_changes_its_stage_and_those_above(image, recursive, level):
    pyramid = [torch.zeros(2, PYRAMID, *size) for size in SIZES]
    pyramid[level] += 1
    torch.nn.init.normal_(recursive.rfp_convs[level - 1].weight)
    with torch.inference_mode():
        before, after = recursive(image), recursive.rfp_forward(image, pyramid)
    changed = [not torch.allclose(x, y, atol=1e-4) for x, y in zip(before, after, strict=True)]
    assert changed == [stage >= level for stage in range(4)]


def test_published_weights_load_into_both_copies(weights):
    backbone, neck = pyramid_of_swin(weights)
    second = neck.rfp_modules[0].state_dict()
    for name, tensor in backbone.state_dict().items():
        assert torch.equal(tensor, second[name])
    published = torch.load(weights)["model"]
    assert torch.equal(
        backbone.state_dict()["patch_embed.projection.weight"], published["patch_embed.proj.weight"]
    )
    assert all((tensor == 0).all() for name, tensor in second.items() if name.startswith("rfp_convs"))


def test_every_way_in_from_the_pyramid_learns(image):
    backbone, neck = pyramid_of_swin()
    sum(level.square().sum() for level in neck(backbone(image))).backward()
    for conv in neck.rfp_modules[0].rfp_convs:
        assert conv.weight.grad.abs().sum() > 0
