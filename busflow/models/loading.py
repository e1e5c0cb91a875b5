"""Networks that are built only to take weights that exist."""

from collections.abc import Callable

import torch
from torch.nn import init
from torch.overrides import TorchFunctionMode

Tensor = torch.Tensor
# What torch, timm and mmengine make initial values with; torch.nn.init passes some to a mode as a whole.
FILLING = {Tensor.uniform_, Tensor.normal_, Tensor.fill_, Tensor.zero_}
FILLING |= {Tensor.erfinv_, Tensor.mul_, Tensor.add_, Tensor.clamp_}  # of truncated normal distributions
FILLING |= {init.uniform_, init.normal_, init.constant_, init.kaiming_uniform_}


class _LeftUnset(TorchFunctionMode):
    """Parameters that are made within keep what lies in their memory.

    On torch's meta device nothing has a value, and a detector reads some while it is built: its anchors, its
    rates of stochastic depth.
    """

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if func in FILLING:
            filled = args[0] if args else kwargs["tensor"]
            if isinstance(filled, torch.nn.Parameter):
                return filled
        return func(*args, **(kwargs or {}))


def load_network(build: Callable[[], torch.nn.Module], weights: dict[str, Tensor]) -> torch.nn.Module:
    """The network that ``build`` makes, with these weights, in evaluation mode.

    Random ones are not drawn first: that would take longer than these take to load.

    Args:
        build: makes the network, and whatever is no weight, as a trained one has it.
        weights: its whole state dict; the network takes over the tensors themselves.

    Raises:
        RuntimeError: the weights are another network's.
    """
    with _LeftUnset():
        network = build()
    network.load_state_dict(weights, assign=True)
    return network.eval()
