"""timm features as mmdet and mmseg want them."""

import mmdet.registry
import mmseg.registry
import pytest
import timm
import torch
from mmengine.registry import DefaultScope

from busflow.models.backbones import TimmFeatures

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
    backbone = TimmFeatures(NAME, weights=str(tmp_path / "weights.pth"))
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
