"""The few numbers of a unit that lead its tables, flat, for comparisons across models and versions."""

from functools import reduce

from busflow.tasks import TASKS


def scores(task: str, metrics: dict) -> dict[str, float | None]:
    """The leading numbers of a ``metrics.json``; null where undefined."""
    return {
        name: reduce(lambda node, key: node[key], path.split("."), metrics)
        for name, path in TASKS[task].scores.items()
    }
