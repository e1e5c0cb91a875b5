"""The few numbers of a unit that lead its tables, flat, for comparisons across models and versions."""

from functools import reduce

from busflow.tasks import TASKS


def scores(task: str, metrics: dict) -> dict[str, float | None]:
    """The leading numbers of a ``metrics.json``; null where undefined."""
    return {name: at(metrics, path) for name, path in TASKS[task].scores.items()}


def at(metrics: dict, path: str) -> object:
    """What stands in a ``metrics.json`` at a path such as ``coco.ap50``."""
    return reduce(lambda node, key: node[key], path.split("."), metrics)
