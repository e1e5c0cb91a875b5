"""Non-maximum suppression in plain torch, for machines without a compiled operator."""

import torch

BLOCK = 256  # boxes compared with one another at a time


def nms(boxes: torch.Tensor, scores: torch.Tensor, iou_threshold: float, offset: int = 0) -> torch.Tensor:
    """Greedy non-maximum suppression, as compiled mmcv and torchvision do it.

    From the best score down, a box stays unless its IoU with one that stays exceeds the threshold. Equal
    scores keep their order. Boxes without an area overlap nothing.

    Args:
        boxes: [N, 4]: x1, y1, x2, y2.
        scores: [N].
        iou_threshold: in [0, 1].
        offset: 1 counts both border pixels into widths and heights, 0 does not.

    Returns:
        The indices of the boxes that stay, best first.
    """
    boxes = boxes.to(torch.promote_types(boxes.dtype, torch.float32))
    rest = scores.argsort(descending=True, stable=True)
    kept = [rest[:0]]
    while len(rest):
        block, rest = rest[:BLOCK], rest[BLOCK:]
        over = _iou(boxes[block], boxes[block], offset) > iou_threshold
        block = block[_survivors(over.triu(1))]
        kept.append(block)
        rest = rest[~(_iou(boxes[block], boxes[rest], offset) > iou_threshold).any(0)]
    return torch.cat(kept)


def _survivors(over: torch.Tensor) -> torch.Tensor:
    """Mask of the boxes that stay, where ``over[i, j]`` tells that i, if it stays, suppresses j > i.

    The greedy answer is the only mask that reproduces itself; repetition finds it, since each round
    settles at least one more box.
    """
    stays = torch.ones(len(over), dtype=torch.bool, device=over.device)
    while True:
        again = ~over[stays].any(0)
        if torch.equal(again, stays):
            return stays
        stays = again


def _iou(a: torch.Tensor, b: torch.Tensor, offset: int) -> torch.Tensor:
    """IoU [A, B]; NaN, which exceeds no threshold, for two boxes without area."""
    left, top, right, bottom = a.T[:, :, None]
    x1, y1, x2, y2 = b.T
    width = (torch.minimum(right, x2) - torch.maximum(left, x1)).add_(offset).clamp_(min=0)
    height = (torch.minimum(bottom, y2) - torch.maximum(top, y1)).add_(offset).clamp_(min=0)
    intersection = width.mul_(height)
    areas = (right - left + offset) * (bottom - top + offset), (x2 - x1 + offset) * (y2 - y1 + offset)
    return intersection / (areas[0] + areas[1] - intersection)
