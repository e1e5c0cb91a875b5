"""What a task is: one of the levels at which the paper recognises cancer.

A task has a file of its name in each room: how it trains and predicts (``busflow/engine``), how it is scored
(``busflow/metrics``), its tables (``busflow/tables``) and its rules (``rules``). What they have to agree on
stands here, without torch.
"""

from typing import NamedTuple

# Files and folders that trainings, predictions and evaluations read, by the option that names them.
INPUTS = {
    "images": "index of images",
    "annotations": "index of boxes",
    "packed_images": "array of the task's images",
    "packed_index": "what is in that array",
    "split": "split of the task under the protocol",
    "train": "COCO view of the training images",
    "val": "COCO view of the validation images",
    "test": "COCO view of the test images",
    "masks": "folder of index masks",
    "record": "run.json of the training",
}
PACKED = ("images", "packed_images", "packed_index")


class Task(NamedTuple):
    """The study's view of a task.

    Attributes:
        train, predict, evaluate: names in ``INPUTS``; an evaluation reads the predictions too.
        predictions: name of their file.
        select_by: validation metric that picks the best epoch; greater is better.
        of_protocol: keys of a protocol that shape its trainings.
        timing: keys of the config's ``timing`` that its prediction heeds.
        scores: the few numbers that lead its tables, by name: where they stand in ``metrics.json``.
    """

    train: tuple[str, ...]
    predict: tuple[str, ...]
    evaluate: tuple[str, ...]
    predictions: str
    select_by: str
    of_protocol: tuple[str, ...]
    timing: tuple[str, ...]
    scores: dict[str, str]


TASKS = {
    "classification": Task(
        train=(*PACKED, "split"),
        predict=(*PACKED, "split"),
        evaluate=("split", "record"),
        predictions="predictions.csv",
        select_by="macro_f1",
        of_protocol=("balance_classes",),
        timing=("batch", "warmup", "iterations"),
        scores={"accuracy": "accuracy", "balanced_accuracy": "balanced_accuracy", "macro_f1": "macro_f1"},
    ),
    "detection": Task(
        train=(*PACKED, "train", "val"),
        predict=(*PACKED, "test"),
        evaluate=("split", "annotations", "images"),
        predictions="predictions.json",
        select_by="ap",
        of_protocol=(),
        timing=("warmup",),
        scores={"ap": "coco.ap", "ap50": "coco.ap50", "ap75": "coco.ap75", "ar100": "coco.ar100"},
    ),
    "segmentation": Task(
        train=(*PACKED, "split", "masks"),
        predict=(*PACKED, "split"),
        evaluate=("split", "masks"),
        predictions="predictions.json",
        select_by="miou",
        of_protocol=("balance_classes",),
        timing=("warmup",),
        scores={
            "miou": "views.three_class.miou",
            "lesion_iou": "views.two_class.per_class.lesion.iou",
            "lesion_dice": "per_image.lesion.dice.mean",
        },
    ),
}
