"""SegFormer's head against mmseg's own."""

import pytest
import torch
from mmengine.registry import DefaultScope
from mmseg.registry import MODELS

from busflow.models import segformer_head  # noqa: F401  (registers its class)

CHANNELS = (8, 16, 24, 32)


def head(kind: str) -> torch.nn.Module:
    torch.manual_seed(0)
    with DefaultScope.overwrite_default_scope("mmseg"):
        made = MODELS.build(
            {
                **{"type": kind, "in_channels": list(CHANNELS), "in_index": [0, 1, 2, 3], "channels": 12},
                **{"num_classes": 3, "dropout_ratio": 0.0, "norm_cfg": {"type": "BN"}},
                **{"loss_decode": {"type": "CrossEntropyLoss"}, "align_corners": False},
            }
        )
    made.init_weights()
    return made.double()


def maps(height: int, width: int) -> list[torch.Tensor]:
    """Four maps, each half as large as the one before; an odd side is rounded up, as strided layers do."""
    torch.manual_seed(1)
    sides = [tuple(-(-side // 2**level) for side in (height, width)) for level in range(4)]
    return [
        torch.randn(2, channels, *side, dtype=torch.double, requires_grad=True)
        for channels, side in zip(CHANNELS, sides, strict=True)
    ]


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("size", [(16, 16), (13, 21)])
def test_logits_gradients_and_running_means_are_those_of_mmsegs_head(size, training):
    found, wanted = {}, {}
    for kind, values in (("EarlyFusionHead", found), ("SegformerHead", wanted)):
        made, features = head(kind).train(training), maps(*size)
        logits = made(features)
        (logits * torch.linspace(-1, 1, logits.numel(), dtype=torch.double).view_as(logits)).sum().backward()
        values.update({"logits": logits.detach()}, **made.state_dict())
        values.update({f"map {level}": each.grad for level, each in enumerate(features)})
        values.update({f"gradient of {name}": each.grad for name, each in made.named_parameters()})
    assert found.keys() == wanted.keys()
    for name, value in wanted.items():
        torch.testing.assert_close(found[name], value, rtol=1e-9, atol=1e-9, msg=name)
