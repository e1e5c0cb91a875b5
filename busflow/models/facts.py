"""Size and cost of the networks, from the instantiated models."""

import torch
from mmengine.analysis import get_model_complexity_info

from busflow.models.classifier import build_network

MAC_INPUT = (3, 224, 224)  # the input that the paper's figures belong to (Table 5)
IMAGENET_CLASSES = 1000


def classifier_facts(models: dict[str, dict]) -> dict[str, dict]:
    """Parameters, multiply-accumulates and size of each classifier (paper, Table 5).

    Args:
        models: config entries with ``label``, ``timm`` and ``batch_size``, by name.

    Returns:
        By name: ``label``, ``batch_size``, ``params_1000`` and ``params_3`` (with heads of 1000 and of 3
        classes), ``macs`` (one 224 x 224 image, 1000 classes, counted by mmengine) and ``size_bytes_3``
        (float32 weights of the 3-class network).
    """
    facts = {}
    for name, entry in models.items():
        with torch.device("meta"):  # only shapes count: drawing the weights would take as long as counting
            imagenet = build_network(entry["timm"], num_classes=IMAGENET_CLASSES).eval()
            own = build_network(entry["timm"])
        imagenet.to_empty(device="cpu")  # mmengine traces no network that has no memory
        with torch.inference_mode():
            macs = get_model_complexity_info(imagenet, MAC_INPUT, show_table=False, show_arch=False)["flops"]
        facts[name] = {
            "label": entry["label"],
            "batch_size": entry["batch_size"],
            "params_1000": _parameters(imagenet),
            "params_3": _parameters(own),
            "macs": int(macs),
            "size_bytes_3": sum(t.numel() * t.element_size() for t in own.state_dict().values()),
        }
    return facts


def _parameters(network: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())
