"""Sections of a model card that tell how good the model is, and how far that may be believed."""

from collections.abc import Iterable
from typing import NamedTuple

from busflow.cards.study import Study, Trained
from busflow.cards.words import NOT_KNOWN, decimal, share
from busflow.labels import LABELS, LESIONS
from busflow.metrics.scores import at
from busflow.protocols import PAPER, protocols
from busflow.tables.document import Block, Rows
from busflow.tables.leading import INTERVAL, LEADING, Score, estimate, estimate_text, seeds_text
from busflow.tables.table import number


class Classes(NamedTuple):
    """The classes of a task; where ``metrics.json`` has their number, and scores by title."""

    labels: tuple[str, ...]
    count: str
    scores: dict[str, str]


CLASSES = {
    "classification": Classes(
        LABELS,
        "per_class.{}.n",
        {
            "Precision": "per_class.{}.precision",
            "Recall": "per_class.{}.recall",
            "F1": "per_class.{}.f1",
            "AUROC": "per_class.{}.auroc",
            "Average precision": "per_class.{}.average_precision",
        },
    ),
    "detection": Classes(
        LESIONS,
        "per_class.{}.n_boxes",
        {
            "AP": "per_class.{}.ap",
            "AP50": "per_class.{}.ap50",
            "AP75": "per_class.{}.ap75",
            "AR": "per_class.{}.ar100",
        },
    ),
    "segmentation": Classes(
        LESIONS,
        "per_image.{}.n",
        {
            "IoU": "views.three_class.per_class.{}.iou",
            "Pixels found": "views.three_class.per_class.{}.acc",
            "Dice by image": "per_image.{}.dice.mean",
        },
    ),
}
SCORES = {"ece": "ECE", "brier": "Brier"}
LEAKAGE = {
    "same_group": "In a group of a training image",
    "near_duplicate": "Near copy of a training image",
    "exact_duplicate": "Pixels of a training image",
    "nearest_neighbour_accuracy": "Right by copying the most similar training image",
    "majority_accuracy": "Right by the most frequent class",
}


def results(study: Study, trained: Trained) -> list[Block]:
    """Scores on the test split of the protocol: of all images, by source and by class."""
    how, first = LEADING[trained.task], trained.metrics[0]
    overall = [
        [score.title, score_text(trained.metrics, score, trained.task)] for score in how.scores.values()
    ]
    return [
        f"On the {first['n']:,} test images ({first['n_groups']:,} groups) of the protocol. {how.words} "
        f"{seeds_text(len(trained.seeds))} {INTERVAL}",
        Rows(["Score", "All test images"], overall),
        *_per_source(study, trained),
        _per_class(trained),
    ]


def external_tests(study: Study, trained: Trained) -> list[Block]:
    """Scores on sources that no model of the study was trained on."""
    if not trained.external:
        return [f"{NOT_KNOWN}scores on sources that it was not trained on (no external test of this task)."]
    scores = LEADING[trained.task].scores
    rows = [
        [
            study.config["sources"][source]["label"],
            number(metrics[0]["n"]),
            number(metrics[0]["n_groups"]),
            *(score_text(metrics, score, trained.task) for score in scores.values()),
        ]
        for source, metrics in trained.external.items()
    ]
    return [
        "Images that the study has too, and near copies of them, are left out with their groups.",
        Rows(["Source", "Images", "Groups", *(score.title for score in scores.values())], rows),
    ]


def calibration(trained: Trained) -> list[Block]:
    """What a classifier's probabilities are worth, as trained and with its temperature, seed by seed."""
    if not all("calibration" in metrics for metrics in trained.metrics):
        return [f"{NOT_KNOWN}calibration of the scores, and operating points (metrics.json has none)."]
    found = {seed: each["calibration"] for seed, each in zip(trained.seeds, trained.metrics, strict=True)}
    columns = {
        f"{title}, {stage}": (stage, name) for name, title in SCORES.items() for stage in ("before", "after")
    }
    temperatures = [
        [
            str(seed),
            decimal(each["temperature"]),
            number(each["n_validation"]),
            *(decimal(each[stage][name], each["intervals"][stage][name]) for stage, name in columns.values()),
        ]
        for seed, each in found.items()
    ]
    points = [
        [
            str(seed),
            share(point["target"]),
            decimal(point["threshold"]),
            *(decimal(point[name], point["intervals"][name]) for name in ("sensitivity", "specificity")),
            number(point["n_malignant"]),
            number(point["n_other"]),
        ]
        for seed, each in found.items()
        for point in each["operating_points"]
    ]
    return [
        "A temperature that was fitted on the validation images divides the logits. Expected calibration "
        "error (ECE) and Brier score on the test images before and after; in brackets 95 % intervals.",
        Rows(["Seed", "Temperature", "Validation images", *columns], temperatures),
        "Thresholds of the calibrated probability of malignant that reach a target sensitivity on the "
        "validation images, and what they reach on the test images.",
        Rows(
            ["Seed", "Target", "Threshold", "Sensitivity", "Specificity", "Malignant images", "Other images"],
            points,
        ),
    ]


def leak_gap(study: Study, trained: Trained) -> list[Block]:
    """What the same model scores more under protocols that let related images straddle their splits."""
    entries, how = study.config["protocols"], LEADING[trained.task]
    rows, twins = [], leaking_twins(study, trained)
    for other in twins:
        for score in how.scores.values():
            gap = estimate(other.metrics, score)[0] - estimate(trained.metrics, score)[0]
            texts = [score_text(each.metrics, score, trained.task) for each in (other, trained)]
            gap_text = f"{how.factor * gap:+z.{how.digits}f}"
            rows.append([entries[other.protocol]["label"], score.title, *texts, gap_text])
    if not rows:
        return [f"{NOT_KNOWN}the leak gap (it takes a protocol of each kind).", *_leakage(study)]
    here = entries[trained.protocol]["label"]
    balanced = {bool(entries[each.protocol].get("balance_classes")) for each in (trained, *twins)}
    return [
        "The same model, trained and tested where related images may be on both sides of the split, less "
        f"{here}, where they are not. The test images differ, so the difference has no interval; errata are "
        f"applied in the latter alone{', and not all balance classes' if len(balanced) > 1 else ''}.",
        Rows(["Protocol that leaks", "Score", "There", here, "Gap"], rows),
        *_leakage(study),
    ]


def leaking_twins(study: Study, trained: Trained) -> list[Trained]:
    """The same model under the protocols that leak, if its own differs from them in that alone."""
    known = protocols(study.config["protocols"])
    if known[trained.protocol].split == PAPER or not known[trained.protocol].is_plain:
        return []
    return [
        each
        for each in study.of_task(trained.task)
        if each.model == trained.model and known[each.protocol].split == PAPER
    ]


def _leakage(study: Study) -> list[Block]:
    rows = [
        [study.config["protocols"][protocol]["label"], *(share(measured[name]) for name in LEAKAGE)]
        for protocol, measured in study.leakage.items()
    ]
    if not rows:
        return [f"{NOT_KNOWN}shares of test images that training knows (not measured for this task)."]
    return [
        "Shares of the test images, from results/audit/leakage:",
        Rows(["Protocol", *LEAKAGE.values()], rows),
    ]


def per_source(study: Study, trained: Trained, further: Iterable[Score] = ()) -> list[list[str]]:
    """A row of each source's test images: its label, how many, the leading scores and further ones.

    No rows where ``metrics.json`` has no scores by source.
    """
    scores = (*LEADING[trained.task].scores.values(), *further)
    return [
        [
            study.config["sources"][source]["label"],
            number(part["n"]),
            *(score_text(trained.metrics, _of_source(score, source), trained.task) for score in scores),
        ]
        for source, part in trained.metrics[0].get("per_source", {}).items()
    ]


def _per_source(study: Study, trained: Trained) -> list[Block]:
    rows = per_source(study, trained)
    if not rows:
        return [f"{NOT_KNOWN}scores by source (metrics.json has none)."]
    titles = (score.title for score in LEADING[trained.task].scores.values())
    return [Rows(["Source", "Test images", *titles], rows)]


def _per_class(trained: Trained) -> Rows:
    classes = CLASSES[trained.task]
    return Rows(
        ["Class", "n", *classes.scores],
        [
            [
                label,
                number(at(trained.metrics[0], classes.count.format(label))),
                *(
                    score_text(trained.metrics, _of_class(title, place.format(label)), trained.task)
                    for title, place in classes.scores.items()
                ),
            ]
            for label in classes.labels
        ],
    )


def _of_source(score: Score, source: str) -> Score:
    return Score(score.title, *(f"per_source.{source}.{place}" for place in score[1:]))


def _of_class(title: str, place: str) -> Score:
    return Score(title, place, place.removesuffix(".mean"))


def score_text(seeds: list[dict], score: Score, task: str) -> str:
    """The mean over the seeds with its interval, as the task's tables show it."""
    return estimate_text(*estimate(seeds, score), LEADING[task])
