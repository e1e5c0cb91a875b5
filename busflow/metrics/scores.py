"""The few numbers of a unit that lead its tables, flat, for comparisons across models and versions."""

from functools import reduce

SCORES = {
    "classification": {
        "accuracy": "accuracy",
        "balanced_accuracy": "balanced_accuracy",
        "macro_f1": "macro_f1",
    },
    "detection": {"ap": "coco.ap", "ap50": "coco.ap50", "ap75": "coco.ap75", "ar100": "coco.ar100"},
    "segmentation": {
        "miou": "views.three_class.miou",
        "lesion_iou": "views.two_class.per_class.lesion.iou",
        "lesion_dice": "per_image.lesion.dice.mean",
    },
}


def scores(task: str, metrics: dict) -> dict[str, float | None]:
    """The leading numbers of a ``metrics.json``; null where undefined."""
    return {
        name: reduce(lambda node, key: node[key], path.split("."), metrics)
        for name, path in SCORES[task].items()
    }
