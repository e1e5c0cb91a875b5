"""timm features as mmdet and mmseg want them."""

from pathlib import Path

import mmdet.registry
import mmseg.registry
import pytest
import timm
import torch
from mmengine.config import Config
from mmengine.registry import DefaultScope
from torch import nn

from busflow.engine.training import parameter_groups
from busflow.models.backbones import TimmFeatures, learning_rate_scale, start_from
from busflow.models.detectors import layer_place
from busflow.models.segmenters import stage_place

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


class ConvNeXt(nn.Module):
    """The layers of one of timm's under mmpretrain's names; the same parameters."""

    def __init__(self, backbone: TimmFeatures):
        super().__init__()
        stages = [getattr(backbone.network, f"stages_{k}") for k in range(4)]
        stem = nn.Sequential(*(each for name, each in backbone.network.named_children() if "stem" in name))
        self.downsample_layers = nn.ModuleList([stem, *(each.downsample for each in stages[1:])])
        self.stages = nn.ModuleList(each.blocks for each in stages)
        for k, norm in enumerate(backbone.norms):
            self.add_module(f"norm{k}", norm)


class Network(nn.Module):
    def __init__(self, backbone: nn.Module, head: nn.Module):
        super().__init__()
        self.backbone, self.head = backbone, head


CASCADE = "convnext/cascade-mask-rcnn_convnext-{}-p4-w7_fpn_4conv1fc-giou_amp-ms-crop-3x_coco"
UPERNET = "convnext/convnext-{}_upernet_8xb2-amp-160k_ade20k-512x512"
RECIPES = [(mmdet, layer_place, CASCADE), (mmseg, stage_place, UPERNET)]


@pytest.mark.parametrize(("library", "place", "recipe"), RECIPES, ids=["mmdet", "mmseg"])
@pytest.mark.parametrize("name", ["atto", "nano", "tiny", "small"])
def test_a_convnexts_rates_and_decay_are_those_of_the_librarys_own_constructor(library, place, recipe, name):
    size = {"tiny": "t", "small": "s"}.get(name) if library is mmdet else name
    published = {"num_layers": {"atto": 5, "nano": 6}.get(name), "decay_rate": 0.8}
    if name in ("tiny", "small"):
        path = Path(library.__file__).parent / f".mim/configs/{recipe.format(size)}.py"
        published = Config.fromfile(path, import_custom_modules=False).optim_wrapper.paramwise_cfg
    published = {"decay_type": "layer_wise" if library is mmdet else "stage_wise"} | published
    with torch.device("meta"):
        ours = Network(TimmFeatures(f"convnext_{name}"), nn.Linear(2, 2))
        theirs = Network(ConvNeXt(ours.backbone), ours.head)
    kind = library.registry.OPTIM_WRAPPER_CONSTRUCTORS.get("LearningRateDecayOptimizerConstructor")
    constructor = kind({"optimizer": {"type": "AdamW", "lr": 2e-4, "weight_decay": 0.05}}, published)
    constructor.add_params(expected := [], theirs)
    scale = learning_rate_scale(ours, place, published["decay_rate"])
    found = by_parameter(parameter_groups(ours, 2e-4, 0.05, scale))
    assert found == {key: pytest.approx(values) for key, values in by_parameter(expected).items()}


def by_parameter(groups: list[dict]) -> dict[int, tuple]:
    return {id(p): (g["lr"], g["weight_decay"]) for g in groups for p in g["params"]}


@pytest.mark.parametrize(
    "name", ["neck.rfp_modules.0.stages.1.blocks.0.norm1.weight", "backbone.norms.2.bias"]
)
def test_the_backbone_of_each_pass_has_a_rate_of_its_own_and_the_rest_the_heads(name):
    network = Network(nn.Identity(), nn.Identity())
    scale = learning_rate_scale(network, stage_place, backbone=0.1, head=10)
    assert scale(name) == 0.1
    assert scale("neck.lateral_convs.0.conv.weight") == scale("decode_head.conv_seg.bias") == 10
