"""DETR's losses, matched at once, against mmdet's own head, which matches image by image."""

import mmdet
import pytest
import torch
from mmdet.registry import MODELS
from mmengine.registry import DefaultScope
from mmengine.structures import InstanceData

from busflow.models import detr_head  # noqa: F401  (registers its class)
from busflow.models.published import published_model

LAYERS, QUERIES, CLASSES = 6, 20, 2


def head(kind: str) -> torch.nn.Module:
    """Of DETR as published, for two classes."""
    config = published_model(mmdet, "detr/detr_r50_8xb2-150e_coco.py")
    config.bbox_head.update(type=kind, num_classes=CLASSES, train_cfg=config.train_cfg)
    with DefaultScope.overwrite_default_scope("mmdet"):
        return MODELS.build(config.bbox_head)


def losses(kind: str, logits: torch.Tensor, found: torch.Tensor, truth: list[InstanceData]) -> dict:
    """The losses, and the gradients of what they are of."""
    logits, found = logits.clone().requires_grad_(), found.clone().requires_grad_()
    meta = [{"img_shape": (96, 128)}] * len(truth)
    made = head(kind).loss_by_feat(logits, found, truth, meta)
    sum(made.values()).backward()
    return made | {"logits": logits.grad, "boxes": found.grad}


def true_boxes(*numbers: int) -> list[InstanceData]:
    """So many in each image."""
    corners = [torch.rand(number, 2) * 60 for number in numbers]
    return [
        InstanceData(
            bboxes=torch.cat([corner, corner + 5 + torch.rand(len(corner), 2) * 30], 1),
            labels=torch.randint(CLASSES, (len(corner),)),
        )
        for corner in corners
    ]


@pytest.mark.parametrize("numbers", [(1, 1), (3, 0, 1), (0, 0), (25, 2)], ids=str)
def test_losses_and_gradients_are_those_of_mmdets_head(numbers):
    torch.manual_seed(0)
    logits = torch.randn(LAYERS, len(numbers), QUERIES, CLASSES + 1)
    found = torch.rand(LAYERS, len(numbers), QUERIES, 4) * 0.5 + 0.1
    truth = true_boxes(*numbers)
    ours, theirs = (losses(kind, logits, found, truth) for kind in ("BatchedDETRHead", "DETRHead"))
    torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-8)


def test_the_background_weighs_a_tenth_as_in_the_published_recipe():
    assert head("BatchedDETRHead").bg_cls_weight == 0.1
    weights = head("BatchedDETRHead").loss_cls.class_weight
    torch.testing.assert_close(torch.as_tensor(weights), torch.tensor([1.0, 1.0, 0.1]))
