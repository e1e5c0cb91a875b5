"""A timm network as an mmengine model for image classification."""

from collections.abc import Callable

import timm
import torch
from mmengine.model import BaseDataPreprocessor, BaseModel
from torch.nn import functional

from busflow.labels import LABELS
from busflow.models.inputs import IMAGENET_MEAN, IMAGENET_STD, to_float, to_network


def build_network(
    name: str, num_classes: int = len(LABELS), options: dict | None = None, weights: str | None = None
) -> torch.nn.Module:
    """A timm classifier.

    Args:
        name: of the architecture.
        num_classes: outputs.
        options: further arguments of ``timm.create_model``.
        weights: file of pretrained ones, whose head is left out if it has other classes; None: random.
    """
    pretrained = {"pretrained": True, "pretrained_cfg_overlay": {"file": weights}} if weights else {}
    return timm.create_model(name, num_classes=num_classes, **(options or {}), **pretrained)


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
