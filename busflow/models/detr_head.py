"""DETR's head with its matching at once, for all images and decoder layers of a batch."""

import numpy as np
import torch
from mmdet.models.dense_heads import DETRHead
from mmdet.registry import MODELS
from mmdet.structures.bbox import bbox_cxcywh_to_xyxy, bbox_xyxy_to_cxcywh
from mmdet.utils import reduce_mean
from mmengine.dist import is_distributed
from mmengine.structures import InstanceData
from scipy.optimize import linear_sum_assignment


@MODELS.register_module()
class BatchedDETRHead(DETRHead):
    """mmdet's head, which gives the same losses and looks at the GPU's results once a batch.

    mmdet matches each image in each of six decoder layers by itself: at 16 images that is 96 times some 90
    operators and twelve waits, more time than all else takes on a GPU. The sizes of all images are equal.

    Args:
        num_classes: without the background.
        loss_cls: config of the loss, with ``class_weight``, and ``bg_cls_weight`` of the background.
        others: mmdet's.
    """

    def __init__(self, num_classes: int, loss_cls: dict, **others):
        # mmdet does so for no class but its own.
        options = dict(loss_cls)
        weights = torch.full((num_classes + 1,), options["class_weight"])
        weights[-1] = background = options.pop("bg_cls_weight")
        super().__init__(num_classes, loss_cls=options | {"class_weight": weights}, **others)
        self.bg_cls_weight = background

    def loss_by_feat(
        self,
        all_layers_cls_scores: torch.Tensor,
        all_layers_bbox_preds: torch.Tensor,
        batch_gt_instances: list[InstanceData],
        batch_img_metas: list[dict],
        batch_gt_instances_ignore: None = None,
    ) -> dict[str, torch.Tensor]:
        """Losses of classes, boxes and GIoU of each decoder layer, the last one's without a prefix.

        Args:
            all_layers_cls_scores: logits [L, B, Q, C].
            all_layers_bbox_preds: centres and sides [L, B, Q, 4], as parts of the image.
            batch_gt_instances: ``bboxes`` [G, 4] in pixels, as left, top, right, bottom, and ``labels`` [G].
            batch_img_metas: ``img_shape``, height and width.
        """
        logits, found = all_layers_cls_scores, all_layers_bbox_preds
        height, width = batch_img_metas[0]["img_shape"]
        size = found.new_tensor([width, height, width, height])
        truth = InstanceData.cat(batch_gt_instances)
        numbers = [len(each) for each in batch_gt_instances]
        query, box = self._matches(logits, found, size, truth, numbers, batch_img_metas[0])

        labels = truth.labels.new_full(logits.shape[:-1], self.num_classes)
        targets, weights = torch.zeros_like(found), torch.zeros_like(found)
        labels.view(-1)[query] = truth.labels[box]
        targets.view(-1, 4)[query] = bbox_xyxy_to_cxcywh(truth.bboxes / size)[box].to(targets)
        weights.view(-1, 4)[query] = 1

        layers, queries = len(logits), logits[0, ..., 0].numel()
        positive = len(query) // layers  # as many in each
        weighed = positive + (queries - positive) * self.bg_cls_weight
        if is_distributed():
            factors = torch.tensor([positive, weighed], dtype=torch.float, device=logits.device)
            positive, weighed = reduce_mean(factors).tolist()
        losses = {}
        for layer in range(layers):
            prefix = "" if layer == layers - 1 else f"d{layer}."
            boxes, wanted, weight = (each[layer].reshape(-1, 4) for each in (found, targets, weights))
            losses[f"{prefix}loss_cls"] = self.loss_cls(
                logits[layer].reshape(queries, -1),
                labels[layer].reshape(-1),
                weight.new_ones(queries),
                avg_factor=max(weighed, 1),
            )
            losses[f"{prefix}loss_bbox"] = self.loss_bbox(boxes, wanted, weight, avg_factor=max(positive, 1))
            losses[f"{prefix}loss_iou"] = self.loss_iou(
                bbox_cxcywh_to_xyxy(boxes) * size,
                bbox_cxcywh_to_xyxy(wanted) * size,
                weight,
                avg_factor=max(positive, 1),
            )
        return losses

    @torch.no_grad()
    def _matches(
        self,
        logits: torch.Tensor,
        found: torch.Tensor,
        size: torch.Tensor,
        truth: InstanceData,
        numbers: list[int],
        meta: dict,
    ) -> torch.Tensor:
        """Positions [2, M] of what is matched: among all queries of all layers, and among all true boxes.

        Args:
            numbers: of true boxes, by image.
        """
        predicted = InstanceData(
            scores=logits.flatten(0, 2), bboxes=bbox_cxcywh_to_xyxy(found.flatten(0, 2)) * size
        )
        costs = [cost(predicted, truth, img_meta=meta) for cost in self.assigner.match_costs]
        cost = torch.stack(costs).sum(0).cpu().unflatten(0, logits.shape[:3]).numpy()
        place = np.arange(logits[..., 0].numel()).reshape(logits.shape[:3])
        ends = np.cumsum(numbers)
        matches = [np.empty((2, 0), int)]
        for layer, image in np.ndindex(logits.shape[:2]):
            start, end = ends[image] - numbers[image], ends[image]
            query, box = linear_sum_assignment(cost[layer, image, :, start:end])
            matches.append(np.stack([place[layer, image][query], start + box]))
        return torch.from_numpy(np.concatenate(matches, 1)).to(logits.device)
