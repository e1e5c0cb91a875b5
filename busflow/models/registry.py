"""Whether the networks that a config names exist and are of use, told without making their weights."""

import difflib

import timm
import torch

from busflow.errors import BusflowError
from busflow.models.backbones import feature_channels
from busflow.models.classifier import build_network


def check_network(key: str, name: str, options: dict | None) -> None:
    """See that timm has a network, and that it can be what the config wants of it.

    Args:
        key: where the config names it, for the message.
        name: of timm's network.
        options: further arguments of a classifier; None: it is to be a backbone.

    Raises:
        BusflowError: timm does not know it or its arguments, or its features have other strides.
    """
    if not timm.is_model(name):
        near = difflib.get_close_matches(name, timm.list_models(), n=3)
        advice = f"did you mean {', '.join(near)}?" if near else "timm.list_models() lists what there is"
        raise BusflowError(f"{key}: timm has no network {name}; {advice}")
    try:
        if options is None:
            feature_channels(name)
        else:
            with torch.device("meta"):
                build_network(name, options=options)
    except BusflowError as error:
        raise BusflowError(f"{key}: {error}") from error
    except Exception as error:  # whatever timm raises of arguments that it does not know
        raise BusflowError(f"{key}: timm cannot make {name} with {options}: {error}") from error
