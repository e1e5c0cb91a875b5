"""Features of a frozen network, against the network's own words for them."""

import numpy as np
import pytest
import timm
import torch

from busflow.engine.features import BATCH, extract
from busflow.errors import BusflowError


@pytest.fixture
def pretrained(tmp_path):
    torch.manual_seed(0)
    network = timm.create_model("convnext_atto", num_classes=1000).eval()
    torch.save(network.state_dict(), tmp_path / "weights.pth")
    return network, tmp_path / "weights.pth"


def test_features_are_what_the_network_gives_without_its_head_in_the_rows_of_the_array(pretrained, tmp_path):
    network, weights = pretrained
    images = np.random.default_rng(0).integers(0, 256, (BATCH + 3, 32, 32), np.uint8)
    np.save(tmp_path / "images.npy", images)
    extract(tmp_path / "images.npy", "convnext_atto", weights, tmp_path / "features.npy")
    found = np.load(tmp_path / "features.npy", allow_pickle=False)
    network.reset_classifier(0)
    mean, std = (
        np.array(each)[:, None, None]
        for each in (timm.data.IMAGENET_DEFAULT_MEAN, timm.data.IMAGENET_DEFAULT_STD)
    )
    seen = (images[:, None] / 255 - mean) / std
    with torch.inference_mode():
        expected = network(torch.from_numpy(seen).float()).numpy()
    assert found.dtype == np.float32 and found.shape == (BATCH + 3, 320)
    assert found == pytest.approx(expected, abs=1e-4)


def test_weights_of_another_network_are_refused_and_leave_no_file(pretrained, tmp_path):
    np.save(tmp_path / "images.npy", np.zeros((2, 32, 32), np.uint8))
    with pytest.raises(BusflowError, match=r"weights\.pth"):
        extract(tmp_path / "images.npy", "convnext_nano", pretrained[1], tmp_path / "features.npy")
    assert not (tmp_path / "features.npy").exists()
