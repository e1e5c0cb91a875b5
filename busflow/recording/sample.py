"""Which units of a study are predicted again, and how likely that is to find a forged one."""

import random
from collections.abc import Collection
from pathlib import Path

from busflow.units import UNIT

PER_TASK = 2


def predictions_of(paths: Collection[Path]) -> dict[str, list[Path]]:
    """The predictions of every unit among these paths, by task."""
    by_task: dict[str, list[Path]] = {}
    for path in sorted(paths):
        unit = UNIT.search(path.as_posix())
        if unit and path.stem == "predictions":
            by_task.setdefault(unit["task"], []).append(path)
    return by_task


def draw(predictions: dict[str, list[Path]], suspect: Collection[Path], seed: int) -> list[Path]:
    """``PER_TASK`` units of each task at random, and besides up to as many of its suspect ones."""
    chance, drawn = random.Random(seed), []
    for units in predictions.values():
        chosen = chance.sample(units, min(PER_TASK, len(units)))
        others = [path for path in units if path in suspect and path not in chosen]
        drawn += sorted(chosen + chance.sample(others, min(PER_TASK, len(others))))
    return drawn


def remarks(predictions: dict[str, list[Path]], drawn: Collection[Path], seed: int | None) -> str:
    """What was not made again, and the chance that a forged unit had of being seen.

    Without a seed, all were drawn.
    """
    left = sum(map(len, predictions.values())) - len(drawn)
    always = "the data (index, splits, packed images), timings (measured), run records and the report (dated)"
    lines = [f"Not made again: {always}, weights (trained), and the predictions of {left} units."]
    if seed is not None:
        numbers = {task: len(units) for task, units in predictions.items()}
        chances = [f"{min(PER_TASK, number)} in {number} ({task})" for task, number in numbers.items()]
        lines.append(
            f"A single unit with forged predictions had a chance of {', '.join(chances)} of being drawn. "
            f"SEED={seed} draws the same units again, ALL=1 all of them."
        )
    return "\n".join(lines)
