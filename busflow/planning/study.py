"""The price of every unit of a study."""

from pathlib import Path
from typing import NamedTuple

from busflow.config import training_settings
from busflow.planning.counts import Count, counts
from busflow.planning.images import Images, images_of
from busflow.planning.price import Card, Price, Rates, price
from busflow.tasks import TASKS


class Row(NamedTuple):
    """A model under a protocol, and what each of its seeds takes.

    ``parts`` of the effective batch are on the GPU one after the other.
    """

    protocol: str
    task: str
    model: str
    parts: int
    count: Count
    images: Images
    price: Price


def read_cards(config: dict) -> dict[str, Card]:
    """The GPUs that the config's ``planning`` describes, by name."""
    return {name: Card(**entry) for name, entry in config["planning"]["cards"].items()}


def rows_of(config: dict, memory: Path) -> list[Row]:
    """Price every model and protocol of a study, in the order of the config.

    Args:
        config: of the study, complete (``busflow.config.read_study``).
        memory: file of the forward passes that were counted before.

    Raises:
        BusflowError: nobody says how many images there are, or there is no such network.
    """
    cards = read_cards(config)
    rates = Rates(**{key: config["planning"][key] for key in Rates._fields})
    models = [(task, model) for task, entries in config["models"].items() for model in entries]
    images = {(p, task): images_of(config, p, task) for p in config["protocols"] for task in config["models"]}
    rows = []
    for (task, model), count in zip(models, _count_all(config, models, memory), strict=True):
        batch = config["timing"]["batch"] if "batch" in TASKS[task].timing else 1
        for protocol in config["protocols"]:
            settings = training_settings(config, protocol, task, model)
            unit = price(settings, count, images[protocol, task], batch, cards, rates)
            parts = settings["batch_size"] // count.images
            rows.append(Row(protocol, task, model, parts, count, images[protocol, task], unit))
    return rows


def _count_all(config: dict, models: list[tuple[str, str]], memory: Path) -> list[Count]:
    """Of the images that are on the GPU at once; the protocol changes no cost of a step."""
    protocol = next(iter(config["protocols"]))
    asked = []
    for task, model in models:
        settings = training_settings(config, protocol, task, model)
        pretrained = "pretrained" in config["models"][task][model]
        asked.append((task, settings, pretrained, at_once(settings)))
    return counts(asked, memory)


def at_once(settings: dict) -> int:
    """Images on the GPU: the largest equal part of ``batch_size`` that ``micro_batch`` allows (auto: all)."""
    batch, most = settings["batch_size"], settings["micro_batch"]
    most = batch if most == "auto" else most
    return max(number for number in range(1, most + 1) if batch % number == 0)
