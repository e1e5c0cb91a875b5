"""Names of published EfficientNet weights in the code that they were trained or ported with, and in timm."""

import re

import torch

OUTER = {
    "_conv_stem": "conv_stem",
    "_bn0": "bn1",
    "_conv_head": "conv_head",
    "_bn1": "bn2",
    "_fc": "classifier",
}
# A block that widens first (MBConv, Sandler et al., CVPR 2018), and one that does not.
WIDENING = {
    "_expand_conv": "conv_pw",
    "_bn0": "bn1",
    "_depthwise_conv": "conv_dw",
    "_bn1": "bn2",
    "_project_conv": "conv_pwl",
    "_bn2": "bn3",
}
PLAIN = {"_depthwise_conv": "conv_dw", "_bn1": "bn1", "_project_conv": "conv_pw", "_bn2": "bn2"}
NAME = re.compile(r"(_blocks\.(?P<block>\d+)\.)?(?P<layer>_\w+)\.(?P<rest>\w+)")


def in_timms_words(tensors: dict[str, torch.Tensor], network: torch.nn.Module) -> dict[str, torch.Tensor]:
    """The tensors by timm's names; those that are not in EfficientNet-PyTorch's words stay as they are.

    That port of EfficientNet (Tan & Le, ICML 2019) and its Lite variants numbers its blocks through, where
    timm counts them in stages.

    Args:
        tensors: of a file.
        network: timm's, whose stages count.
    """
    places = [f"{stage}.{k}" for stage, blocks in enumerate(network.blocks) for k in range(len(blocks))]
    widening = {match["block"] for name in tensors if (match := NAME.fullmatch(name)) and "_expand" in name}

    def renamed(name: str) -> str:
        match = NAME.fullmatch(name)
        if not match:
            return name
        if match["block"] is None:
            return f"{OUTER[match['layer']]}.{match['rest']}"
        layers = WIDENING if match["block"] in widening else PLAIN
        return f"blocks.{places[int(match['block'])]}.{layers[match['layer']]}.{match['rest']}"

    return {renamed(name): tensor for name, tensor in tensors.items()}
