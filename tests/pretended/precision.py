"""Mixed precision on the pretended GPU, by CUDA's own lists of operators."""

import re
from collections.abc import Callable
from pathlib import Path

import torch
from torch._C import DispatchKey, DispatchKeySet
from torch.utils._pytree import tree_leaves, tree_map

KEY = "AutocastPrivateUse1"
HEADER = Path(torch.__file__).parent / "include/ATen/autocast_mode.h"
_libraries: list[torch.library.Library] = []  # torch forgets what they registered when they are collected


def lists() -> dict[str, list[str]]:
    """Names of operators by what CUDA's autocast does to them, from the header that torch ships."""
    macros = re.findall(r"#define AT_FORALL_(\w+)\(_\)((?:.*\\\n)*.*\n)", HEADER.read_text())
    return {
        name: [
            ".".join(part for part in match if part) for match in re.findall(r"_\((\w+)(?:, (\w+))?\)", body)
        ]
        for name, body in macros
    }


def register(device: str) -> None:
    """Give autocast on this device, which torch has no rules for, those of CUDA."""
    others, library = torch.library.Library("_", "IMPL"), torch.library.Library("aten", "IMPL")
    _libraries.extend([others, library])
    others.fallback(torch.library.fallthrough_kernel, KEY)
    for kind, names in lists().items():
        for name in names:
            library.impl(name, _cast(name, kind, device), KEY)


def _cast(name: str, kind: str, device: str) -> Callable:
    packet, _, overload = name.partition(".")
    operator = getattr(getattr(torch.ops.aten, packet), overload or "default")

    def call(*args, **kwargs):
        dtype = _dtype(kind, args, device)
        args = tree_map(lambda value: value.to(dtype) if _is_real(value) else value, args)
        with torch._C._ExcludeDispatchKeyGuard(DispatchKeySet(DispatchKey.AutocastPrivateUse1)):
            return operator(*args, **kwargs)

    return call


def _dtype(kind: str, args: tuple, device: str) -> torch.dtype:
    if kind == "LOWER_PRECISION_FP":
        return torch.get_autocast_dtype(device)
    if kind == "PROMOTE" and all(each.dtype != torch.float32 for each in tree_leaves(args) if _is_real(each)):
        return torch.get_autocast_dtype(device)
    return torch.float32


def _is_real(value: object) -> bool:
    """What autocast casts; double precision it leaves alone."""
    return isinstance(value, torch.Tensor) and value.is_floating_point() and value.dtype != torch.float64
