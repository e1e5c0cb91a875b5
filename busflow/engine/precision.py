"""What a training computes in: single precision, or mixed with a half one where the device has it."""

import torch
from mmengine.optim import AmpOptimWrapper, OptimWrapper


def resolve(wanted: str) -> str:
    """``bf16``, ``fp16`` or ``fp32``: what a training computes in on this machine.

    Args:
        wanted: one of these, or ``auto``: bf16 where the GPU has it (from NVIDIA's Ampere on), else fp16.
            On a CPU it is always fp32.
    """
    if not torch.cuda.is_available():
        return "fp32"
    if wanted != "auto":
        return wanted
    return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"


def wrap(precision: str, **options) -> OptimWrapper:
    """The optimiser with the precision of its steps.

    Products run in the half precision, and what needs range or digits in single, as ``torch.autocast`` sorts
    them; weights and their updates are always single. Only fp16 needs its gradients scaled (Micikevicius et
    al., ICLR 2018): bf16 has the range of fp32.

    Args:
        precision: from ``resolve``.
        options: of mmengine's ``OptimWrapper``.
    """
    if precision == "fp32":
        return OptimWrapper(**options)
    # In this mmengine's loop of validation computes, which is told no other.
    torch.set_autocast_dtype("cuda", torch.bfloat16 if precision == "bf16" else torch.float16)
    if precision == "bf16":
        return _MixedPrecision(dtype="bfloat16", loss_scale={"enabled": False}, **options)
    return _MixedPrecision(dtype="float16", **options)


class _MixedPrecision(AmpOptimWrapper):
    """One that takes over from another precision, on another card: the scale of its losses starts anew."""

    def load_state_dict(self, state_dict: dict) -> None:
        scale = state_dict.pop("loss_scaler", None)
        super().load_state_dict(state_dict | ({"loss_scaler": scale} if scale else {}))
