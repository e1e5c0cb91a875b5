"""RFLA's receptive fields, similarities and label assignment: published numbers, and a literal loop."""

import math

import numpy as np
import pytest
import torch
from mmdet.registry import MODELS, TASK_UTILS
from mmengine.registry import DefaultScope
from mmengine.structures import InstanceData
from torch import nn

from busflow.errors import BusflowError
from busflow.models.rfla import (
    HierarchicalAssigner,
    effective_receptive_fields,
    kl_divergence,
    receptive_field_priors,
    resnet50_receptive_fields,
    wasserstein_distance,
)

STRIDES = (4, 8, 16, 32, 64)


@pytest.fixture(autouse=True)
def of_mmdet():
    """Another scope may be left over from a Runner of this process."""
    with DefaultScope.overwrite_default_scope("mmdet"):
        yield


BOX = torch.tensor([[10.0, 10, 30, 30]])
OTHERS = torch.tensor([[10.0, 10, 30, 30], [12, 10, 32, 30], [5, 5, 35, 35], [40, 40, 60, 60]])


def resnet50_priors(image_size: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The priors of a square image, and the number of each one's level (2 for P2)."""
    config = receptive_field_priors([side / 2 for side in resnet50_receptive_fields()[:5]], STRIDES)
    sizes = [(image_size // stride, image_size // stride) for stride in STRIDES]
    levels = TASK_UTILS.build(config).grid_priors(sizes, device="cpu")
    level = torch.cat([torch.full((len(priors),), i) for i, priors in enumerate(levels, 2)])
    return torch.cat(levels), level


def assign(priors, boxes, labels=None, **options):
    boxes = torch.as_tensor(boxes, dtype=priors.dtype).view(-1, 4)
    labels = torch.zeros(len(boxes), dtype=torch.long) if labels is None else torch.tensor(labels)
    truth = InstanceData(bboxes=boxes, labels=labels)
    return HierarchicalAssigner(**options).assign(InstanceData(priors=priors), truth)


def similarity_of_pair(kind: str, truth: list[float], prior: list[float]) -> float:
    """RFLA_SPEC's formulae, as written for one pair of boxes."""
    (xg, yg, wg, hg), (xp, yp, wp, hp) = (
        ((x1 + x2) / 2, (y1 + y2) / 2, x2 - x1 + 1e-6, y2 - y1 + 1e-6) for x1, y1, x2, y2 in (truth, prior)
    )
    dx, dy = xp - xg, yp - yg
    if kind == "wd":
        return 1 / (1 + dx**2 + dy**2 + ((wg - wp) ** 2 + (hg - hp) ** 2) / 4)
    sides = wp**2 / wg**2 + hp**2 / hg**2 + math.log(wg**2 / wp**2) + math.log(hg**2 / hp**2)
    kl = (sides + 4 * dx**2 / wg**2 + 4 * dy**2 / hg**2 - 2) / 2
    return 1 / (1 + kl) if kind == "kl" else math.exp(-kl / 10)


def assign_by_loops(kind, priors, boxes, topk=(3, 1), shrink=0.9):
    """Both stages, one box and one prior at a time; the most similar box wins, the first of equals."""
    shrunk = []
    for x1, y1, x2, y2 in priors:
        dx, dy = (1 - shrink) * (x2 - x1) / 2, (1 - shrink) * (y2 - y1) / 2
        shrunk.append((x1 + dx, y1 + dy, x2 - dx, y2 - dy))
    stages = []
    for candidates, k in ((priors, topk[0]), (shrunk, topk[1])):
        rows = [[similarity_of_pair(kind, box, prior) for prior in candidates] for box in boxes]
        stage = [-1 if max(column) >= 0.8 else 0 for column in zip(*rows, strict=True)]
        best = [0.0] * len(candidates)
        for i, row in enumerate(rows):
            for value in sorted(row, reverse=True)[:k]:
                for j, similarity in enumerate(row):
                    if similarity == value and similarity > best[j]:
                        stage[j], best[j] = i + 1, similarity
        stages.append(stage)
    return [first if first > 0 else second for first, second in zip(*stages, strict=True)]


def random_boxes(n: int, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    corners = torch.rand(n, 2, generator=generator, dtype=torch.float64) * 60
    return torch.cat(
        [corners, corners + 4 + torch.rand(n, 2, generator=generator, dtype=torch.float64) * 40], 1
    )


def test_resnet50_has_the_published_receptive_fields():
    assert resnet50_receptive_fields() == [35, 91, 267, 427, 555, 811]


def test_priors_have_the_sides_and_ratios_of_the_publication():
    priors, level = resnet50_priors(64)
    assert len(priors) == 1023
    assert torch.allclose(priors[1], torch.tensor([-8.75, -8.75, 8.75, 8.75]))  # ratio 1 at the origin
    for number, side in zip(range(2, 7), (17.5, 45.5, 133.5, 213.5, 277.5), strict=True):
        width, height = (priors[level == number][:, 2:] - priors[level == number][:, :2]).T
        assert torch.allclose((width * height).sqrt(), torch.tensor(side))
        assert torch.allclose((height / width)[:3], torch.tensor([0.5, 1, 2]))


def test_kl_divergence_has_its_golden_values():
    assert torch.allclose(kl_divergence(BOX, OTHERS), torch.tensor([[0, 0.02, 0.43907, 9.0]]), atol=1e-5)


def test_wasserstein_distance_has_its_golden_values():
    assert torch.allclose(wasserstein_distance(BOX, OTHERS), torch.tensor([[0.0, 4, 50, 1800]]), atol=1e-3)


@pytest.mark.parametrize(
    ("kind", "golden"),
    [("kl", [1, 0.980392, 0.694893, 0.1]), ("exp_kl", [1, 0.998002, 0.957043, 0.40657])],
)
def test_similarities_have_their_golden_values(kind, golden):
    """With priors that do not shrink, the reported overlaps are the similarities themselves."""
    result = assign(OTHERS, BOX, similarity=kind, shrink=1.0)
    assert torch.allclose(result.max_overlaps, torch.tensor(golden), atol=1e-5)


def test_the_wasserstein_similarity_is_one_over_one_plus_the_squared_distance():
    result = assign(OTHERS, BOX, similarity="wd", shrink=1.0)
    assert torch.allclose(result.max_overlaps, 1 / (1 + torch.tensor([0.0, 4, 50, 1800])), atol=1e-5)


def test_shrinking_keeps_the_centre():
    shrunk = torch.tensor([[11.0, 11, 29, 29], [6.5, 6.5, 33.5, 33.5]])
    result = assign(OTHERS[[0, 2]], BOX)
    assert torch.allclose(result.max_overlaps, 1 / (1 + kl_divergence(BOX, shrunk)[0]))


def test_two_boxes_in_a_small_image_get_their_golden_positives():
    priors, level = resnet50_priors(64)
    result = assign(priors, [[20, 20, 36, 36], [10, 40, 60, 62]], labels=[1, 0])
    assert (result.gt_inds == 1).nonzero()[:, 0].tolist() == [310, 355, 358, 361, 406]
    assert (result.gt_inds == 2).nonzero()[:, 0].tolist() == [924, 927, 948]
    assert set(level[result.gt_inds == 1].tolist()) == {2} and set(level[result.gt_inds == 2].tolist()) == {3}
    assert (result.gt_inds == -1).sum() == 4 and (result.gt_inds == 0).sum() == 1011
    assert set(result.labels[result.gt_inds == 1].tolist()) == {1}
    assert set(result.labels[result.gt_inds == 2].tolist()) == {0}
    assert set(result.labels[result.gt_inds <= 0].tolist()) == {-1}


@pytest.mark.parametrize(
    ("box", "levels", "ignored"),
    [
        ([150, 150, 330, 270], [4, 4, 4], 32),
        ([100, 100, 500, 400], [6, 6, 6], 1),
        ([200, 180, 232, 208], [2, 2, 2, 2, 2, 2, 3], 0),
    ],
)
def test_a_box_in_a_large_image_gets_its_golden_positives(box, levels, ignored):
    priors, level = resnet50_priors(512)
    result = assign(priors, box)
    assert level[result.gt_inds == 1].tolist() == levels
    assert (result.gt_inds == -1).sum() == ignored


@pytest.mark.parametrize("kind", ["kl", "exp_kl", "wd"])
@pytest.mark.parametrize(("boxes", "topk", "shrink"), [(1, (3, 1), 0.9), (7, (3, 1), 0.9), (40, (5, 2), 0.7)])
def test_assignment_equals_the_loops_of_its_definition(kind, boxes, topk, shrink):
    truth, priors = random_boxes(boxes, seed=boxes), random_boxes(120, seed=9)
    result = assign(priors, truth, similarity=kind, topk=topk, shrink=shrink)
    assert result.gt_inds.tolist() == assign_by_loops(kind, priors.tolist(), truth.tolist(), topk, shrink)
    assert result.num_gts == boxes


def test_the_most_similar_box_gets_a_prior_whatever_the_order_of_boxes():
    boxes = [[10, 10, 30, 30], [11, 10, 31, 30]]
    prior = torch.tensor([[10.0, 10, 30, 30]])
    assert assign(prior, boxes).gt_inds.tolist() == [1]
    assert assign(prior, boxes[::-1]).gt_inds.tolist() == [2]
    assert assign(prior, [boxes[0], boxes[0]]).gt_inds.tolist() == [1]


def test_priors_keep_their_sides():
    priors, _ = resnet50_priors(64)
    before = priors.clone()
    assign(priors, [[20, 20, 36, 36]])
    assert torch.equal(priors, before)


def test_fewer_priors_than_positives_are_all_taken():
    assert assign(OTHERS[:2], BOX).gt_inds.tolist() == [1, 1]


def test_without_boxes_all_is_background():
    result = assign(OTHERS, torch.zeros(0, 4))
    assert result.gt_inds.tolist() == [0, 0, 0, 0] and result.labels.tolist() == [-1] * 4
    assert result.max_overlaps.tolist() == [0.0] * 4 and result.num_gts == 0


def test_without_priors_the_result_is_empty():
    result = assign(OTHERS[:0], BOX)
    assert result.gt_inds.shape == result.labels.shape == result.max_overlaps.shape == (0,)


@pytest.mark.parametrize("kind", ["kl", "exp_kl", "wd"])
def test_a_box_without_area_does_not_claim_the_whole_image(kind):
    priors, _ = resnet50_priors(64)
    result = assign(priors, [[20, 20, 20, 20]], similarity=kind)
    assert (result.gt_inds > 0).sum() < 20
    assert torch.isfinite(result.max_overlaps).all()


def test_half_precision_assigns_as_single_does():
    priors, boxes = random_boxes(60, seed=1).half(), random_boxes(5, seed=2).half()
    assert torch.equal(assign(priors, boxes).gt_inds, assign(priors.float(), boxes.float()).gt_inds)


def test_an_unknown_similarity_is_refused():
    with pytest.raises(BusflowError, match="no similarity 'iou': choose one of kl, exp_kl, wd"):
        HierarchicalAssigner(similarity="iou")


def gaussian_filter(sigma_y: float, sigma_x: float) -> nn.Module:
    """A linear layer whose units see a Gaussian of these standard deviations."""
    y, x = (torch.exp(-(torch.arange(-30.0, 31) ** 2) / (2 * s**2)) for s in (sigma_y, sigma_x))
    layer = nn.Conv2d(3, 1, 61, padding=30, bias=False)
    layer.weight.data = (y[:, None] * x).expand(1, 3, -1, -1).clone()
    return layer


def test_a_gaussian_field_measures_two_standard_deviations():
    fine, coarse = gaussian_filter(4, 4), gaussian_filter(5, 8)
    sides = effective_receptive_fields(
        lambda images: (fine(images), coarse(images)[..., ::4, ::4]), (96, 128)
    )
    assert np.allclose(sides, [8, 2 * math.sqrt(5 * 8)], rtol=0.01)


def test_a_measured_field_is_far_smaller_than_the_theoretical_one_of_deep_networks():
    torch.manual_seed(0)
    layers = [nn.Conv2d(3 if i == 0 else 8, 8, 3, padding=1) for i in range(12)]
    (side,) = effective_receptive_fields(lambda images: [nn.Sequential(*layers)(images)], (64, 64))
    assert 3 < side < 12.5  # 25 px in theory


def test_measuring_repeats_exactly():
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 4, 5, stride=2), nn.ReLU(), nn.Conv2d(4, 4, 5))
    runs = [effective_receptive_fields(lambda images: [network(images)], (32, 32)) for _ in range(2)]
    assert runs[0] == runs[1]
    assert all(parameter.grad is None for parameter in network.parameters())


def test_a_region_proposal_network_learns_from_it():
    sides = [side / 2 for side in resnet50_receptive_fields()[:5]]
    torch.manual_seed(0)
    head = MODELS.build(
        {
            "type": "mmdet.RPNHead",
            "in_channels": 8,
            "feat_channels": 8,
            "anchor_generator": receptive_field_priors(sides, STRIDES),
            "bbox_coder": {"type": "DeltaXYWHBBoxCoder"},
            "train_cfg": {
                "assigner": {"type": "HierarchicalAssigner", "topk": (3, 1)},
                "sampler": {"type": "RandomSampler", "num": 64, "pos_fraction": 0.5},
                "allowed_border": 0,
                "pos_weight": -1,
                "debug": False,
            },
        }
    )
    features = [torch.randn(1, 8, 64 // stride, 64 // stride) for stride in STRIDES]
    truth = InstanceData(bboxes=torch.tensor([[20.0, 20, 36, 36]]), labels=torch.tensor([0]))
    image = {"img_shape": (64, 64), "pad_shape": (64, 64)}
    losses = head.loss_by_feat(*head(features), [truth], [image])
    sum(map(sum, losses.values())).backward()
    assert head.rpn_reg.weight.grad.any() and head.rpn_cls.weight.grad.isfinite().all()
