"""Files of weights: read as data, never run; taken out of their wrappings, checked, and loaded.

The one way by which weights come into any network. What timm and mmengine have for it leaves out what does
not fit, with a line in a log, and mmengine's runs what a file says.
"""

import pickle
import re
from collections.abc import Callable, Collection, Iterator
from pathlib import Path

import safetensors.torch
import torch
from torch import nn

from busflow.errors import BusflowError
from busflow.models.initial import parameters_unset

# What training scripts put beside the tensors that they publish; read as nothing.
HARMLESS = (
    "argparse.Namespace",
    *(f"numpy.{core}.multiarray.{name}" for core in ("core", "_core") for name in ("scalar", "_reconstruct")),
    *("numpy.dtype", "numpy.ndarray"),
    *("mmengine.config.config.Config", "mmengine.config.config.ConfigDict"),
    *("mmengine.logging.history_buffer.HistoryBuffer", "builtins.getattr"),  # the former pickles its methods
)
# Under which the tensors of a file lie, the averaged ones first, and what their names begin with.
WRAPPERS = ("state_dict_ema", "model_ema", "state_dict", "model", "model_state", "model_state_dict", "ema")
PREFIXES = ("module.", "_orig_mod.", "backbone.", "encoder.")


class _Unread:
    """Stands for an object that a file wants built."""

    def __new__(cls, *arguments):
        return super().__new__(cls)

    def __setstate__(self, state) -> None:
        pass


def read_data(path: Path | str, device: str = "cpu") -> object:
    """What ``torch.save`` wrote, if that is tensors and plain values; code that a file carries is not run.

    Args:
        path: of the file.
        device: that the tensors go to.

    Raises:
        BusflowError: the file is missing, broken, no such file, or carries other objects.
    """
    try:
        with torch.serialization.safe_globals([(_Unread, name) for name in HARMLESS]):
            return torch.load(path, map_location=device, weights_only=True)
    except FileNotFoundError as error:
        raise BusflowError(f"{path} does not exist; run what makes it") from error
    except pickle.UnpicklingError as error:
        if wanted := re.search(r"GLOBAL (\S+)", str(error)):
            raise BusflowError(
                f"{path} is not weights alone: it calls for {wanted[1]}, which could run code and was not "
                "run; take a file that holds a state_dict of tensors"
            ) from error
        raise BusflowError(f"{path} is no intact weights file of torch; fetch or make it anew") from error
    except Exception as error:  # whatever a broken file makes torch raise
        raise BusflowError(
            f"{path} is no intact weights file ({_in_a_line(error)}); fetch or make it anew"
        ) from error


def read_tensors(path: Path | str) -> dict[str, torch.Tensor]:
    """The tensors of a published file, torch's or safetensors', by the names that they have there.

    Raises:
        BusflowError: as ``read_data``, or the file holds no tensors.
    """
    if Path(path).suffix == ".safetensors":
        try:
            return safetensors.torch.load_file(path)
        except Exception as error:  # safetensors' own, and those of the system
            raise BusflowError(
                f"{path} is no intact weights file ({_in_a_line(error)}); fetch it again"
            ) from error
    content = read_data(path)
    while isinstance(content, dict):
        inner = next((content[key] for key in WRAPPERS if isinstance(content.get(key), dict)), None)
        if inner is None:
            break
        content = inner
    tensors = content.items() if isinstance(content, dict) else ()
    tensors = {name: each for name, each in tensors if isinstance(each, torch.Tensor)}
    if not tensors:
        raise BusflowError(f"{path} holds no tensors by name; take a file that holds a network's state_dict")
    return tensors


def load_pretrained(
    network: nn.Module,
    tensors: dict[str, torch.Tensor],
    path: Path | str,
    renamed: Callable[[dict], dict] = dict,
    new: tuple[str, ...] = (),
    known: Collection[str] = (),
) -> None:
    """Load published weights: all of them, or none.

    Names are the same whether their parts are joined by dots or, as timm does for features, by underscores.

    Args:
        network: to load into.
        tensors: of the file, its names perhaps behind one or more of ``PREFIXES``.
        path: of the file.
        renamed: maps the file's names to the network's.
        new: beginnings of the names that start afresh, such as those of a head.
        known: further names that the file may have.

    Raises:
        BusflowError: a tensor is missing, has another shape or holds NaN or infinity, or the file has more
            of the network's repeated parts than the network: it is another network's.
    """
    wanted = {
        _joined(name): (name, tensor)
        for name, tensor in network.state_dict().items()
        if not name.startswith(new)
    }
    candidates = [_renamed(inner, renamed) for inner in _unprefixed(tensors)]
    found, unlike = min(((each, _unlike(wanted, each)) for each in candidates), key=lambda pair: len(pair[1]))
    if unlike:
        raise BusflowError(
            f"{path} does not hold this network's weights ({len(unlike)} of {len(wanted)} are missing or of "
            f"another shape, the first: {unlike[0]}); take the file that was published for it"
        )
    kinds, known = {_kind(name) for name in wanted}, {_joined(name) for name in known}
    if more := [name for name in found if name not in wanted | dict.fromkeys(known) and _kind(name) in kinds]:
        raise BusflowError(
            f"{path} holds the weights of a larger network ({len(more)} are too many, the first: {more[0]}); "
            "take the file that was published for this one"
        )
    loaded = {name: found[key] for key, (name, _) in wanted.items() if key in found}
    refuse_non_finite(loaded, path)
    network.load_state_dict(loaded, strict=False)


def load_trained(build: Callable[[], nn.Module], tensors: dict[str, torch.Tensor], path: Path) -> nn.Module:
    """The network that ``build`` makes, with the weights that such a one was trained to, in evaluation mode.

    Args:
        build: makes the network, and whatever is no weight, as a trained one has it.
        tensors: its whole state dict; the network takes over the tensors themselves.
        path: of their file.

    Raises:
        BusflowError: they are another network's.
    """
    with parameters_unset():
        network = build()
    own = network.state_dict()
    unlike = [
        name
        for name in own | tensors
        if name not in own
        or name not in tensors
        or (own[name].shape, own[name].dtype) != (tensors[name].shape, tensors[name].dtype)
    ]
    if unlike:
        raise BusflowError(
            f"{path} does not hold the weights of the network that it names ({len(unlike)} differ, the "
            f"first: {unlike[0]}); delete it and train again"
        )
    network.load_state_dict(tensors, assign=True)
    return network.eval()


def refuse_non_finite(tensors: dict[str, torch.Tensor], path: Path | str) -> None:
    """Raise BusflowError if a weight is NaN or infinite: what it predicts would mean nothing."""
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and not tensor.isfinite().all():
            raise BusflowError(f"{path} holds NaN or infinite weights, the first in {name}; do not use it")


def _unprefixed(tensors: dict) -> Iterator[dict]:
    """The tensors as they are, then those behind a prefix, then those behind one more, …"""
    while tensors:
        yield tensors
        prefix = next((each for each in PREFIXES if any(name.startswith(each) for name in tensors)), None)
        if prefix is None:
            return
        tensors = {name.removeprefix(prefix): t for name, t in tensors.items() if name.startswith(prefix)}


def _renamed(tensors: dict, renamed: Callable[[dict], dict]) -> dict:
    try:
        return {_joined(name): tensor for name, tensor in renamed(dict(tensors)).items()}
    except Exception:  # whatever another network's names and shapes make a renaming raise
        return {}


def _unlike(wanted: dict[str, tuple[str, torch.Tensor]], found: dict[str, torch.Tensor]) -> list[str]:
    """Names of the wanted tensors that are not there in their shape; counts of batches may lack."""
    return [
        name
        for key, (name, tensor) in wanted.items()
        if (key not in found or found[key].shape != tensor.shape) and not name.endswith("num_batches_tracked")
    ]


def _joined(name: str) -> str:
    return name.replace(".", "_")


def _kind(name: str) -> str:
    """A name without the numbers of its block and stage."""
    return re.sub(r"(?<=_)\d+(?=_)", "#", name)


def _in_a_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), "") or type(error).__name__
