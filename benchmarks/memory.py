"""The table of docs/gpus.md: memory of a training of each model of the paper's study, and what cards hold.

Counted on tensors without values, so on any machine: what autograd keeps in mixed precision, and the weights,
their gradients and the sums of the optimiser.
"""

import logging
from pathlib import Path

from tabulate import tabulate

from busflow.config import read_study, training_settings
from busflow.planning.counting import count
from busflow.planning.memory import most_images, peak
from busflow.planning.study import at_once

CARDS = (16, 24, 80)  # GiB
HEAD = ("task", "model", "batch", "live (GiB)", *(f"most on {card} GB" for card in CARDS))


def main() -> None:
    logging.disable(logging.WARNING)
    config, rows = read_study(Path("config/paper.yaml")), []
    for task, models in config["models"].items():
        for model in models:
            settings = training_settings(config, "paper", task, model)
            optimizer, images = settings.get("optimizer", "adamw"), at_once(settings)
            used, more = (
                count(task, settings, "pretrained" in models[model], number)
                for number in (images, images + 2)
            )
            fits = (min(most_images(used, more, optimizer, card), settings["batch_size"]) for card in CARDS)
            rows.append((task, model, images, f"{peak(used, optimizer) / 2**30:.1f}", *fits))
    print(tabulate(rows, HEAD, tablefmt="github"))


if __name__ == "__main__":
    main()
