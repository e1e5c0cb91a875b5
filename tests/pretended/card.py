"""The pretended GPU as the program's own: what it asks to learn whether there is one says so."""

import contextlib
import functools
from collections.abc import Callable, Iterator
from unittest import mock

import mmengine.device.utils
import mmengine.optim.optimizer.amp_optimizer_wrapper
import mmengine.runner.amp
import mmengine.runner.loops
import mmengine.runner.runner
import mmengine.structures.instance_data
import torch
from torch.utils._pytree import tree_map

from busflow.models import ops
from pretended.ledger import Ledger
from pretended.tensors import DEVICE, NAME, Pretended, PretendedMode, held, on_card


@contextlib.contextmanager
def card() -> Iterator[Ledger]:
    """Let the program find a GPU, which is pretended; yields what it asks of it that costs time."""
    ledger = Ledger()
    with contextlib.ExitStack() as stack:
        for patch in _patches(ledger):
            stack.enter_context(patch)
        stack.enter_context(torch.autograd.set_multithreading_enabled(False))
        lifted = torch._C._only_lift_cpu_tensors()
        torch._C._set_only_lift_cpu_tensors(
            True
        )  # torch.tensor and its like move what they made by an operator
        stack.callback(torch._C._set_only_lift_cpu_tensors, lifted)
        stack.enter_context(PretendedMode(ledger))
        yield ledger


def _patches(ledger: Ledger) -> list:
    """mmengine knows GPUs by name, and files hold none of the pretended one's tensors."""
    amp = mmengine.optim.optimizer.amp_optimizer_wrapper
    instances = mmengine.structures.instance_data
    patch = mock.patch.object
    return [
        patch(torch.cuda, "is_available", lambda: True),
        patch(torch.cuda, "device_count", lambda: 1),
        # One from before Ampere, whose mixed precision is fp16: the scaler of the losses is tried as well.
        patch(torch.cuda, "is_bf16_supported", lambda including_emulation: False),
        patch(torch.cuda, "get_device_name", lambda device=None: NAME),
        patch(torch.cuda, "max_memory_allocated", lambda device=None: 0),
        patch(torch.cuda, "reset_peak_memory_stats", lambda device=None: None),
        patch(mmengine.device.utils, "DEVICE", NAME),
        patch(amp, "GradScaler", functools.partial(torch.amp.GradScaler, device=NAME)),
        *(
            patch(module, "autocast", functools.partial(torch.autocast, NAME))
            for module in (mmengine.runner.amp, mmengine.runner.loops)
        ),
        patch(instances, "IndexType", instances.IndexType | Pretended),
        patch(mmengine.runner.runner, "collect_env", dict),  # asks the compilers of GPUs
        patch(torch, "load", functools.partial(_load, torch.load)),
        # torchvision's operators, which a real GPU has. Suppression waits once, to count what is left.
        patch(ops, "nms", as_kernel(ops.nms, ledger.waited)),
        patch(ops, "roi_align", as_kernel(ops.roi_align)),
        patch(ops, "roi_align_backward", as_kernel(ops.roi_align_backward)),
    ]


def _load(load: Callable, file: object, map_location: object = None, **options) -> object:
    content = load(file, map_location="cpu", **options)
    if map_location is None or torch.device(map_location).type != NAME:
        return content
    return tree_map(lambda value: value.to(DEVICE) if isinstance(value, torch.Tensor) else value, content)


def as_kernel(function: Callable, before: Callable[[], None] = lambda: None) -> Callable:
    """A function of tensors as one operator of the GPU: what it does within is no business of the CPU's."""

    def kernel(*args):
        before()
        with torch.utils._python_dispatch._disable_current_modes():
            return on_card(function(*tree_map(held, args)))

    return kernel
