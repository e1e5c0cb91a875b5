"""RFLA: labels for priors by their receptive fields (Xu et al., ECCV 2022, arXiv:2208.08738).

A prior is the Gaussian that a unit of the feature pyramid sees of the image, a lesion the Gaussian of its
box; the priors most similar to a lesion are its positives, whatever their IoU. A box stands for the
Gaussian whose mean is its centre and whose standard deviations are half its sides.
"""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from mmdet.models.task_modules import AssignResult, BaseAssigner
from mmdet.registry import TASK_UTILS
from mmengine.structures import InstanceData

from busflow.errors import BusflowError

EPSILON = 1e-6  # pixels added to the sides of boxes
AMBIGUOUS = 0.8  # from this similarity on, a prior that is no positive is no negative either
ONE_SIGMA = (0.15865525393145707, 0.8413447460685429)  # quantiles one standard deviation from the mean


def resnet50_receptive_fields() -> list[int]:
    """Sides in pixels of what the units of P2 ... P7 over a ResNet-50 see, as RFLA counts them.

    A layer of kernel k at stride s widens the field by (k - 1) s (Araujo et al., Distill 2019). Counted
    are the stem, the 3x3 layer of each block of the four stages and those of P6 and P7.
    """
    side = 1 + 6 * 1 + 2 * 2  # a 7x7 convolution at stride 1, a 3x3 pooling at stride 2
    fields = []
    for stride, blocks in zip((4, 8, 16, 32), (3, 4, 6, 3), strict=True):
        before = max(stride // 2, 4)  # the layer that halves the resolution still has the stride before it
        side += 2 * before + 2 * (blocks - 1) * stride
        fields.append(side)
    for stride in (64, 128):
        side += 2 * stride
        fields.append(side)
    return fields


def effective_receptive_fields(
    pyramid: Callable[[torch.Tensor], Sequence[torch.Tensor]],
    image_size: tuple[int, int],
    images: int = 8,
    seed: int = 0,
) -> list[float]:
    """Sides in pixels of the effective receptive fields of a pyramid's levels (Luo et al., NeurIPS 2016).

    A level's field is the mean magnitude of the gradient of its central unit with respect to random
    images. Its side is the distance between the quantiles one standard deviation from the mean,
    the geometric mean of both axes: for a Gaussian, the side of the box that stands for it.

    Args:
        pyramid: maps standardised images [B, 3, H, W] to the levels' features [B, C, h, w]; a network
            on the CPU in evaluation mode, with the weights that training starts from.
        image_size: height and width of the images; a field cannot exceed them.
        images: how many.
        seed: of their noise.
    """
    inputs = torch.randn(
        images, 3, *image_size, generator=torch.Generator().manual_seed(seed)
    ).requires_grad_()
    sides = []
    for features in pyramid(inputs):
        centre = features[..., features.shape[-2] // 2, features.shape[-1] // 2]
        (gradient,) = torch.autograd.grad(centre.sum(), inputs, retain_graph=True)
        field = gradient.abs().mean((0, 1)).double().numpy()
        sides.append(float(np.sqrt(_width(field.sum(0)) * _width(field.sum(1)))))
    return sides


def _width(profile: np.ndarray) -> float:
    below = np.concatenate([[0], np.cumsum(profile)]) / profile.sum()
    low, high = np.interp(ONE_SIGMA, below, np.arange(len(below)))
    return high - low


def receptive_field_priors(sides: Sequence[float], strides: Sequence[int] = (4, 8, 16, 32, 64)) -> dict:
    """Config of mmdet's generator of priors, one of each ratio at every unit, of these sides by level.

    RFLA takes half of each of :func:`resnet50_receptive_fields` for the effective field's side.
    """
    return {
        "type": "AnchorGenerator",
        "strides": list(strides),
        "base_sizes": list(sides),
        "scales": [1.0],
        "ratios": [0.5, 1.0, 2.0],
    }


def kl_divergence(truth: torch.Tensor, priors: torch.Tensor) -> torch.Tensor:
    """Kullback-Leibler divergence [M, N] of each prior's Gaussian from each true one's (RFLA, KLD)."""
    centre, side = _gaussians(truth[:, None])
    prior_centre, prior_side = _gaussians(priors[None])
    # In place, because memory traffic is what this costs.
    distance = (prior_centre - centre).mul_(2 / side).square_()
    divergence = distance.addcmul_(prior_side**2, side**-2).sum(0).div_(2)
    return divergence.add_(side.log().sum(0) - 1).sub_(prior_side.log().sum(0))


def wasserstein_distance(truth: torch.Tensor, priors: torch.Tensor) -> torch.Tensor:
    """Squared 2-Wasserstein distance [M, N] in pixels² between the Gaussians of boxes (RFLA, WD)."""
    centre, side = _gaussians(truth[:, None])
    prior_centre, prior_side = _gaussians(priors[None])
    return ((prior_centre - centre) ** 2 + (prior_side - side) ** 2 / 4).sum(0)


def _gaussians(boxes: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Centres and sides, [2, ...] for x and y, of boxes [..., 4]."""
    start, end = boxes.movedim(-1, 0).contiguous().split(2)
    return (start + end) / 2, end - start + EPSILON


SIMILARITIES: dict[str, Callable[[torch.Tensor, torch.Tensor], torch.Tensor]] = {
    "kl": lambda truth, priors: kl_divergence(truth, priors).add_(1).reciprocal_(),
    "exp_kl": lambda truth, priors: kl_divergence(truth, priors).div_(-10).exp_(),
    "wd": lambda truth, priors: wasserstein_distance(truth, priors).add_(1).reciprocal_(),
}


@TASK_UTILS.register_module()
class HierarchicalAssigner(BaseAssigner):
    """RFLA's hierarchical label assignment, for mmdet's region proposal network.

    First the ``topk[0]`` priors most similar to each true box are its positives, and those as similar as
    the last of them; then, among priors that are not yet positive, the ``topk[1]`` most similar to it
    after they shrank. Of the rest, priors of a similarity below 0.8 to all boxes are background, others
    are ignored.

    It differs from the authors' code, whose shrinking changes the priors that the regression targets
    are then computed from: here they keep their size. Where several boxes claim a prior, the most
    similar gets it, and the first of equals; there, the last in the annotation's order. A similarity of
    zero makes no positive (``exp_kl`` underflows far away, where all would tie). More ``topk`` than there
    are priors takes all of them.

    Args:
        similarity: ``kl``, 1 / (1 + KL); ``exp_kl``, exp(-KL / 10); ``wd``, 1 / (1 + W2²).
        topk: positives of a box in the first and the second stage.
        shrink: factor on the priors' sides in the second stage.
    """

    def __init__(self, similarity: str = "kl", topk: tuple[int, int] = (3, 1), shrink: float = 0.9):
        if similarity not in SIMILARITIES:
            known = ", ".join(SIMILARITIES)
            raise BusflowError(f"RFLA knows no similarity {similarity!r}: choose one of {known}")
        self.similarity, self.topk, self.shrink = SIMILARITIES[similarity], topk, shrink

    def assign(
        self,
        pred_instances: InstanceData,
        gt_instances: InstanceData,
        gt_instances_ignore: InstanceData | None = None,
    ) -> AssignResult:
        """Assign ``pred_instances.priors`` [N, 4] to ``gt_instances``' ``bboxes`` [M, 4] and ``labels`` [M].

        Boxes to ignore play no part, as in the authors' settings. In the result ``gt_inds`` are -1 where
        ignored, 0 for background, i + 1 for box i; ``max_overlaps`` is the second stage's similarity.
        """
        dtype = torch.promote_types(pred_instances.priors.dtype, torch.float32)
        priors, truth = pred_instances.priors.to(dtype), gt_instances.bboxes.to(dtype)
        labels = gt_instances.labels.new_full((len(priors),), -1)
        if not len(priors) or not len(truth):
            return AssignResult(len(truth), torch.zeros_like(labels), priors.new_zeros(len(priors)), labels)
        similarity = self.similarity(truth, priors)
        shrunk_similarity = self.similarity(truth, _shrink(priors, self.shrink))
        first = _assign_best(similarity, self.topk[0])
        assigned = torch.where(first > 0, first, _assign_best(shrunk_similarity, self.topk[1]))
        # Not by a mask: a GPU would have to be waited for.
        labels = torch.where(assigned > 0, gt_instances.labels[(assigned - 1).clamp(min=0)], labels)
        return AssignResult(len(truth), assigned, shrunk_similarity.amax(0), labels)


def _shrink(boxes: torch.Tensor, factor: float) -> torch.Tensor:
    corners, opposite = boxes.split(2, dim=1)
    margin = (opposite - corners) * ((1 - factor) / 2)
    return torch.cat([corners + margin, opposite - margin], 1)


def _assign_best(similarity: torch.Tensor, k: int) -> torch.Tensor:
    """One stage: for each prior of [M, N] similarities -1 (ignored), 0 (background) or i + 1 (box i)."""
    weakest = similarity.topk(min(k, similarity.shape[1]), dim=1).values[:, -1:]
    best, box = similarity.where(similarity >= weakest, 0).max(0)
    rest = -(similarity.amax(0) >= AMBIGUOUS).long()
    return torch.where(best > 0, box + 1, rest)
