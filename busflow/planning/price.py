"""The price of a training: steps, hours, memory and disk, from what its forward pass takes.

A step lasts as long as the slower of two takes. The GPU computes, at a share of its peak rate, and moves
what each operator reads and writes, at a share of its bandwidth. The host starts the operators one by one,
and waits where it has to know a value. Loading, and what a kernel takes beyond that, are in neither.
"""

import heapq
from collections.abc import Iterable
from typing import NamedTuple

from busflow.planning import memory
from busflow.planning.counts import Count
from busflow.planning.images import Images

# A backward pass in forward passes. Each product has two gradients, of its input and of its weights. Of
# operators and bytes, the study's networks have 1.0 to 1.3 and 0.9 to 1.7 on tensors without values.
BACKWARD_FLOPS, BACKWARD_OPERATORS, BACKWARD_MOVED = 2, 1.1, 1.5
# What no count holds since it depends on values: mmdet's assigners, samplers, coders and suppression.
# Operators of a step and of each image, counted in steps of one to four images; waits of a step and of each
# image, on an H200.
BY_VALUES = {"cascade_rcnn": (320, 480, 85, 25), "detr": (530, 0, 32, 0)}
WAITS = 14  # of a step without these, at most


class Card(NamedTuple):
    """A GPU as in the config's ``planning.cards``: 10^12 operations, 10^9 bytes a second; memory in GiB."""

    label: str
    memory_gib: float
    half_tflops: float
    single_tflops: float
    gb_per_s: float


class Rates(NamedTuple):
    """What the config's ``planning`` assumes: shares of a card's rates, microseconds on the host."""

    utilisation: float
    bandwidth: float
    operator_us: float
    wait_us: float


class Price(NamedTuple):
    """Of one unit: a model under a protocol and seed.

    Attributes:
        steps: of training, each of the images that are on the GPU at once.
        gpu_bytes: live tensors at most (``busflow.planning.memory``).
        weights_bytes: of its weights.pth.
        state_bytes: of one saved state of its training.
        hours: by card, of its training with all validations, and of its prediction.
        waits_for_host: by card, whether a step of its training lasts as long as the host takes.
    """

    steps: int
    gpu_bytes: int
    weights_bytes: int
    state_bytes: int
    hours: dict[str, float]
    waits_for_host: dict[str, bool]


def price(
    settings: dict, count: Count, images: Images, batch: int, cards: dict[str, Card], rates: Rates
) -> Price:
    """The price of one unit.

    Args:
        settings: of the model and its training.
        count: of the forward pass of the images that are on the GPU at once.
        images: of its splits.
        batch: images at a time in prediction.
        cards: by name.
        rates: that are assumed.
    """
    parts = settings["batch_size"] // count.images
    epochs, optimizer = settings["epochs"], settings.get("optimizer", "adamw")
    steps = epochs * (images.train // settings["batch_size"]) * parts
    hours, waits_for_host = {}, {}
    for name, card in cards.items():
        on_gpu, on_host = training_step(settings, count, card, rates)
        seconds = steps * max(on_gpu, on_host)
        # Detectors are validated in single precision, and everything predicts in it.
        tflops = card.single_tflops if "detector" in settings else card.half_tflops
        validations = -(-epochs // settings.get("validation_interval", 1))
        seconds += validations * evaluation(images.val, count.images, count, card, rates, tflops)
        seconds += evaluation(images.test, batch, count, card, rates, card.single_tflops)
        hours[name], waits_for_host[name] = seconds / 3600, on_host > on_gpu
    state = 2 * count.weights + memory.STATES[optimizer] * memory.SINGLE * count.trained
    return Price(steps, memory.peak(count, optimizer), count.weights, state, hours, waits_for_host)


def training_step(settings: dict, count: Count, card: Card, rates: Rates) -> tuple[float, float]:
    """Seconds of a step on the GPU, in mixed precision, and on the host."""
    flops, moved = (1 + BACKWARD_FLOPS) * count.flops, (1 + BACKWARD_MOVED) * count.moved
    on_gpu = flops / (rates.utilisation * card.half_tflops * 1e12)
    on_gpu += moved / (rates.bandwidth * card.gb_per_s * 1e9)
    of_step, of_image, waits, of_each = BY_VALUES.get(settings.get("detector"), (0, 0, WAITS, 0))
    operators = (1 + BACKWARD_OPERATORS) * count.operators + of_step + of_image * count.images
    waits += of_each * count.images
    return on_gpu, (operators * rates.operator_us + waits * rates.wait_us) * 1e-6


def evaluation(images: int, at_a_time: int, count: Count, card: Card, rates: Rates, tflops: float) -> float:
    """Seconds of so many images, at this peak rate of the card."""
    share = at_a_time / count.images
    on_gpu = share * count.flops / (rates.utilisation * tflops * 1e12)
    on_gpu += share * count.moved / (rates.bandwidth * card.gb_per_s * 1e9)
    return -(-images // at_a_time) * max(on_gpu, count.operators * rates.operator_us * 1e-6)


def wall_hours(hours: Iterable[float], gpus: int) -> float:
    """Until the last of some units is done, each taken, in this order, by the first GPU that is free."""
    free = [0.0] * gpus
    for each in hours:
        heapq.heapreplace(free, free[0] + each)
    return max(free)
