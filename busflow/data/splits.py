"""Who is trained on, who chooses the checkpoint, who is tested: the split of a task under a protocol.

Split ``paper`` divides images as Duong et al. (2025) did, flaws included: neighbouring frames of
one video land on both sides. Split ``grouped`` divides independent units (a video, a patient, a
set of near duplicates), corrects the labels by the sources' errata and drops what contradicts itself.
"""

import logging
import random

import numpy as np
import pandas as pd

from busflow.data.errata import corrected_labels
from busflow.data.folds import assign_folds
from busflow.data.group_split import excess_imbalance, hold_out_groups
from busflow.errors import BusflowError
from busflow.labels import SPLITS
from busflow.protocols import GROUPED, PAPER, RULES, Protocol

TASKS = ("classification", "detection", "segmentation")

# What split grouped holds out, in this order, of all that is to be divided: the paper's 8:1:1, 95:5 of the
# upstream training part, and 80:20 twice. Where the test set is given, the rest is what is to be divided;
# detection on sources without upstream lists holds out a fifth.
GROUPED_SHARES = {
    "classification": {"test": 0.1, "val": 0.1},
    "detection": {"test": 0.2, "val": 0.05},
    "segmentation": {"test": 0.2, "val": 0.16},
}

logger = logging.getLogger(__name__)


def make_split(
    images: pd.DataFrame,
    annotations: pd.DataFrame,
    quarantine: pd.DataFrame,
    *,
    task: str,
    protocol: Protocol,
    splits: dict,
    sources: dict,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Divide the images of a task's sources.

    Args:
        images: ``data/index/images.csv``; its order does not matter.
        annotations: ``data/index/annotations.csv``; detection needs at least one per image.
        quarantine: ``data/index/quarantine.csv``; scope ``grouped`` applies to split grouped.
        task: one of ``TASKS``. Its images are those of the sources whose config lists it in ``tasks``.
        protocol: the rule, and the fold or the sources that are tested.
        splits: config's ``splits``: ``seed``, and ``balance_tolerance``, how far (0..1) the share of
            a class in a split may be from its share in the whole.
        sources: config's ``sources``.

    Returns:
        The split (``image_id, split, label, group``) and what was left out of it (``image_id, label,
        group, reason``), both sorted by image_id. Every image of the task is in exactly one of them.

    Raises:
        BusflowError: unknown task or split, a broken index, or a division that cannot be made.
    """
    if task not in TASKS or protocol.split not in RULES:
        raise BusflowError(
            f"there is no split {protocol.split} of {task}: "
            f"splits are {', '.join(RULES)}, tasks {', '.join(TASKS)}"
        )
    _check_index(images, annotations)
    table = images.sort_values("image_id", ignore_index=True).assign(reason="")
    if protocol.split == GROUPED:
        table["label"] = corrected_labels(table, sources)
    table = table[table["source"].isin([name for name, source in sources.items() if task in source["tasks"]])]
    lists = table["upstream_split"].isin(["train", "val"]).groupby(table["source"]).transform("any")
    follows_lists = task == "detection" and protocol.is_plain and bool(lists.any())

    if task == "detection":
        _leave_out(table, ~table["image_id"].isin(annotations["image_id"]), "has no annotated lesion")
    if follows_lists:
        unlisted = table["upstream_split"] == ""
        if protocol.split == GROUPED:
            unlisted &= lists  # a source without lists is trained on, beside those that have them
        _leave_out(table, unlisted, "is in neither of the upstream train and val lists")
    if protocol.split == GROUPED:
        _leave_out_quarantined(table, quarantine)
        if follows_lists:
            words = "the upstream val list, which is the test set"
            _leave_out_straddling(table, table["upstream_split"] == "val", words)
        elif protocol.leave_out:
            words = f"{' or '.join(protocol.leave_out)}, which is left out to be tested on"
            _leave_out_straddling(table, table["source"].isin(protocol.leave_out), words)

    kept = table[table["reason"] == ""]
    if kept.empty:
        raise BusflowError(
            f"no image is left for {task}: check sources.<id>.tasks and data/index/quarantine.csv"
        )
    if follows_lists and not {"train", "val"} <= set(kept["upstream_split"]):
        raise BusflowError("detection needs images of both upstream lists, train and val; one has none left")
    if protocol.split == PAPER:
        split = _divide_as_the_paper(kept, task, splits["seed"])
        given = None
    else:
        given = _given_test(kept, task, protocol, splits["seed"], sources)
        split = _divide_groups(kept, given, task, splits["seed"], splits["balance_tolerance"])
    kept = kept.assign(split=split)
    _check(kept, given, f"{protocol.name}/{task}", splits["balance_tolerance"])
    excluded = table[table["reason"] != ""]
    return (
        kept[["image_id", "split", "label", "group"]].reset_index(drop=True),
        excluded[["image_id", "label", "group", "reason"]].reset_index(drop=True),
    )


def _check_index(images: pd.DataFrame, annotations: pd.DataFrame) -> None:
    ids, remedy = images["image_id"], "run rule build_index again"
    for column in ("image_id", "source", "label", "group"):
        if (images[column].isna() | (images[column] == "")).any():
            raise BusflowError(f"images.csv has a row without {column}; {remedy}")
    for doubled in ids[ids.duplicated()]:
        raise BusflowError(f"images.csv lists {doubled} more than once; {remedy}")
    for orphan in annotations.loc[~annotations["image_id"].isin(ids), "image_id"]:
        raise BusflowError(f"annotations.csv names {orphan}, which images.csv lacks; {remedy}")


def _leave_out(table: pd.DataFrame, which: pd.Series, reason: str) -> None:
    table.loc[which & (table["reason"] == ""), "reason"] = reason


def _leave_out_quarantined(table: pd.DataFrame, quarantine: pd.DataFrame) -> None:
    reasons = quarantine[quarantine["scope"] == "grouped"].groupby("image_id")["reason"].agg("; ".join)
    for reason in reasons.unique():
        _leave_out(table, table["image_id"].isin(reasons.index[reasons == reason]), reason)


def _leave_out_straddling(table: pd.DataFrame, tested: pd.Series, words: str) -> None:
    """Keep a given test set whole: what shares a group with it may not be trained on."""
    groups = table.loc[tested & (table["reason"] == ""), "group"]
    _leave_out(table, ~tested & table["group"].isin(groups), f"shares its group with {words}")


def _divide_as_the_paper(table: pd.DataFrame, task: str, seed: int) -> pd.Series:
    """Split of each row by the paper's rule (Table 2, Table 3's text, Table 4); groups are ignored.

    Where no source has lists, of which the paper's detectors take their test set, a fifth of the files is it.
    """
    if task == "classification":
        return pd.concat(_floor_floor_rest(of_class, seed) for _, of_class in table.groupby("label"))
    split = pd.Series("train", table.index)
    # A float test_size makes scikit-learn hold out ceil(test_size * n), as Table 4's counts ask.
    if task == "detection":
        listed = table["upstream_split"] == "val"
        fifth = [] if listed.any() else _hold_out_images(table.index, 0.2, seed, stratify=table["label"])
        split[listed | table.index.isin(fifth)] = "test"
        split[_hold_out_images(split.index[split == "train"], 0.05, seed)] = "val"
    else:
        for name in ("test", "val"):
            rest = table[split == "train"]
            split[_hold_out_images(rest.index, 0.2, seed, stratify=rest["label"])] = name
    return split


def _floor_floor_rest(of_class: pd.DataFrame, seed: int) -> pd.Series:
    """Shuffle the sorted files of one class; floor(0.8 n) train, floor(0.1 n) val, the rest test."""
    shuffled = of_class.index.to_list()
    random.Random(seed).shuffle(shuffled)
    train, val = len(shuffled) * 8 // 10, len(shuffled) // 10
    names = np.repeat(SPLITS, [train, val, len(shuffled) - train - val])
    return pd.Series(names, shuffled)


def _hold_out_images(index: pd.Index, share: float, seed: int, stratify: pd.Series | None = None) -> list:
    from sklearn.model_selection import train_test_split  # a second, which grouped splits need not wait

    try:
        return train_test_split(index, test_size=share, random_state=seed, stratify=stratify)[1].to_list()
    except ValueError as error:
        raise BusflowError(f"{len(index)} images cannot be divided by the paper's rule: {error}") from error


def _given_test(table: pd.DataFrame, task: str, protocol: Protocol, seed: int, sources: dict) -> pd.Series:
    """Whether each row is of a test set that split grouped does not choose: a fold, a source, a list.

    Raises BusflowError when no image of the fold, or of a source left out, is there to test.
    """
    if protocol.is_plain:
        return (table["upstream_split"] == "val") & (task == "detection")
    if protocol.fold:
        k, of = protocol.fold
        given = assign_folds(table, of, seed) == k
        if not given.any():
            raise BusflowError(
                f"protocol {protocol.name} has no image to test {task} on: fold {k} of {of} is empty; "
                "ask for fewer folds, or add images"
            )
        return given
    for source in protocol.leave_out:
        if task in sources[source]["tasks"] and source not in set(table["source"]):
            raise BusflowError(
                f"protocol {protocol.name} has no image of {source} to test {task} on: none is usable; see "
                f"data/index/quarantine.csv, or take {source} out of protocols.{protocol.name}.leave_out"
            )
    return table["source"].isin(protocol.leave_out)


def _divide_groups(
    table: pd.DataFrame, given: pd.Series, task: str, seed: int, tolerance: float
) -> pd.Series:
    """Split of each row so that no group is on two sides; the test set may be ``given``."""
    split = pd.Series("train", table.index)
    split[given] = "test"
    pool = table[split == "train"]
    shares = {name: share for name, share in GROUPED_SHARES[task].items() if name == "val" or not given.any()}
    for label, n in pool.groupby("label")["group"].nunique().items():
        if n <= len(shares):
            raise BusflowError(
                f"class {label} has {n} independent groups where protocol grouped needs {len(shares) + 1}, "
                "one for each split; add images of it or take its source out of the task"
            )
    images = pd.crosstab(pool["group"], [pool["label"], pool["source"]])
    wanted = {name: images.sum().to_numpy() * share for name, share in shares.items()}
    for number, name in enumerate(shares):
        taken = hold_out_groups(images, wanted[name], len(shares) - number, tolerance, seed)
        split[pool.index[pool["group"].isin(images.index[taken])]] = name
        images = images[~taken]
    return split


def _check(table: pd.DataFrame, given: pd.Series | None, name: str, tolerance: float) -> None:
    """Every split has images; in split grouped every class has its share in every split that it chose.

    ``given``: see ``_given_test``; None in split paper.
    """
    counts = pd.crosstab(table["split"], table["label"]).reindex(SPLITS, fill_value=0)
    logger.info("%s:\n%s", name, counts.to_string())
    sizes = counts.sum(axis=1)
    if (sizes == 0).any():
        raise BusflowError(f"split {sizes.idxmin()} of {name} is empty: too few images to divide")
    if given is None:
        return
    if given.any():
        logger.info(
            "the test set, which is given, has %s", (counts.loc["test"] / sizes["test"]).round(3).to_dict()
        )
        counts = counts.drop("test")
    balance = counts.sum().to_numpy() / counts.to_numpy().sum()
    if any(excess_imbalance(row, balance, tolerance) for row in counts.to_numpy()):
        raise BusflowError(
            f"the closest division of {name} without a group on two sides is still out of balance "
            f"({counts.to_dict('index')}); raise splits.balance_tolerance (now {tolerance}) to accept it"
        )
