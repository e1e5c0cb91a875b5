"""What the ledger judges by: the study's tables, and whether they can speak about the paper's data."""

import itertools
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from busflow.audit.identities import sums
from busflow.audit.verdicts import NOT_TESTABLE, Told
from busflow.errors import BusflowError
from busflow.files import read_json
from busflow.metrics.comparison import ALPHA
from busflow.metrics.confusion import per_class
from busflow.protocols import PAPER, RULES, plain, whole
from busflow.tables.data import COLUMNS
from busflow.units import by_protocol, foreign_sources, units

# The tables of each task that claims are judged by, with the columns that they look at. Of a task that a
# study lacks they are empty.
SPLIT = ["protocol", "subset", *COLUMNS]
ENDS = ("", "_low", "_high")
PAIRS = ["protocol", "model", "other", "score", "difference", "p_holm"]
OF_TASKS = {
    "classification": {
        "table2": SPLIT,
        "table5": ["model", "params_1000", "macs", "size_bytes_3"],
        "classification": [
            *("protocol", "model", "label", "indistinguishable", "split_sha256"),
            *(f"{score}{end}" for score in ("accuracy", "macro_f1") for end in ENDS),
        ],
        "classification_pairs": PAIRS,
        "classification_per_class": [
            *("protocol", "model", "class", "n", "n_predicted"),
            *(f"{score}{end}" for score in ("recall", "precision") for end in ENDS),
        ],
    },
    "detection": {
        "table3": [
            *("protocol", "subset"),
            *(f"{what}_{of}" for what in ("images", "boxes") for of in ("benign", "malignant", "total")),
        ],
        "table6": [
            *("protocol", "model", "n_boxes", "n_coco.small", "aps", "apm", "apl"),
            *(f"{score}{end}" for score in ("ap", "ap50", "ap75") for end in ENDS),
        ],
        "detection": ["protocol", "model", "split_sha256"],
        "detection_pairs": PAIRS,
    },
    "segmentation": {
        "table4": SPLIT,
        "table7": [
            *("protocol", "model", "view", "class", "lesion_pixel_share", "n"),
            *(f"{score}{end}" for score in ("iou", "acc", "miou", "aacc", "macc") for end in ENDS),
        ],
        "segmentation": [
            *("protocol", "model", "split_sha256", "dice_smallest", "dice_largest"),
            *("dice_size_gap", "dice_size_gap_low", "dice_size_gap_high"),
        ],
        "segmentation_pairs": ["protocol", "model", "other", "subset", "difference", "low", "high", "p_holm"],
    },
}


# What of a ``timing.json`` must be the same where two are compared.
CONDITIONS = ("device", "threads", "precision", "image_size")
TIMING = ["protocol", "model", "seed", "p50_ms", *CONDITIONS]

# Why a rank or an order has its verdict.
BY_GROUPS = "by permutation tests over groups, adjusted for all pairs"


def design(protocol: str, low: float, high: float, digits: int) -> str:
    """Which printed numbers ours agree with: those that another study of this design would have."""
    if np.isnan(low):
        return f"{protocol}; too few groups for an interval"
    return f"{protocol}; another study of this design has {low:.{digits}f} to {high:.{digits}f} (95 %)"


class Claim(NamedTuple):
    """A row of the ledger; ids begin with the table, figure or equation."""

    id: str
    claim: str
    where: str
    printed: str
    verdict: str
    why: str
    corrected: str = "–"
    ours_paper_protocol: str = "–"
    ours_grouped: str = "–"


class Evidence:
    """The study's tables by name, leakage by split, the times that its detectors take, and its settings.

    ``timing`` has a row per unit and the columns ``TIMING``; ``p50_ms`` is the median latency of one image.

    For each split, ``paper`` and ``grouped``, speaks the first protocol of it that has neither folds nor
    sources left out.
    """

    def __init__(
        self, tables: Iterable[Path], leakage: Iterable[Path], settings: dict, timing: Iterable[Path] = ()
    ) -> None:
        self.settings = settings
        self.timing = read_timing(timing, settings)
        self.tables = {Path(path).stem: pd.read_csv(path) for path in tables}
        for task, of_task in OF_TASKS.items():
            for name, columns in of_task.items():
                # A study of folds alone has no results to show beside the paper's.
                of_models = {"protocol", "model"} <= set(columns) and not whole(settings["protocols"])
                if task not in settings["models"] or of_models:
                    self.tables[name] = pd.DataFrame(columns=columns)
        absent = [
            name for name in ("table1", *itertools.chain(*OF_TASKS.values())) if name not in self.tables
        ]
        if absent:
            raise BusflowError(f"the ledger needs the table {', '.join(absent)}; make it first")
        measured = by_protocol(leakage, settings)
        self.leakage = {
            split: read_json(measured[name]) for split, name in self.protocols.items() if name in measured
        }
        check_tables(self.tables)

    @property
    def protocols(self) -> dict[str, str | None]:
        """The name of the protocol that speaks for each split, or None."""
        return {split: plain(self.settings["protocols"], split) for split in RULES}

    def rows(self, table: str, split: str, index: str) -> pd.DataFrame:
        """Rows of a table, by their ``index`` column, of the protocol of this split; empty without one."""
        data = self.tables[table]
        return data[data["protocol"] == self.protocols[split]].set_index(index)

    def told(self, table: str, split: str, part: str, name: str) -> Told:
        """Whether the tests of a table of pairs, adjusted for all of them, tell a model better than another.

        Args:
            table: of pairs.
            split: whose protocol.
            part, name: column of what a row is about, and what is asked about. Of what has no test nothing is
                told.
        """
        rows = self.rows(table, split, part)
        rows = rows[(rows.index == name) & (rows["p_holm"] < ALPHA)]
        first = rows["difference"] > 0
        better, worse = rows["model"].where(first, rows["other"]), rows["other"].where(first, rows["model"])
        known = set(zip(better, worse, strict=True))
        return lambda one, other: (one, other) in known

    def label(self, model: str, task: str = "classification") -> str:
        """A model's name in sentences."""
        return self.settings["models"].get(task, {}).get(model, {"label": model})["label"]

    def judge(
        self,
        verdict: str,
        why: str,
        sources: Iterable[str] = (),
        models: Iterable[str] = (),
        trained: bool = True,
        task: str | None = "classification",
    ) -> dict[str, str]:
        """``verdict`` and ``why`` of a claim; ``not testable`` and the obstacle where there is one.

        Args:
            sources: whose data the claim is about; they must be the paper's, not stand-ins, and if the claim
                is about a task, too, split as the paper did.
            models: of the task, that the study must have.
            trained: it is about trained models, so the study must not be a demonstration.
            task: that the claim is about, which the study must have; None: it is about none.
        """
        foreign, is_split = foreign_sources(sources, self.settings), bool(sources and task)
        known = self.settings["models"].get(task, {})
        missing = [self.label(name, task) for name in models if name not in known]
        if task and not known:
            missing = [task]
        notice = self.settings["study"]["notice"]
        if foreign:
            why = f"needs the paper's data; this study has {', '.join(foreign)}"
        elif missing:
            why = f"not in this study: {', '.join(missing)}"
        elif is_split and self.protocols[PAPER] is None:
            why = "no protocol of this study follows the paper"
        elif trained and notice:
            why = f"notice of this study: {notice}"
        else:
            return {"verdict": verdict, "why": why}
        return {"verdict": NOT_TESTABLE, "why": why}


def read_timing(paths: Iterable[Path], settings: dict) -> pd.DataFrame:
    """A row for each ``timing.json``, with the columns ``TIMING``, in the order of the config."""
    rows = []
    for unit in units(paths, settings):
        found = read_json(unit.path)
        rows.append(
            {"protocol": unit.protocol, "model": unit.model, "seed": unit.seed}
            | {"p50_ms": found["latency"]["p50_ms"]}
            | {name: found[name] for name in CONDITIONS}
        )
    return pd.DataFrame(rows, columns=TIMING)


def check_tables(tables: dict[str, pd.DataFrame]) -> None:
    """Hold our own tables to the identities that the paper's are held to: rows and columns add up."""
    _check("table1", tables["table1"].set_index("source")[COLUMNS])
    for name in ("table2", "table4"):
        for protocol, part in tables[name].groupby("protocol"):
            _check(f"{name}, {protocol}", part.set_index("subset")[COLUMNS])
    for protocol, part in tables["table3"].groupby("protocol"):
        for what in ("images", "boxes"):
            columns = [f"{what}_{column}" for column in ("benign", "malignant", "total")]
            counts = part.set_index("subset")[columns].rename(columns=lambda name: name.split("_")[1])
            _check(f"table3, {protocol}, {what}", counts)


def check_metrics(metrics: dict, name: str) -> None:
    """Hold metrics to their identities: the matrix sums to n, and P, R, F1 and macro F1 follow from it."""
    matrix = np.array(metrics["confusion_matrix"])
    if matrix.sum() != metrics["n"]:
        raise BusflowError(f"{name}: the confusion matrix sums to {matrix.sum()}, not to n = {metrics['n']}")
    scores = per_class(matrix)
    for k, label in enumerate(metrics["labels"]):
        for score in ("n", "n_predicted", "precision", "recall", "f1"):
            found, implied = metrics["per_class"][label][score], scores[score][k]
            if (found is None) != np.isnan(implied) or (found is not None and abs(found - implied) > 1e-9):
                raise BusflowError(
                    f"{name}: {score} of {label} is {found}; the confusion matrix implies {implied}"
                )
    present = [value["f1"] for value in metrics["per_class"].values() if value["n"]]
    if abs(metrics["macro_f1"] - np.mean(present)) > 1e-9:
        raise BusflowError(f"{name}: macro_f1 is {metrics['macro_f1']}, not the mean of the classes' F1")


def _check(name: str, counts: pd.DataFrame) -> None:
    for _, statement, found, implied, agrees in sums(counts):
        if not agrees:
            raise BusflowError(f"{name}: {statement} does not hold: {found} is not {implied}; make it again")
