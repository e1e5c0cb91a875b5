"""The price of a study as it is printed."""

from itertools import groupby

from tabulate import tabulate

from busflow.data.catalogue import own_sources
from busflow.planning.images import source_of
from busflow.planning.memory import BESIDES
from busflow.planning.price import BACKWARD_FLOPS, wall_hours
from busflow.planning.study import Row, read_cards

GPUS = (1, 2, 4, 8)
GENERATIONS = 3  # of a training's state on the disk: two, and the one that is being written
HEAD = ("model", "protocol", "batch", "GFLOP/image", "steps", "GPU GiB")


def as_text(config: dict, rows: list[Row], jobs: int) -> str:
    """A line for each model and protocol, totals by task, wall time, disk, and all that was assumed.

    Args:
        config: of the study.
        rows: of ``busflow.planning.study.rows_of``.
        jobs: of the whole workflow.
    """
    cards, seeds = read_cards(config), len(config["seeds"])
    table = []
    for task, of_task in groupby(rows, lambda row: row.task):
        group = list(of_task)
        hours = {card: seeds * sum(row.price.hours[card] for row in group) for card in cards}
        total = ("all seeds of all", *[""] * (len(HEAD) - 1), *map(_hours, hours.values()))
        table += [(), (task,), *map(_cells, group), total]
    labels = [card.label for card in cards.values()]
    walls = [(f"{n} at a time", *(_hours(_wall(config, rows, card, n)) for card in cards)) for n in GPUS]
    return "\n\n".join(
        [
            _plain([*HEAD, *(f"{label} h" for label in labels)], table, 2),
            _plain(["GPUs, wall time", *(f"{label} h" for label in labels)], walls, 1),
            "\n".join(_notes(config, rows, jobs)),
        ]
    )


def _cells(row: Row) -> tuple[str, ...]:
    price, count = row.price, row.count
    return (
        row.model,
        row.protocol,
        f"{count.images} x {row.parts}",
        f"{count.flops / count.images / 1e9:.1f}",
        f"{price.steps:,}",
        f"{price.gpu_bytes / 2**30:.1f}",
        *(f"{_hours(price.hours[card])}{'*' * price.waits_for_host[card]:1}" for card in price.hours),
    )


def _wall(config: dict, rows: list[Row], card: str, gpus: int) -> float:
    """Snakemake starts what stands last in a registry first."""
    place = {task: list(models) for task, models in config["models"].items()}
    started = sorted(rows, key=lambda row: place[row.task].index(row.model), reverse=True)
    return wall_hours((row.price.hours[card] for row in started for _ in config["seeds"]), gpus)


def _notes(config: dict, rows: list[Row], jobs: int) -> list[str]:
    planning, seeds = config["planning"], len(config["seeds"])
    weights = seeds * sum(row.price.weights_bytes for row in rows) / 1e9
    state = GENERATIONS * max(row.price.state_bytes for row in rows) / 1e9
    needs = max(rows, key=lambda row: row.price.gpu_bytes)
    numbers = {(row.task, row.protocol): row.images for row in rows}
    return [
        f"{len(rows) * seeds} trainings, {seeds} seed{'s' * (seeds > 1)} of each line, in {jobs} jobs.",
        *(
            f"{task}, {protocol}: {each.train:,} images to train on, {each.val:,} to validate on, "
            f"{each.test:,} to test on, from {each.origin}."
            for (task, protocol), each in numbers.items()
        ),
        f"Disk: {_packed_bytes(config) / 1e9:.1f} GB of packed images, {weights:.1f} GB of weights, up to "
        f"{state:.1f} GB of states for each training under way; archives, what is unpacked of them and "
        "pretrained weights come on top.",
        f"GPU memory: live tensors, {needs.price.gpu_bytes / 2**30:.1f} GiB at most ({needs.task}, "
        f"{needs.model}); count {BESIDES / 2**30:.1f} GiB on top.",
        f"Hours are of one unit: {planning['utilisation']:.0%} of the peak rate and "
        f"{planning['bandwidth']:.0%} of the bandwidth, forward and {BACKWARD_FLOPS} x as much backward; * "
        f"where the host is slower, at {planning['operator_us']:g} us an operator and "
        f"{planning['wait_us']:g} us a wait.",
        "Loading, tables and figures are not in it. docs/gpus.md holds it against measurements.",
    ]


def _packed_bytes(config: dict) -> int:
    """One byte for each pixel of the images that any protocol may use."""
    return sum(
        source_of(config, name, task).total * config["training"][task]["image_size"] ** 2
        for name, source in own_sources(config).items()
        for task in source["tasks"]
    )


def _hours(value: float) -> str:
    return f"{value:.1f}" if value >= 1 else f"{value:.2f}"


def _plain(head: list[str], rows: list[tuple], left: int) -> str:
    """A table whose first columns are text."""
    alignment = ["left"] * left + ["right"] * (len(head) - left)
    text = tabulate(rows, head, tablefmt="plain", disable_numparse=True, colalign=alignment)
    return "\n".join(line.rstrip() for line in text.splitlines())
