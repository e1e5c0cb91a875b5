"""Tensors that say that they are on a GPU, and are computed on the CPU."""

import functools
import itertools
from collections.abc import Callable, Iterable, Iterator

import torch
from torch._C import DispatchKey
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.backend_registration import _DummyBackendModule, _setup_privateuseone_for_python_backend
from torch.utils.weak import WeakTensorKeyDictionary

from pretended import precision
from pretended.ledger import Ledger
from pretended.rules import COPIES, INDEXED, check_devices, waits

aten = torch.ops.aten
NAME = "pretended"
PRODUCTS = {aten.convolution, aten.convolution_backward, aten.mm, aten.addmm, aten.bmm, aten.baddbmm}


class _Backend(_DummyBackendModule):
    def get_amp_supported_dtype(self) -> list[torch.dtype]:
        return [torch.float16, torch.bfloat16]


_setup_privateuseone_for_python_backend(NAME, _Backend())
precision.register(NAME)
DEVICE = torch.device(NAME, 0)


class Pretended(torch.Tensor):
    """A tensor on the pretended GPU.

    Args:
        held: on the CPU, what it stands for.
    """

    @staticmethod
    def __new__(cls, held: torch.Tensor):
        layout = {"strides": held.stride(), "storage_offset": held.storage_offset()}
        return torch.Tensor._make_wrapper_subclass(cls, held.shape, dtype=held.dtype, device=DEVICE, **layout)

    def __init__(self, held: torch.Tensor):
        self.held = held

    def __repr__(self) -> str:
        return f"Pretended({self.held!r})"

    def numpy(self, *, force: bool = False):
        if not force:
            raise TypeError(f"numpy cannot read a tensor on {DEVICE}: call .cpu() first")
        return self.detach().cpu().numpy()

    def tolist(self):
        return self.detach().cpu().tolist()

    def __reduce_ex__(self, protocol):
        """In a file lie numbers, which a machine without a GPU can load."""
        return self.detach().cpu().__reduce_ex__(protocol)

    # With these two torch swaps a module's tensors when it moves here; its optimiser keeps its parameters.
    def __tensor_flatten__(self):
        return ["held"], None

    @staticmethod
    def __tensor_unflatten__(inner, context, size, stride):
        return Pretended(inner["held"])

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        raise RuntimeError(f"{func.name()} on a tensor of the pretended GPU, which is not there any more")


class PretendedMode(TorchDispatchMode):
    """Carries out what is asked of the pretended GPU, refuses what a real one refuses, keeps the ledger."""

    def __init__(self, ledger: Ledger):
        super().__init__()
        self.ledger = ledger
        self.pinned = WeakTensorKeyDictionary()

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # nothing is compiled, and to skip it is dear

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs, packet = kwargs or {}, func.overloadpacket
        if packet is aten.is_pinned:
            return args[0] in self.pinned
        if packet is aten._pin_memory:
            copy = args[0].clone()
            self.pinned[copy] = True
            return copy
        if is_made_of_others(func):  # within inference_mode torch hands it over as a whole
            with self:
                return func.decompose(*args, **kwargs)
        tensors = list(tensors_in(itertools.chain(args, kwargs.values())))
        there = any(isinstance(each, Pretended) for each in tensors)
        goes_there = torch.device(kwargs["device"]).type == NAME if kwargs.get("device") else there
        if there:
            check_devices(func, args, tensors)
            if waits(func, args, kwargs):
                self.ledger.waited()
            if packet in INDEXED and any(each.device != DEVICE for each in args[1] if each is not None):
                self.ledger.copied()
                self.ledger.waited()
        if packet is aten._to_copy:
            self._copied(args[0], goes_there, bool(kwargs.get("non_blocking")))
        elif packet in COPIES:
            for target, source in zip(tensors_in(args[:1]), tensors_in(args[1:2]), strict=True):
                self._copied(source, isinstance(target, Pretended), args[2:] == (True,))
        return compute(func, args, kwargs, goes_there)

    def _copied(self, source: torch.Tensor, goes_there: bool, non_blocking: bool) -> None:
        """Nobody waits only for what goes without blocking from pinned memory to the GPU."""
        if isinstance(source, Pretended) == goes_there:
            return
        if goes_there:
            self.ledger.copied()
        if not (goes_there and non_blocking and source in self.pinned):
            self.ledger.waited()


@functools.cache
def is_made_of_others(func: torch._ops.OpOverload) -> bool:
    composite = DispatchKey.CompositeImplicitAutograd
    return torch._C._dispatch_has_kernel_for_dispatch_key(func.name(), composite)


def compute(func: Callable, args: tuple, kwargs: dict, goes_there: bool) -> object:
    """On the CPU; what comes out goes to the GPU or not, and a tensor that was written to stays itself."""
    kwargs = {name: held(value) for name, value in kwargs.items() if name != "pin_memory"}
    if kwargs.get("device") is not None:
        kwargs["device"] = torch.device("cpu")
    args_held = tuple(held(value) for value in args)
    with torch._C.DisableTorchFunction():
        out = _in_single(func, args_held) if func.overloadpacket in PRODUCTS else func(*args_held, **kwargs)
    if not goes_there:
        return out
    if not func._schema.is_mutable:
        return on_card(out)
    written = {id(each.held): each for each in tensors_in(args) if isinstance(each, Pretended)}
    for each in written.values():
        if each.held.shape != each.shape:
            raise NotImplementedError(f"{func.name()} changes the shape of a tensor in place")
    return on_card(mapped(lambda each: written.get(id(each), each), out))


def _in_single(func: Callable, args: tuple) -> object:
    """Summed in single precision, as a GPU does; and CPUs are slow in half precision."""
    dtypes = {each.dtype for each in tensors_in(args)}
    if not dtypes & {torch.float16, torch.bfloat16}:
        return func(*args)
    (dtype,) = dtypes
    out = func(*mapped(torch.Tensor.float, args))
    return mapped(lambda each: each.to(dtype), out)


def tensors_in(values: Iterable) -> Iterator[torch.Tensor]:
    """Among an operator's arguments, which are values and lists of them."""
    for value in values:
        if isinstance(value, torch.Tensor):
            yield value
        elif isinstance(value, (list, tuple)):
            yield from tensors_in(value)


def mapped(function: Callable, value: object) -> object:
    """An argument or result of an operator with ``function`` applied to its tensors."""
    if isinstance(value, torch.Tensor):
        return function(value)
    if isinstance(value, (list, tuple)):
        return type(value)(mapped(function, each) for each in value)
    return value


def held(value: object) -> object:
    return mapped(lambda each: each.held if isinstance(each, Pretended) else each, value)


def on_card(value: object) -> object:
    return mapped(lambda each: each if isinstance(each, Pretended) else Pretended(each), value)
