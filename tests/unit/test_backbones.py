"""timm features as mmdet and mmseg want them."""

import mmdet.registry
import mmseg.registry
import pytest
import timm
import torch
from mmengine.registry import DefaultScope

from busflow.models.backbones import TimmFeatures, learning_rate_scale, start_from

NAME = "convnext_atto"


@pytest.fixture(scope="module")
def backbone() -> TimmFeatures:
    torch.manual_seed(0)
    return TimmFeatures(NAME).eval()


@pytest.fixture
def images() -> torch.Tensor:
    return torch.rand(2, 3, 64, 96, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_features_are_contiguous_whatever_the_layout_of_the_image(backbone, images, layout):
    features = backbone(images.contiguous(memory_format=layout))
    assert [tuple(x.shape) for x in features] == [
        (2, 40, 16, 24),
        (2, 80, 8, 12),
        (2, 160, 4, 6),
        (2, 320, 2, 3),
    ]
    assert all(x.is_contiguous() for x in features)
    for x, expected in zip(features, backbone(images), strict=True):
        torch.testing.assert_close(x, expected)


def test_timm_itself_hands_out_another_layout(backbone, images):
    """The reason for the copies; when it goes, they can."""
    assert not any(x.is_contiguous() for x in backbone.network(images))


def test_each_map_is_normalised_over_its_channels(backbone, images):
    for x in backbone(images):
        torch.testing.assert_close(x.mean(1), torch.zeros_like(x[:, 0]), atol=1e-4, rtol=0)
        torch.testing.assert_close(x.var(1, correction=0), torch.ones_like(x[:, 0]), atol=1e-2, rtol=0)


@pytest.mark.parametrize("registry", [mmdet.registry.MODELS, mmseg.registry.MODELS])
def test_mmdet_and_mmseg_build_it_by_name(registry):
    with DefaultScope.overwrite_default_scope(registry.scope):
        assert isinstance(registry.build({"type": "TimmFeatures", "name": NAME}), TimmFeatures)


def test_pretrained_weights_of_a_classifier_load_from_a_file(tmp_path):
    classifier = timm.create_model(NAME, num_classes=1000)
    torch.save(classifier.state_dict(), tmp_path / "weights.pth")
    backbone = TimmFeatures(NAME)
    start_from(tmp_path / "weights.pth", backbone)
    backbone.init_weights()  # what the Runner calls
    stages = dict(classifier.named_parameters())
    for name, parameter in backbone.network.named_parameters():
        assert torch.equal(parameter, stages[name.replace("stem_", "stem.").replace("stages_", "stages.")])


def test_paths_are_dropped_at_the_given_rate():
    rates = [
        module.drop_prob
        for module in TimmFeatures(NAME, drop_path=0.3).modules()
        if hasattr(module, "drop_prob")
    ]
    assert max(rates) == pytest.approx(0.3)


@pytest.mark.parametrize(
    ("name", "stages"),
    [
        ("backbone.network.stem_0.weight", 5),
        ("backbone.network.stages_0.blocks.1.norm.bias", 4),
        ("backbone.network.stages_3.downsample.1.weight", 1),
        ("backbone.norms.2.weight", 0),
        ("backbone.patch_embed.projection.weight", 5),
        ("backbone.stages.2.blocks.17.ffn.layers.1.weight", 2),
        ("neck.rfp_modules.0.stages.1.blocks.0.norm1.weight", 3),
        ("neck.rfp_modules.0.rfp_convs.0.weight", 0),
    ],
)
def test_the_learning_rate_falls_with_the_stages_down_the_backbone(name, stages):
    assert learning_rate_scale(name, 0.1, 0.5) == pytest.approx(0.1 * 0.5**stages)


@pytest.mark.parametrize(
    "name",
    ["neck.lateral_convs.0.conv.weight", "roi_head.bbox_head.0.fc_cls.weight", "decode_head.conv_seg.bias"],
)
def test_outside_of_the_backbone_the_learning_rate_is_the_heads(name):
    assert learning_rate_scale(name, 0.1, 0.5) == 1
    assert learning_rate_scale(name, 0.1, 0.5, head=10) == 10
