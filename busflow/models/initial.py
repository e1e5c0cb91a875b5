"""Networks without initial weights, to be filled with weights that exist."""

import torch
from torch.nn import init
from torch.overrides import TorchFunctionMode

Tensor = torch.Tensor
# What torch, timm and mmengine make initial values with; torch.nn.init passes some to a mode as a whole.
FILLING = {Tensor.uniform_, Tensor.normal_, Tensor.fill_, Tensor.zero_}
FILLING |= {Tensor.erfinv_, Tensor.mul_, Tensor.add_, Tensor.clamp_}  # of truncated normal distributions
FILLING |= {init.uniform_, init.normal_, init.constant_, init.kaiming_uniform_}


class parameters_unset(TorchFunctionMode):
    """Parameters of networks that are built within keep what lies in their memory.

    Drawing random ones takes longer than loading trained ones. On torch's meta device, which would spare them
    too, nothing has a value, and a detector reads some while it is built: its anchors, its rates of
    stochastic depth.
    """

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if func in FILLING:
            filled = args[0] if args else kwargs["tensor"]
            if isinstance(filled, torch.nn.Parameter):
                return filled
        return func(*args, **(kwargs or {}))
