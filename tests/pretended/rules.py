"""What CUDA lets meet in one operator, and what makes the CPU wait for the GPU."""

import torch
from torch._prims_common import check_same_device, is_cpu_scalar_tensor

from pretended.ledger import caller

aten = torch.ops.aten

COPIES = {aten._to_copy, aten.copy_, aten._foreach_copy_}
INDEXED = {
    *(aten.index, aten.index_put, aten.index_put_, aten._index_put_impl_),
    *(aten._unsafe_index, aten._unsafe_index_put),
}
# They take a number that lies on the CPU, beside those that work element by element.
TAKE_NUMBERS = {aten.masked_fill, aten.masked_fill_, aten.fill, aten.fill_, *INDEXED}
# The size of the result, or the result itself, is known only when the GPU has computed it.
WAITING = {
    *(aten._local_scalar_dense, aten.equal, aten.is_nonzero, aten.nonzero, aten.masked_select, aten.bincount),
    *(aten._unique, aten._unique2, aten.unique_dim, aten.unique_consecutive, aten.repeat_interleave),
}


def check_devices(func: torch._ops.OpOverload, args: tuple, tensors: list[torch.Tensor]) -> None:
    """Refuse what CUDA refuses.

    Args:
        func, args: the operator's call.
        tensors: among its arguments, of whatever device.

    Raises:
        RuntimeError: tensors of two devices meet. A number on the CPU, a tensor without dimensions, may meet
            a GPU's where an operator works element by element; indices on the CPU may index a GPU's tensor,
            but not the reverse.
    """
    packet = func.overloadpacket
    if packet in COPIES:
        return
    if packet in INDEXED:
        _check_indices(args[0], args[1])
        tensors = [args[0], *args[2:3]]
    first = next((each.device for each in tensors), None)
    if all(each.device == first for each in tensors):
        return
    written = [each for each in tensors if any(each is one for one in _written(func, args))]
    others = [each for each in tensors if not any(each is one for one in written)]
    if packet in TAKE_NUMBERS or torch.Tag.pointwise in func.tags or "_foreach" in func.name():
        others = [each for each in others if not is_cpu_scalar_tensor(each)]
    try:
        check_same_device(*written, *others, allow_cpu_scalar_tensors=False)
    except RuntimeError as error:
        raise RuntimeError(f"two devices meet in {func.name()}, called by {caller()}: {error}") from None


def _written(func: torch._ops.OpOverload, args: tuple) -> list:
    """Arguments that an operator writes to."""
    pairs = zip(func._schema.arguments, args, strict=False)
    return [value for argument, value in pairs if argument.alias_info and argument.alias_info.is_write]


def _check_indices(indexed: torch.Tensor, indices: list[torch.Tensor | None]) -> None:
    for index in indices:
        if index is not None and index.device not in (indexed.device, torch.device("cpu")):
            raise RuntimeError(
                f"a tensor on the {indexed.device} is indexed by one on {index.device}, in {caller()}: "
                "move the indices to the CPU, or the tensor to the GPU"
            )


def waits(func: torch._ops.OpOverload, args: tuple, kwargs: dict) -> bool:
    """Whether an operator on the GPU's tensors makes the CPU wait, copies left out."""
    packet = func.overloadpacket
    if packet in INDEXED:
        masks = [index for index in args[1] if index is not None and index.dtype in (torch.bool, torch.uint8)]
        return any(mask.device.type != "cpu" for mask in masks)
    if packet is aten.repeat_interleave:  # else the caller tells the size of the result
        return kwargs.get("output_size") is None
    return packet in WAITING
