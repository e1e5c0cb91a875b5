"""The memory of a GPU that a training needs."""

from busflow.planning.counts import Count

SINGLE = 4  # bytes
# A step has all gradients, and the optimiser these sums of each trained parameter besides.
STATES = {"adamw": 2, "sgd": 1}
# What the CUDA context, the workspaces of cuDNN and the gaps between blocks took on an H200 on top, at most
# (docs/gpus.md).
BESIDES = 2.5 * 2**30


def peak(count: Count, optimizer: str) -> int:
    """Bytes of the live tensors where a training step has most of them: at the start of its backward pass.

    That is the weights, their gradients and the state of the optimiser, all that autograd keeps, and the
    gradients of one operator's tensors. The copy of the best weights is the host's.

    Args:
        count: of the forward pass of the images that are on the device at once.
        optimizer: ``adamw`` or ``sgd``.
    """
    return count.weights + (1 + STATES[optimizer]) * SINGLE * count.trained + count.kept + count.largest


def most_images(one: Count, other: Count, optimizer: str, card: float) -> int:
    """Images at a time that a card of ``card`` GiB holds, if memory is linear in them; 0: not one."""
    each = (peak(other, optimizer) - peak(one, optimizer)) / (other.images - one.images)
    alone = peak(one, optimizer) - each * one.images
    return max(0, int((card * 2**30 - BESIDES - alone) / each))
