"""Makes torchvision importable beside a CPU build of torch."""

import torch

_schemas: list[torch.library.Library] = []  # torch forgets a schema when its library object is collected


def ensure_torchvision() -> None:
    """Import torchvision, whichever build of torch it sits beside.

    PyPI's torchvision is compiled against the CUDA build of torch. Beside a CPU build its operator
    library does not load, and its import stops because nobody declared the operators that it
    registers fake kernels for. Declaring their schemas lets the import pass; the operators stay
    unusable, and nothing here calls them. Call this before timm or torchvision is imported.

    Raises:
        RuntimeError: the import fails for any other reason.
    """
    try:
        import torchvision
    except RuntimeError as error:
        if "operator torchvision::nms does not exist" not in str(error):
            raise
        _declare_schemas()
        import torchvision  # noqa: F401


def _declare_schemas() -> None:
    library = torch.library.Library("torchvision", "FRAGMENT")
    for name in ("nms", "qnms"):
        library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    _schemas.append(library)
