"""External tests: sources that no model learns from, made ready to be predicted.

An image that the study has too, or a near copy of one, is no external test: its whole group is left out.
"""

import logging
from pathlib import Path

import pandas as pd

from busflow.data.duplicates import find_duplicates, groups
from busflow.data.errata import correct, corrected_labels
from busflow.data.index import check_budget, contradictions, quarantine_rows, read_sources, withdrawn
from busflow.errors import BusflowError
from busflow.files import remove_temporaries, write_csv

logger = logging.getLogger(__name__)


def build_external_index(folder: Path, study: list[Path], settings: dict, output: Path) -> None:
    """Write ``images, annotations, quarantine, duplicates``.csv of one external source.

    Their columns are those of the study's index. Duplicates are those inside the source and those with the
    study's images; each group with one of the latter is in quarantine, as are contradictions and what the
    errata withdraw, with scope ``external``.

    Args:
        folder: of the source, as ``read_source`` wrote it.
        study: those of the sources that are trained on.
        settings: the config's ``sources`` (all of them), ``quarantine`` and ``duplicates``.
        output: folder of the four tables.

    Raises:
        BusflowError: too large a share of the source is in quarantine.
    """
    images, annotations, quarantine, thumbnails = read_sources([folder, *study])
    check_budget(folder, settings["quarantine"]["max_share"])
    corrected = correct(images, settings["sources"])
    own = (images["source"] == folder.name).to_numpy()
    pairs = find_duplicates(corrected, thumbnails, **settings["duplicates"])
    ids = set(images.loc[own, "image_id"])
    inside = pairs["image_a"].isin(ids).astype(int) + pairs["image_b"].isin(ids)
    corrected = corrected[own].reset_index(drop=True)
    corrected["group"] = groups(corrected, pairs[inside == 2])
    problems = pd.concat(
        [
            withdrawn(corrected),
            contradictions(corrected, pairs[inside == 2]),
            _known_to_the_study(corrected, pairs[inside == 1]),
        ]
    ).assign(scope="external")
    quarantine = pd.concat([quarantine[quarantine["source"] == folder.name], problems])

    tables = {
        "annotations": annotations[annotations["image_id"].isin(ids)].sort_values(
            "annotation_id", kind="stable"
        ),
        "quarantine": quarantine.sort_values(["scope", "path", "reason"]),
        "duplicates": pairs[inside > 0],
        "images": images[own].assign(unit=corrected["group"].to_numpy()).rename(columns={"unit": "group"}),
    }
    remove_temporaries(*(output / f"{name}.csv" for name in tables))
    for name, table in tables.items():
        write_csv(output / f"{name}.csv", table)
    logger.info(
        "%s: %d images in %d groups, %d of them left out",
        *(folder.name, own.sum(), corrected["group"].nunique(), problems["image_id"].nunique()),
    )


def external_split(
    images: pd.DataFrame, annotations: pd.DataFrame, quarantine: pd.DataFrame, task: str, sources: dict
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """All images of an external source that can test a task, as a split that is ``test`` throughout.

    Args:
        images, annotations, quarantine: of ``build_external_index``.
        task: detection needs a box of each image, segmentation a mask of each lesion.
        sources: the config's ``sources``, whose errata correct the labels.

    Returns:
        The split (``image_id, split, label, group``) and what is left out of it (``image_id, label, group,
        reason``), both sorted by image_id.

    Raises:
        BusflowError: no image can test the task.
    """
    table = images.sort_values("image_id", ignore_index=True)
    table = table.assign(label=corrected_labels(table, sources), split="test", reason="")
    left_out = quarantine[quarantine["scope"] == "external"].groupby("image_id")["reason"].agg("; ".join)
    table["reason"] = left_out.reindex(table["image_id"], fill_value="").to_numpy()
    outlined = annotations.loc[annotations["mask_path"] != "", "image_id"]
    for lacking, reason in (
        ((task == "detection") & ~table["image_id"].isin(annotations["image_id"]), "has no annotated lesion"),
        (
            (task == "segmentation") & (table["label"] != "normal") & ~table["image_id"].isin(outlined),
            "has no mask of its lesion",
        ),
    ):
        table.loc[lacking & (table["reason"] == ""), "reason"] = reason
    excluded = table["reason"] != ""
    if excluded.all():
        raise BusflowError(
            f"no image of the external source {table['source'].iloc[0]} can test {task} "
            f"(the first: {table['reason'].iloc[0]}); take {task} out of its tasks"
            if len(table)
            else f"an external source has no image to test {task}; see its quarantine.csv"
        )
    logger.info("%s: %d images to test, %d left out", task, (~excluded).sum(), excluded.sum())
    return (
        table.loc[~excluded, ["image_id", "split", "label", "group"]].reset_index(drop=True),
        table.loc[excluded, ["image_id", "label", "group", "reason"]].reset_index(drop=True),
    )


def _known_to_the_study(images: pd.DataFrame, pairs: pd.DataFrame) -> pd.DataFrame:
    """Quarantine rows for all images of groups that hold a copy of an image of the study.

    Args:
        images: of the external source, ``image_id, group`` and what a quarantine row has.
        pairs: ``image_a, image_b, kind, ncc``, one of them external.
    """
    swapped = pairs.rename(columns={"image_a": "image_b", "image_b": "image_a"})
    both = pd.concat([pairs, swapped]).merge(
        images[["image_id", "group"]], left_on="image_a", right_on="image_id"
    )
    closest = both.sort_values(["ncc", "image_a", "image_b"], ascending=[False, True, True])
    closest = closest.drop_duplicates("group").set_index("group")
    reasons = {
        group: f"not external: {pair.image_a} is a copy (NCC {pair.ncc:.3f}) of {pair.image_b} of the study"
        for group, pair in zip(closest.index, closest.itertuples(), strict=True)
    }
    known = images[images["group"].isin(reasons)]
    return quarantine_rows(known, known["group"].map(reasons))
