"""The compiled operators of torchvision and mmcv, or what stands in for them.

Detectors need two: non-maximum suppression and RoIAlign. Compiled mmcv is used where it is installed,
else torchvision's operators where they run, else, on a CPU, plain torch.
"""

import functools
import importlib.machinery
import importlib.util
import sys
import types
from collections.abc import Callable

import torch

from busflow.errors import BusflowError, is_out_of_memory
from busflow.models.nms import nms
from busflow.models.roi_align import roi_align, roi_align_backward

MMCV_EXTENSION = "mmcv._ext"

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


def ensure_operators() -> None:
    """Let ``mmcv.ops`` be imported and work, whether or not mmcv is compiled.

    Puts a stand-in where an mmcv installed without compiling lacks its extension. It has the
    operators that the detectors need; any other raises a BusflowError when it is called. Imports
    nothing of mmcv. Call this before ``mmcv.ops`` or mmdet is imported.
    """
    mmcv = importlib.util.find_spec("mmcv")
    if mmcv is None or MMCV_EXTENSION in sys.modules:
        return
    if importlib.machinery.PathFinder.find_spec(MMCV_EXTENSION, mmcv.submodule_search_locations) is None:
        sys.modules[MMCV_EXTENSION] = _Extension()


class _Extension(types.ModuleType):
    """What mmcv calls: its names, argument order and outputs that it hands in to be filled."""

    def __init__(self):
        super().__init__(MMCV_EXTENSION, "Stands in for mmcv's compiled extension.")
        self.__spec__ = importlib.machinery.ModuleSpec(MMCV_EXTENSION, loader=None)

    def __getattr__(self, name: str) -> Callable:
        if name.startswith("__"):
            raise AttributeError(name)

        def missing(*args: object, **kwargs: object) -> None:
            raise BusflowError(
                f"this model needs mmcv's compiled operator {name}: install an mmcv compiled for your "
                "torch and CUDA, or choose a model without it"
            )

        return missing

    @staticmethod
    def nms(boxes: torch.Tensor, scores: torch.Tensor, iou_threshold: float, offset: int) -> torch.Tensor:
        if offset == 0 and torchvision_runs_on(boxes.device.type):
            dtype = torch.promote_types(boxes.dtype, torch.float32)
            return torch.ops.torchvision.nms(boxes.to(dtype), scores.to(dtype), iou_threshold)
        return nms(boxes, scores, iou_threshold, offset)

    @staticmethod
    def roi_align_forward(
        features: torch.Tensor,
        rois: torch.Tensor,
        output: torch.Tensor,
        argmax_y: torch.Tensor,
        argmax_x: torch.Tensor,
        *,
        aligned_height: int,
        aligned_width: int,
        spatial_scale: float,
        sampling_ratio: int,
        pool_mode: int,
        aligned: bool,
    ) -> None:
        if pool_mode != 1:
            raise BusflowError("RoIAlign with pool_mode max needs a compiled mmcv: use pool_mode avg")
        if torchvision_runs_on(features.device.type):
            dtype = torch.promote_types(features.dtype, torch.float32)
            pooled = torch.ops.torchvision.roi_align(
                features.to(dtype),
                rois.to(dtype),
                spatial_scale,
                aligned_height,
                aligned_width,
                sampling_ratio,
                aligned,
            )
        else:
            size = (aligned_height, aligned_width)
            pooled = roi_align(features, rois, size, spatial_scale, sampling_ratio, aligned)
        output.copy_(pooled)

    @staticmethod
    def roi_align_backward(
        gradient: torch.Tensor,
        rois: torch.Tensor,
        argmax_y: torch.Tensor,
        argmax_x: torch.Tensor,
        gradient_of_features: torch.Tensor,
        *,
        aligned_height: int,
        aligned_width: int,
        spatial_scale: float,
        sampling_ratio: int,
        pool_mode: int,
        aligned: bool,
    ) -> None:
        shape = gradient_of_features.shape
        if torchvision_runs_on(gradient.device.type):
            dtype = torch.promote_types(gradient.dtype, torch.float32)
            summed = torch.ops.torchvision._roi_align_backward(
                gradient.to(dtype),
                rois.to(dtype),
                spatial_scale,
                aligned_height,
                aligned_width,
                *shape,
                sampling_ratio,
                aligned,
            )
        else:
            summed = roi_align_backward(gradient, rois, shape, spatial_scale, sampling_ratio, aligned)
        gradient_of_features.copy_(summed)


@functools.cache
def torchvision_runs_on(device: str) -> bool:
    """Whether torchvision's compiled operators are there for this type of device.

    Raises:
        BusflowError: they are not, and it is a GPU, which plain torch would keep waiting: two to six times as
            often in a step.
    """
    import torchvision

    box = torch.zeros(1, 4, device=device)
    try:
        torchvision.ops.nms(box, box[:, 0], 0.5)
    except RuntimeError as error:
        if is_out_of_memory(error):  # which says nothing of the operators
            raise
        if device == "cuda":
            raise BusflowError(
                f"torchvision {torchvision.__version__} has no operators for GPUs beside torch "
                f"{torch.__version__} (CUDA {torch.version.cuda}): install the two from one index, or an "
                "mmcv compiled for them"
            ) from error
        return False
    return True
