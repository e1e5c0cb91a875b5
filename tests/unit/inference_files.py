"""Weights of small networks, as a training publishes them but never trained."""

from pathlib import Path

import torch
from mmengine.model import BaseModule
from test_detectors import CASCADE
from test_segmenters import SEGFORMER
from trainings import ORIGIN

from busflow.data.masks import CLASSES
from busflow.engine.checkpoints import save_weights
from busflow.engine.meta import PREPARATION
from busflow.labels import LABELS, LESIONS
from busflow.models import classifier, detectors, segmenters

CALIBRATION = {
    "temperature": 1.5,
    "n": 4,
    "n_malignant": 0,
    "nll": {"before": 0.9, "after": 0.8},
    "thresholds": {"0.90": None, "0.95": None},
}
SEEN = {"brightness": [10, 240], "contrast": [5, 100], "aspect": [0.5, 2]}
SETTINGS = {
    "classification": {"timm": "convnext_atto", "network": {"drop_path_rate": 0.1}},
    "detection": CASCADE,
    "segmentation": SEGFORMER,
}
NAMES = {"classification": LABELS, "detection": LESIONS, "segmentation": CLASSES}
BUILD = {
    "classification": lambda settings: classifier.build_network(settings["timm"]),
    "detection": detectors.build_network,
    "segmentation": segmenters.build_network,
}


def meta_of(task: str, side: int, origin: dict = ORIGIN, calibration: dict = CALIBRATION, **settings) -> dict:
    """What a training writes beside the weights."""
    return {
        "task": task,
        "settings": SETTINGS[task] | {"image_size": side, "seed": 0} | settings,
        "classes": list(NAMES[task]),
        "preparation": PREPARATION,
        "images": SEEN,
        "origin": origin,
        "epoch": 1,
        **({"calibration": calibration} if task == "classification" else {}),
    }


def save_untrained(path: Path, task: str, side: int, seed: int = 0, **meta) -> Path:
    """Weights of a network that is drawn from this seed, for images of this side; ``meta`` as ``meta_of``."""
    torch.manual_seed(seed)
    content = meta_of(task, side, **meta)
    network = BUILD[task](content["settings"])
    if isinstance(network, BaseModule):
        network.init_weights()
    save_weights(path, network.state_dict(), content)
    return path
