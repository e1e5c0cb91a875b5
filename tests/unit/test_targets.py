"""Priors, codes, labels and samples of boxes against mmdet's own classes."""

import pytest
import torch
from mmdet.models import task_modules as theirs
from mmengine.config import ConfigDict
from mmengine.registry import DefaultScope
from mmengine.structures import InstanceData

from busflow.models import targets

SIZES = [(20, 24), (10, 12), (5, 6)]
ANCHORS = {"strides": [4, 8, 16], "ratios": [0.5, 1.0, 2.0], "scales": [8]}


@pytest.fixture(autouse=True)
def scope():
    with DefaultScope.overwrite_default_scope("mmdet"):  # another may be left over from a Runner
        yield


def boxes(number: int, side: float = 90.0) -> torch.Tensor:
    corner = torch.rand(number, 2) * side
    return torch.cat([corner, corner + 2 + torch.rand(number, 2) * 30], 1)


def test_priors_are_mmdets_and_made_anew_for_another_size_of_image():
    ours, reference = targets.KeptAnchors(**ANCHORS), theirs.AnchorGenerator(**ANCHORS)
    for sizes, shape in [(SIZES, (80, 96)), (SIZES, (80, 80)), (SIZES[:1] * 3, (80, 96)), (SIZES, (80, 96))]:
        for call in ("grid_priors", "valid_flags"):
            arguments = (sizes,) if call == "grid_priors" else (sizes, shape)
            found, wanted = (getattr(each, call)(*arguments, device="cpu") for each in (ours, reference))
            assert all(map(torch.equal, found, wanted))
    again = [ours.grid_priors(SIZES, device="cpu")[0].data_ptr() for _ in range(2)]
    assert again[0] == again[1]


def test_priors_first_made_for_inference_take_part_in_training():
    generator = targets.KeptAnchors(**ANCHORS)
    with torch.inference_mode():
        generator.grid_priors(SIZES, device="cpu")
    factor = torch.ones(1, requires_grad=True)
    (generator.grid_priors(SIZES, device="cpu")[0] * factor).sum().backward()
    assert factor.grad is not None


@pytest.mark.parametrize("stds", [(1.0, 1.0, 1.0, 1.0), (0.033, 0.033, 0.067, 0.067)])
def test_boxes_are_coded_and_decoded_as_by_mmdet(stds):
    torch.manual_seed(0)
    options = {"target_means": [0.0, 0.1, 0.0, 0.0], "target_stds": list(stds)}
    ours, reference = targets.KeptCoder(**options), theirs.DeltaXYWHBBoxCoder(**options)
    first, second = boxes(200), boxes(200)
    assert torch.equal(ours.encode(first, second), reference.encode(first, second))
    for deltas in (torch.randn(200, 4) * 3, torch.randn(200, 8)):
        for shape in (None, (96, 100)):
            found, wanted = (each.decode(first, deltas, max_shape=shape) for each in (ours, reference))
            assert torch.equal(found, wanted)
    assert ours.decode(first[:0], torch.zeros(0, 4), max_shape=(96, 100)).shape == (0, 4)


@pytest.mark.parametrize("low_quality", [True, False])
@pytest.mark.parametrize("number", [0, 1, 12])
def test_priors_get_the_labels_that_mmdet_gives(number, low_quality):
    torch.manual_seed(number)
    options = {"pos_iou_thr": 0.6, "neg_iou_thr": 0.3, "min_pos_iou": 0.2}
    options["match_low_quality"] = low_quality
    # Priors twice: two are as good as each other for a box.
    priors = InstanceData(priors=boxes(300).repeat(2, 1))
    truth = InstanceData(bboxes=boxes(number), labels=torch.randint(2, (number,)))
    found, wanted = (
        kind(**options).assign(priors, truth) for kind in (targets.Assigner, theirs.MaxIoUAssigner)
    )
    for name in ("gt_inds", "max_overlaps", "labels"):
        assert torch.equal(getattr(found, name), getattr(wanted, name)), name


def test_a_prior_that_several_boxes_claim_is_the_last_ones():
    box = torch.tensor([[0.0, 0.0, 10.0, 10.0]])
    truth = InstanceData(bboxes=torch.cat([box, box]), labels=torch.tensor([1, 0]))
    assigner = targets.Assigner(0.7, 0.3, 0.3)
    assigned = assigner.assign(InstanceData(priors=torch.cat([box, box + 50])), truth)
    assert assigned.gt_inds.tolist() == [2, 0] and assigned.labels.tolist() == [0, -1]


@pytest.mark.parametrize("number", [0, 3])
@pytest.mark.parametrize("num", [8, 64, 2000])
@pytest.mark.parametrize("neg_pos_ub", [-1, 3])
def test_the_samples_are_those_that_mmdet_draws(number, num, neg_pos_ub):
    torch.manual_seed(number)
    priors, truth = boxes(400), InstanceData(bboxes=boxes(number), labels=torch.randint(2, (number,)))
    found = []
    for kind in (targets.Sampler, theirs.RandomSampler):
        assigned = theirs.MaxIoUAssigner(0.3, 0.2, 0.1).assign(InstanceData(priors=priors), truth)
        sampler = kind(num, pos_fraction=0.25, neg_pos_ub=neg_pos_ub, add_gt_as_proposals=True)
        torch.manual_seed(1)
        found.append(sampler.sample(assigned, InstanceData(priors=priors), truth))
    ours, wanted = found
    for name in (
        "pos_inds",
        "neg_inds",
        "pos_priors",
        "neg_priors",
        "pos_is_gt",
        "pos_gt_bboxes",
        "pos_gt_labels",
    ):
        assert torch.equal(getattr(ours, name), getattr(wanted, name)), name


def test_a_configuration_names_ours_wherever_it_named_mmdets():
    config = ConfigDict(
        head={"type": "RPNHead", "anchor_generator": {"type": "AnchorGenerator"}},
        stages=[{"sampler": {"type": "RandomSampler"}}, {"assigner": {"type": "MaxIoUAssigner"}}],
    )
    targets.put_in(config)
    assert config.head.anchor_generator.type == "KeptAnchors" and config.head.type == "RPNHead"
    assert [*config.stages[0].sampler.values(), *config.stages[1].assigner.values()] == [
        "Sampler",
        "Assigner",
    ]
