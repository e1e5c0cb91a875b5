"""Files of weights from anywhere: read without running them, taken whole or refused in one line."""

import argparse
import functools
import os
import re
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
import yaml
from jsonschema import Draft202012Validator
from mmengine.logging import HistoryBuffer
from mmseg.models import MixVisionTransformer
from safetensors.torch import save_file
from test_detectors import CASCADE, DETR, SMALL_SWIN
from test_segmenters import SEGFORMER, UPERNET
from torch import nn

from busflow.errors import BusflowError
from busflow.models import detectors, segmenters
from busflow.models.backbones import TimmFeatures, start_from
from busflow.models.classifier import OPTIONS, build_network, is_option
from busflow.models.weights import load_pretrained, read_data, read_tensors

ATTO = "convnext_atto"
# ImageNet weights of timm's tf_efficientnet_lite0, where a machine has them.
REAL = Path(os.environ.get("BUSFLOW_PUBLISHED_WEIGHTS", "efficientnet_lite0_in1k.safetensors"))


class Forged:
    """Pickled, it is a call that leaves a file."""

    def __init__(self, marker: Path):
        self.marker = marker

    def __reduce__(self):
        return os.mkdir, (str(self.marker),)


def from_classifier(path: Path) -> nn.Module:
    return build_network(ATTO, weights=path)


def from_features(path: Path) -> nn.Module:
    start_from(path, backbone := TimmFeatures(ATTO))
    return backbone.network


FAMILIES = {
    "classifier": from_classifier,
    "features": from_features,
    "cascade": lambda path: detectors.build_network(CASCADE, path),
    "swin": lambda path: detectors.build_network(CASCADE | {"backbone": "swin_base"}, path),
    "detr": lambda path: detectors.build_network(DETR, path),
    "upernet": lambda path: segmenters.build_network(UPERNET, path),
    "segformer": lambda path: segmenters.build_network(SEGFORMER, path),
}
of_each_family = pytest.mark.parametrize("start", FAMILIES.values(), ids=FAMILIES)


@pytest.fixture(autouse=True)
def small_swin(monkeypatch):
    monkeypatch.setitem(detectors.SWINS, "swin_base", SMALL_SWIN)


@pytest.fixture(scope="module")
def donor() -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    return timm.create_model(ATTO, num_classes=1000).state_dict()


def save(content: object, folder: Path) -> Path:
    torch.save(content, folder / "donor.pth")
    return folder / "donor.pth"


def refusal(start, path: Path) -> str:
    with pytest.raises(BusflowError) as error:
        start(path)
    assert "\n" not in str(error.value) and str(path) in str(error.value)
    return str(error.value)


@of_each_family
@pytest.mark.parametrize("legacy", [False, True])
def test_a_pretrained_file_runs_no_code(tmp_path, donor, start, legacy):
    marker, path = tmp_path / "marker", tmp_path / "donor.pth"
    content = {"state_dict": donor, "meta": Forged(marker)}
    torch.save(content, path, _use_new_zipfile_serialization=not legacy)
    torch.load(path, weights_only=False)
    assert marker.exists()  # it would
    marker.rmdir()
    assert "it calls for posix.mkdir" in refusal(start, path)
    assert not marker.exists()


@of_each_family
@pytest.mark.parametrize(
    "content", [b"", b"GIF89a", b"<html>", b"\x80\x02}q\x00."], ids=["empty", "image", "page", "pickle"]
)
def test_garbage_is_refused_in_one_line(tmp_path, start, content):
    (tmp_path / "donor.pth").write_bytes(content)
    refusal(start, tmp_path / "donor.pth")


def test_a_cut_file_of_safetensors_is_refused_in_one_line(tmp_path, donor):
    save_file(donor, tmp_path / "donor.safetensors")
    os.truncate(tmp_path / "donor.safetensors", 5000)
    assert "no intact weights file" in refusal(from_classifier, tmp_path / "donor.safetensors")


def test_what_training_scripts_put_beside_the_tensors_is_read_as_nothing(tmp_path, donor):
    beside = {
        "args": argparse.Namespace(lr=1),
        "best": np.float64(0.5),
        "curve": np.zeros(3),
        "message_hub": {"log_scalars": {"loss": HistoryBuffer([1.0], [1])}},
    }
    path = save({"model": donor, **beside}, tmp_path)
    assert torch.equal(from_classifier(path).stem[0].weight, donor["stem.0.weight"])
    read = read_data(path)
    assert not isinstance(read["args"], argparse.Namespace) and not isinstance(read["curve"], np.ndarray)


def prefixed(prefix: str, weights: dict) -> dict:
    return {prefix + name: tensor for name, tensor in weights.items()}


WRAPPINGS = {
    "none": lambda weights: weights,
    "state_dict": lambda weights: {"state_dict": weights, "epoch": 3},
    "model": lambda weights: {"model": weights, "optimizer": {"lr": 1}},
    "model_state": lambda weights: {"model_state": weights},
    "ema": lambda weights: {
        "state_dict": {name: torch.zeros_like(each) for name, each in weights.items()},
        "state_dict_ema": weights,
    },
    "module": lambda weights: prefixed("module.", weights),
    "backbone": lambda weights: {
        "state_dict": prefixed("backbone.", weights) | {"neck.weight": torch.ones(2)}
    },
    "encoder": lambda weights: prefixed("encoder.", weights),
    "several": lambda weights: {"model": {"state_dict": prefixed("module.backbone.", weights)}},
}


@pytest.mark.parametrize("start", [from_classifier, from_features])
@pytest.mark.parametrize("wrap", WRAPPINGS.values(), ids=WRAPPINGS)
def test_weights_come_out_of_every_usual_wrapping(tmp_path, donor, start, wrap):
    network = start(save(wrap(donor), tmp_path))
    loaded = {name.replace("_", "."): each for name, each in network.state_dict().items()}
    given = {name.replace("_", "."): each for name, each in donor.items() if not name.startswith("head.")}
    assert all(torch.equal(loaded[name], each) for name, each in given.items())


def test_facebooks_names_are_timms(tmp_path, donor):
    theirs = {}
    renamings = {
        **{"head.norm": "norm", "head.fc": "head", "conv_dw": "dwconv", "mlp.fc": "pwconv"},
        **{"stem.": "downsample_layers.0.", ".blocks": ""},
    }
    for timms, tensor in donor.items():
        name = functools.reduce(lambda text, pair: text.replace(*pair), renamings.items(), timms)
        parts = name.split(".")
        if "downsample" in parts:
            parts[:3] = ["downsample_layers", parts[1]]
        theirs[".".join(parts)] = tensor.flatten(1) if "pwconv" in name and tensor.ndim == 4 else tensor
    assert "downsample_layers.3.1.weight" in theirs and "stages.2.5.dwconv.weight" in theirs
    for start in (from_classifier, from_features):
        start(save({"model": theirs}, tmp_path))


@of_each_family
def test_a_file_with_a_part_of_the_tensors_is_refused(tmp_path, donor, start):
    assert "does not hold this network's weights" in refusal(
        start, save(dict(list(donor.items())[:20]), tmp_path)
    )


@of_each_family
def test_a_file_of_another_architecture_is_refused(tmp_path, start):
    other = timm.create_model("mobilenetv3_small_050").state_dict()
    assert "does not hold this network's weights" in refusal(start, save(other, tmp_path))


@pytest.mark.parametrize("tensors", [5, [torch.ones(1)], {"a": 1}, {}])
def test_a_file_without_named_tensors_is_refused(tmp_path, tensors):
    assert "holds no tensors by name" in refusal(from_classifier, save(tensors, tmp_path))


def test_a_deeper_network_is_not_taken_for_a_shallower_one(tmp_path):
    deep, shallow = (
        MixVisionTransformer(embed_dims=8, num_heads=[1] * 4, num_layers=[k] * 4) for k in (2, 1)
    )
    with pytest.raises(BusflowError, match=r"holds the weights of a larger network \(\d+ are too many"):
        load_pretrained(shallow, deep.state_dict(), tmp_path)
    resnet = timm.create_model("resnet101").state_dict()
    assert "a larger network" in refusal(FAMILIES["detr"], save(resnet, tmp_path))


def test_resnets_without_counts_of_batches_load(tmp_path):
    """As torchvision published them before its norms counted."""
    weights = timm.create_model("resnet50").state_dict()
    old = {name: each for name, each in weights.items() if "num_batches" not in name}
    network = FAMILIES["detr"](save(old, tmp_path))
    assert torch.equal(network.backbone.layer4[2].conv3.weight, weights["layer4.2.conv3.weight"])


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_pretrained_weights_that_are_no_numbers_are_refused(tmp_path, donor, value):
    spoilt = donor | {"stages.1.blocks.0.gamma": torch.full_like(donor["stages.1.blocks.0.gamma"], value)}
    message = refusal(from_classifier, save(spoilt, tmp_path))
    assert "NaN or infinite weights, the first in stages.1.blocks.0.gamma" in message


@pytest.mark.skipif(not REAL.exists(), reason="the published weights are not on this machine")
def test_real_published_weights_load_whole():
    published = read_tensors(REAL)
    network = build_network("tf_efficientnet_lite0", weights=REAL)
    own = {name: each for name, each in network.state_dict().items() if not name.startswith("classifier.")}
    assert len(own) == 294 and all(torch.equal(each, published[name]) for name, each in own.items())


@pytest.mark.parametrize(
    "options",
    [
        {"pretrained": True},
        {"checkpoint_path": "other.pth"},
        {"pretrained_cfg_overlay": {"file": "other.pth"}},
        {"drop_path_rate": "high"},
        {"drop_path_rate": 1.5},
        {"global_pool": "fast.pth"},
    ],
)
def test_options_that_are_not_the_networks_shape_are_refused(options):
    with pytest.raises(BusflowError, match=f"network option {next(iter(options))} = .* is not taken"):
        build_network(ATTO, options=options)


def test_an_option_that_a_network_does_not_have_is_told():
    with pytest.raises(BusflowError, match="timm does not make convnext_atto with the options"):
        build_network(ATTO, options={"dynamic_img_size": True})


@pytest.mark.parametrize("name", ["convnext_gigantic", "hf-hub:timm/convnext_atto", "local-dir:/tmp", "a:b"])
def test_a_name_that_is_not_timms_is_refused(name):
    with pytest.raises(BusflowError, match=f"no network {name}"):
        build_network(name)


def test_one_place_reads_what_torch_wrote_and_none_a_pickle():
    """What resumes, predicts, records and restores goes through it, or reads text."""
    root = Path(__file__).parents[2]
    code = {
        path: path.read_text() for room in ("busflow", "scripts") for path in root.glob(f"{room}/**/*.py")
    }
    readers = [path.relative_to(root).as_posix() for path, text in code.items() if "torch.load(" in text]
    assert readers == ["busflow/models/weights.py"]
    unsafe = ("weights_only=False", "allow_pickle=True", "pickle.load", "read_pickle", "yaml.load(", "joblib")
    # Both with a loader that is a kind of yaml.SafeLoader.
    code = {
        path: re.sub(r"yaml\.load\(.*(_StrictLoader|Loader=Loader)\)", "", text)
        for path, text in code.items()
    }
    assert not [(path, word) for path, text in code.items() for word in unsafe if word in text]


def test_the_schema_of_the_config_lets_through_what_a_network_takes():
    schema = yaml.safe_load((Path(__file__).parents[2] / "workflow/schemas/config.schema.yaml").read_text())
    schema = schema["$defs"]["network"] | {"$defs": schema["$defs"]}
    assert schema["properties"].keys() == OPTIONS.keys()
    for key in OPTIONS:
        for value in (0, 0.5, 1, 64, True, "avg", "token", "fast", None, [1]):
            assert is_option(key, value) == Draft202012Validator(schema).is_valid({key: value}), (key, value)
