"""The classifier and its published weights."""

import pytest
import torch
from torch.nn import functional

from busflow.engine.checkpoints import load_weights, save_weights
from busflow.errors import BusflowError
from busflow.models.classifier import Classifier, build_network
from busflow.models.facts import classifier_facts

PAPER_TABLE_5 = {"convnext_atto": 3.70e6, "convnext_femto": 5.22e6, "convnext_pico": 9.05e6}


@pytest.fixture(scope="module")
def network() -> torch.nn.Module:
    torch.manual_seed(0)
    return build_network("convnext_atto").eval()


def test_loss_is_cross_entropy_with_smoothing(network):
    inputs, labels = torch.randn(4, 3, 32, 32), torch.tensor([0, 1, 2, 1])
    model = Classifier(network, label_smoothing=0.1).eval()
    expected = functional.cross_entropy(network(inputs), labels, label_smoothing=0.1)
    assert torch.isclose(model(inputs, labels, mode="loss")["loss"], expected)


def test_balancing_adds_the_log_prior_in_training_only(network):
    inputs, labels = torch.randn(4, 3, 32, 32), torch.tensor([0, 1, 2, 1])
    counts = torch.tensor([70, 20, 10])
    model = Classifier(network, class_counts=counts).eval()
    weights = torch.exp(network(inputs)) * counts
    expected = -torch.log(weights[range(4), labels] / weights.sum(1)).mean()
    assert torch.isclose(model(inputs, labels, mode="loss")["loss"], expected, atol=1e-5)
    assert torch.equal(model(inputs), network(inputs))


def test_prediction_pairs_each_image_with_its_label(network):
    model = Classifier(network).eval()
    out = model(torch.randn(2, 3, 32, 32), torch.tensor([2, 0]), mode="predict")
    assert [sample["label"].item() for sample in out] == [2, 0] and out[0]["logits"].shape == (3,)


@pytest.mark.parametrize("name", ["convnext_atto", "tf_efficientnet_lite0"])
def test_pretrained_weights_fill_the_body_and_the_head_knows_nothing_yet(name, tmp_path):
    donor = build_network(name, num_classes=1000)
    torch.save(donor.state_dict(), tmp_path / "donor.pth")
    network = build_network(name, weights=tmp_path / "donor.pth").eval()
    given, loaded = (dict(each.named_parameters()) for each in (donor, network))
    heads = {name for name in loaded if loaded[name].shape != given[name].shape}
    assert len(heads) == 2 and all(torch.equal(loaded[name], given[name]) for name in loaded.keys() - heads)
    assert torch.equal(network(torch.randn(2, 3, 32, 32)), torch.zeros(2, 3))


def test_weights_return_as_saved_and_with_the_same_bytes(network, tmp_path):
    for name in ("a.pth", "b.pth"):
        save_weights(tmp_path / name, network.state_dict(), {"epoch": 3})
    assert (tmp_path / "a.pth").read_bytes() == (tmp_path / "b.pth").read_bytes()
    loaded = load_weights(tmp_path / "a.pth")
    assert loaded["meta"] == {"epoch": 3}
    assert all(torch.equal(loaded["state_dict"][k], v) for k, v in network.state_dict().items())


@pytest.mark.parametrize("size", [0, 1000])
def test_truncated_weights_are_refused_by_name(network, tmp_path, size):
    path = tmp_path / "weights.pth"
    save_weights(path, network.state_dict(), {})
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(BusflowError, match=r"weights\.pth is no intact weights file.*fetch or make it anew"):
        load_weights(path)


def test_missing_weights_are_named(tmp_path):
    with pytest.raises(BusflowError, match=r"weights\.pth does not exist"):
        load_weights(tmp_path / "weights.pth")


def test_parameters_are_those_that_the_paper_prints():
    models = {name: {"label": name, "timm": name, "batch_size": 1} for name in PAPER_TABLE_5}
    facts = classifier_facts(models)
    for name, printed in PAPER_TABLE_5.items():
        assert facts[name]["params_1000"] == pytest.approx(printed, abs=0.005e6)
        assert facts[name]["size_bytes_3"] == 4 * facts[name]["params_3"]
    assert facts["convnext_atto"]["macs"] == pytest.approx(551.16e6, rel=0.01)
