"""Networks built for weights that exist: these and no others, and all else as usual."""

from pathlib import Path

import pytest
import torch
from test_detectors import CASCADE, DETR, RFLA
from test_segmenters import SEGFORMER, UPERNET

from busflow.errors import BusflowError
from busflow.models import classifier, detectors, segmenters
from busflow.models.weights import load_trained

BUILDERS = {
    "classifier": lambda: classifier.build_network("convnext_atto"),
    "cascade": lambda: detectors.build_network(CASCADE),
    "rfla": lambda: detectors.build_network(RFLA),
    "detr": lambda: detectors.build_network(DETR),
    "segformer": lambda: segmenters.build_network(SEGFORMER),
    "upernet": lambda: segmenters.build_network(UPERNET),
}


@pytest.mark.parametrize("build", BUILDERS.values(), ids=BUILDERS)
def test_a_network_takes_its_weights_without_a_random_number(build):
    torch.manual_seed(1)
    trained = build()
    before = torch.get_rng_state()
    network = load_trained(build, trained.state_dict(), Path("weights.pth"))
    assert torch.equal(torch.get_rng_state(), before)
    assert not network.training
    for name, tensor in trained.state_dict().items():
        assert torch.equal(network.state_dict()[name], tensor), name
    buffers = dict(network.named_buffers())  # those that are not saved too
    for name, tensor in trained.named_buffers():
        assert torch.equal(buffers[name], tensor), name


def test_a_network_with_a_weight_that_the_file_lacks_is_refused():
    weights = BUILDERS["classifier"]().state_dict()
    weights.popitem()
    with pytest.raises(BusflowError, match=r"weights\.pth does not hold .*\(1 differ"):
        load_trained(BUILDERS["classifier"], weights, Path("weights.pth"))


def test_a_detector_that_is_loaded_predicts_as_the_one_that_was_saved():
    torch.manual_seed(1)
    trained = BUILDERS["cascade"]().eval()
    network = load_trained(BUILDERS["cascade"], trained.state_dict(), Path("weights.pth"))
    anchors = [each.rpn_head.prior_generator.base_anchors for each in (trained, network)]
    assert all(map(torch.equal, *anchors))
    image = torch.rand(1, 3, 64, 64)
    with torch.inference_mode():
        assert all(map(torch.equal, trained.extract_feat(image), network.extract_feat(image)))
