"""What mmdet's detectors make their targets with: the same numbers with fewer operators and waits on a GPU.

mmdet makes priors and constants anew for every image of every batch, and asks the GPU for values that nothing
needs to know. A class here takes the place of the one that it is derived from.
"""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from mmdet.models.task_modules import (
    AnchorGenerator,
    AssignResult,
    DeltaXYWHBBoxCoder,
    MaxIoUAssigner,
    RandomSampler,
    SamplingResult,
)
from mmdet.registry import TASK_UTILS
from mmengine.config import ConfigDict
from mmengine.structures import InstanceData

MOST_KEPT = 8  # sets of priors: of a size of image, in single precision and half, on a device


def put_in(config: ConfigDict) -> None:
    """Let a detector's configuration name the classes of this module in place of mmdet's."""
    ours = {each.__base__.__name__: each.__name__ for each in (KeptAnchors, KeptCoder, Assigner, Sampler)}
    for value in config.values():
        for each in value if isinstance(value, list) else [value]:
            if isinstance(each, dict):
                put_in(each)
    if config.get("type") in ours:
        config["type"] = ours[config["type"]]


@TASK_UTILS.register_module()
class KeptAnchors(AnchorGenerator):
    """Priors, and which of them lie in the image, made once for images of one size.

    What it returns is not to be changed in place.
    """

    def grid_priors(
        self,
        featmap_sizes: Sequence[tuple[int, int]],
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cuda",
    ) -> list[torch.Tensor]:
        """The priors of each level [N, 4]."""
        return self._kept(super().grid_priors, featmap_sizes, dtype=dtype, device=device)

    def valid_flags(
        self,
        featmap_sizes: Sequence[tuple[int, int]],
        pad_shape: tuple[int, int],
        device: torch.device | str = "cuda",
    ) -> list[torch.Tensor]:
        """Of each level, which priors [N] lie in the image."""
        return self._kept(super().valid_flags, featmap_sizes, pad_shape, device=device)

    def _kept(self, make: Callable, sizes: Sequence[Sequence[int]], *shape, **options) -> list[torch.Tensor]:
        key = (make.__name__, tuple(map(tuple, sizes)), shape, *options.values())
        kept = vars(self).setdefault("kept", {})
        if key not in kept:
            if len(kept) >= MOST_KEPT:
                kept.clear()
            with torch.inference_mode(False):  # or training could not use it later
                kept[key] = make(sizes, *shape, **options)
        return list(kept[key])


@TASK_UTILS.register_module()
class KeptCoder(DeltaXYWHBBoxCoder):
    """Boxes as changes of others, with means and standard deviations that stay on the device."""

    def encode(self, bboxes: torch.Tensor, gt_bboxes: torch.Tensor) -> torch.Tensor:
        """Shifts of the centres, in sides, and logarithms of growth, [N, 4], from boxes [N, 4] to others."""
        (centre, sides), (wanted, wanted_sides) = map(_parts, (bboxes.float(), gt_bboxes.float()))
        deltas = torch.cat([(wanted - centre) / sides, (wanted_sides / sides).log()], -1)
        means, stds = self._constants(deltas)
        return deltas.sub_(means).div_(stds)

    def decode(
        self,
        bboxes: torch.Tensor,
        pred_bboxes: torch.Tensor,
        max_shape: tuple[int, int] | None = None,
        wh_ratio_clip: float = 16 / 1000,
    ) -> torch.Tensor:
        """Boxes [N, K * 4] from boxes [N, 4] and K changes of each, [N, K * 4].

        Args:
            max_shape: height and width of the image, at which boxes are cut.
            wh_ratio_clip: of the growth of a side, at least; its inverse at most.
        """
        deltas = pred_bboxes.unflatten(-1, (-1, 4))
        means, stds = self._constants(deltas)
        shift, growth = (deltas * stds + means).split(2, -1)
        centre, sides = _parts(bboxes[:, None])
        most = abs(np.log(wh_ratio_clip))
        centre = centre + sides * shift
        half = sides * growth.clamp(-most, most).exp() * 0.5
        boxes = torch.cat([centre - half, centre + half], -1)
        if self.clip_border and max_shape is not None:
            boxes[..., 0::2].clamp_(0, max_shape[1])
            boxes[..., 1::2].clamp_(0, max_shape[0])
        return boxes.flatten(-2)

    def _constants(self, deltas: torch.Tensor) -> list[torch.Tensor]:
        options = {"dtype": deltas.dtype, "device": deltas.device}
        kept = vars(self).setdefault("kept", {})
        if (key := tuple(options.values())) not in kept:
            with torch.inference_mode(False):  # as above
                kept[key] = [torch.tensor(each, **options) for each in (self.means, self.stds)]
        return kept[key]


def _parts(boxes: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Centres and sides [..., 2] of boxes [..., 4]."""
    start, end = boxes.split(2, -1)
    return (start + end) * 0.5, end - start


@TASK_UTILS.register_module()
class Assigner(MaxIoUAssigner):
    """Labels for priors by their overlap with true boxes, without a look at any."""

    def assign_wrt_overlaps(self, overlaps: torch.Tensor, gt_labels: torch.Tensor) -> AssignResult:
        """Assign by the overlaps [M, N] of M boxes, with labels [M], and N priors."""
        if not (overlaps.numel() and isinstance(self.neg_iou_thr, float) and self.gt_max_assign_all):
            return super().assign_wrt_overlaps(overlaps, gt_labels)
        best, box = overlaps.max(0)
        rest = torch.where((best >= 0) & (best < self.neg_iou_thr), 0, -1)
        assigned = torch.where(best >= self.pos_iou_thr, box + 1, rest)
        if self.match_low_quality:
            most = overlaps.amax(1, keepdim=True)
            claims = (overlaps == most) & (most >= self.min_pos_iou)
            number = torch.arange(1, len(overlaps) + 1, device=overlaps.device)
            last = (claims * number[:, None]).amax(0)  # of several boxes that claim a prior
            assigned = torch.where(last > 0, last, assigned)
        labels = torch.where(assigned > 0, gt_labels[(assigned - 1).clamp(min=0)], -1)
        return AssignResult(len(overlaps), assigned, best, labels)


@TASK_UTILS.register_module()
class Sampler(RandomSampler):
    """A random choice of priors, in which nothing searches for doubles: there are none."""

    def sample(
        self,
        assign_result: AssignResult,
        pred_instances: InstanceData,
        gt_instances: InstanceData,
        **others,
    ) -> SamplingResult:
        """Choose ``num`` priors, at most the part ``pos_fraction`` of them positive."""
        priors, truth = pred_instances.priors, gt_instances.bboxes
        is_truth = priors.new_zeros(len(priors), dtype=torch.uint8)
        if self.add_gt_as_proposals and len(truth):
            priors = torch.cat([truth, priors])
            is_truth = torch.cat([is_truth.new_ones(len(truth)), is_truth])
            assign_result.add_gt_(gt_instances.labels)
        positive = self._some(assign_result.gt_inds > 0, int(self.num * self.pos_fraction))
        most = self.num - len(positive)
        if self.neg_pos_ub >= 0:
            most = min(most, int(self.neg_pos_ub * max(1, len(positive))))
        negative = self._some(assign_result.gt_inds == 0, most)
        return SamplingResult(positive, negative, priors, truth, assign_result, is_truth)

    def _some(self, wanted: torch.Tensor, most: int) -> torch.Tensor:
        found = wanted.nonzero().squeeze(1)
        return found if len(found) <= most else self.random_choice(found, most).sort().values
