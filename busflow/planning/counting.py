"""Counting what a forward pass of a model computes, moves and keeps."""

from collections.abc import Callable

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

from busflow.planning import steps
from busflow.planning.counts import Count

# Operators that only describe memory: they start nothing on a device.
ALLOCATIONS = ("empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided", "detach")


class Operators(TorchDispatchMode):
    """Counts operators that compute or copy something.

    torch's FlopCounterMode, whose formulas these are, looks at modules too, which takes as long again.

    Attributes:
        number: of them.
        flops: of their products.
        moved: bytes of all tensors that they take and give.
        largest: bytes of those of the largest operator.
    """

    def __init__(self):
        super().__init__()
        self.number = self.flops = self.moved = self.largest = 0

    def __torch_dispatch__(
        self, operator: Callable, types: tuple, args: tuple = (), kwargs: dict | None = None
    ) -> object:
        kwargs = kwargs or {}
        output = operator(*args, **kwargs)
        if operator.namespace != "aten" or operator.is_view:
            return output
        if operator._schema.name.partition("::")[2] not in ALLOCATIONS:
            leaves = tree_leaves((args, kwargs, output))
            size = sum(each.nbytes for each in leaves if isinstance(each, torch.Tensor))
            self.number += 1
            self.moved += size
            self.largest = max(self.largest, size)
        if formula := flop_registry.get(operator._overloadpacket):
            self.flops += formula(*args, **kwargs, out_val=output)
        return output


class Kept:
    """What autograd keeps for the backward pass, but for the tensors of the network itself."""

    def __init__(self, network: nn.Module):
        own = (*network.parameters(), *network.buffers())
        self.own = {tensor.untyped_storage()._cdata for tensor in own}
        self.storages: dict[int, torch.UntypedStorage] = {}

    def hooks(self) -> torch.autograd.graph.saved_tensors_hooks:
        return torch.autograd.graph.saved_tensors_hooks(self._keep, lambda tensor: tensor)

    @property
    def bytes(self) -> int:
        """A storage counts once, however many tensors of it are kept."""
        return sum(storage.nbytes() for storage in self.storages.values())

    def _keep(self, tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in self.own:
            self.storages[storage._cdata] = storage
        return tensor


def count(task: str, settings: dict, pretrained: bool, images: int) -> Count:
    """Count a forward pass of a registry entry in mixed precision.

    Args:
        task: of ``busflow.tasks``.
        settings: of the model and its training.
        pretrained: it starts from given weights.
        images: in the batch; two at least for networks that normalise over it.

    Raises:
        BusflowError: there is no such network.
    """
    network = steps.build(task, settings, pretrained)
    operators = Operators()
    with steps.without_values(network):
        kept = Kept(network)
        with operators, kept.hooks(), steps.mixed_precision():
            steps.loss(task, network, settings, images)
    return Count(
        images=images,
        flops=operators.flops,
        operators=operators.number,
        moved=operators.moved,
        kept=kept.bytes,
        largest=operators.largest,
        weights=sum(tensor.nbytes for tensor in (*network.parameters(), *network.buffers())),
        trained=sum(each.numel() for each in network.parameters() if each.requires_grad),
    )
