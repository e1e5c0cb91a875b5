"""A timm network as an mmengine model for image classification."""

import re
import sys
from collections.abc import Callable
from pathlib import Path

import timm
import torch
from mmengine.model import BaseDataPreprocessor, BaseModel
from timm.models import EfficientNet
from torch.nn import functional

from busflow.errors import BusflowError
from busflow.labels import LABELS
from busflow.models.efficientnet import in_timms_words
from busflow.models.inputs import IMAGENET_MEAN, IMAGENET_STD, to_float, to_network
from busflow.models.rules import Rule, is_among, is_flag, is_rate, picked
from busflow.models.weights import load_pretrained, read_tensors

# Of ``timm.create_model``, what an author may set: the schema of the config (its ``network``) says the same.
OPTIONS: dict[str, Rule] = {
    **dict.fromkeys(("drop_rate", "drop_path_rate", "attn_drop_rate", "proj_drop_rate"), is_rate),
    "global_pool": is_among("avg", "max", "avgmax", "catavgmax", "token", "map"),
    "img_size": lambda value: type(value) is int and value >= 32,
    "dynamic_img_size": is_flag,
}


def build_network(
    name: str, num_classes: int = len(LABELS), options: dict | None = None, weights: Path | None = None
) -> torch.nn.Module:
    """A timm classifier.

    Args:
        name: of the architecture.
        num_classes: outputs.
        options: further arguments of ``timm.create_model``, those of ``OPTIONS``.
        weights: file of pretrained ones, but for the head, which is zero (Kolesnikov et al., Big Transfer,
            ECCV 2020): as random as some networks of timm's have it, it tells classes apart with certainty
            before it has seen an image. None: all are random.

    Raises:
        BusflowError: timm has no such network, or none with these options, or the weights are another's.
    """
    options = options or {}
    if not is_network(name):
        raise BusflowError(f"there is no network {name}: timm has none; choose one of timm.list_models()")
    if wrong := [key for key, value in options.items() if not is_option(key, value)]:
        raise BusflowError(
            f"network option {wrong[0]} = {options[wrong[0]]!r} is not taken; those that are: "
            f"{', '.join(OPTIONS)} (config/README.md tells their values)"
        )
    try:
        network = timm.create_model(name, num_classes=num_classes, **options)
    except (TypeError, ValueError, RuntimeError, AssertionError) as error:  # as each network has it
        raise BusflowError(f"timm does not make {name} with the options {options}: {error}") from error
    if weights:
        heads = network.pretrained_cfg.get("classifier") or ()
        heads = tuple(f"{head}." for head in ([heads] if isinstance(heads, str) else heads))
        load_pretrained(network, read_tensors(weights), weights, timm_names(network), new=heads)
        with torch.no_grad():
            for place, parameter in network.named_parameters():
                if place.startswith(heads):
                    parameter.zero_()
    return network


def shaping(settings: dict) -> dict:
    """Those of the settings that shape the network, if it can be built from them.

    Raises:
        ValueError: one is missing or no value of its kind; the message names it.
    """
    return picked(
        settings,
        {
            "timm": is_network,
            "network": lambda options: (
                isinstance(options, dict) and all(is_option(*item) for item in options.items())
            ),
        },
    )


def is_network(name: object) -> bool:
    """Whether timm has an architecture of this name; names of places to fetch one from are none."""
    return isinstance(name, str) and re.fullmatch(r"[\w.]+", name) is not None and timm.is_model(name)


def is_option(key: str, value: object) -> bool:
    """Whether ``timm.create_model`` may be given this; never what makes it read files or fetch weights."""
    return key in OPTIONS and OPTIONS[key](value)


def timm_names(network: torch.nn.Module) -> Callable[[dict], dict]:
    """What renames, and reshapes, published weights for ``network``: what timm has for its family, or we."""
    if isinstance(network, EfficientNet):
        return lambda tensors: in_timms_words(tensors, network)
    rename = getattr(sys.modules[type(network).__module__], "checkpoint_filter_fn", None)
    return (lambda tensors: rename(tensors, network)) if rename else dict


class ClassifierInput(BaseDataPreprocessor):
    """Move a batch to the device; augment it in training; normalise it.

    Args:
        augmentation: maps images and sample positions of a batch to new images.
    """

    def __init__(self, augmentation: Callable | None = None):
        super().__init__(non_blocking=True)
        self.augmentation = augmentation

    def forward(self, data: dict, training: bool = False) -> dict:
        data = self.cast_data(data)
        images = to_float(data["images"])
        if training and self.augmentation is not None:
            images = self.augmentation(images, data["samples"])
        return {"inputs": to_network(images, IMAGENET_MEAN, IMAGENET_STD), "labels": data["labels"]}


class Classifier(BaseModel):
    """Cross-entropy training and softmax prediction around a network.

    Args:
        network: maps [B, 3, S, S] to logits [B, K].
        augmentation: applied to training batches.
        label_smoothing: in [0, 1).
        class_counts: training images of each class [K], to balance classes by adding the log prior
            to the logits in training (logit adjustment, Menon et al., ICLR 2021, eq. 10); None: off.
    """

    def __init__(
        self,
        network: torch.nn.Module,
        augmentation: Callable | None = None,
        label_smoothing: float = 0.0,
        class_counts: torch.Tensor | None = None,
    ):
        super().__init__(data_preprocessor=ClassifierInput(augmentation))
        self.network, self.label_smoothing = network, label_smoothing
        log_prior = torch.zeros(1) if class_counts is None else torch.log(class_counts / class_counts.sum())
        self.register_buffer("log_prior", log_prior, persistent=False)

    def forward(
        self, inputs: torch.Tensor, labels: torch.Tensor | None = None, mode: str = "tensor"
    ) -> torch.Tensor | dict[str, torch.Tensor] | list[dict[str, torch.Tensor]]:
        """Logits [B, K] ("tensor"), {"loss"} ("loss"), or {"logits", "label"} of each image ("predict")."""
        logits = self.network(inputs)
        if mode == "loss":
            return {
                "loss": functional.cross_entropy(
                    logits + self.log_prior, labels, label_smoothing=self.label_smoothing
                )
            }
        if mode == "predict":
            return [{"logits": row, "label": label} for row, label in zip(logits, labels, strict=True)]
        return logits
