"""The index: all sources in one set of tables, with duplicates, groups and the quarantine."""

import logging
from pathlib import Path

import numpy as np
import pandas as pd

from busflow.data.duplicates import find_duplicates, groups
from busflow.data.errata import correct
from busflow.data.layout import QUARANTINE_COLUMNS, REMARKS, WITH_IMAGE
from busflow.errors import BusflowError
from busflow.files import read_csv, remove_temporaries, write_csv

TABLES = ("images", "annotations", "quarantine")  # of a source, and of all

logger = logging.getLogger(__name__)


def build_index(folders: list[Path], settings: dict, output: Path) -> None:
    """Merge what ``read_source`` wrote into ``images, annotations, quarantine, duplicates``.csv.

    Labels stay as upstream has them. What contradicts itself once the errata are applied goes to the
    quarantine with scope ``grouped``: protocol paper keeps it, because the paper did.

    Args:
        folders: one per source, as ``read_source`` wrote them.
        settings: the config's ``sources``, ``quarantine`` and ``duplicates``.
        output: folder of the index.

    Raises:
        BusflowError: too large a share of a source is in quarantine, or an image is there twice.
    """
    images, annotations, quarantine, thumbnails = read_sources(folders)
    for folder in folders:
        check_budget(folder, settings["quarantine"]["max_share"])
    corrected = correct(images, settings["sources"])
    pairs = find_duplicates(images, thumbnails, **settings["duplicates"])
    images = images.assign(unit=groups(corrected, pairs)).rename(columns={"unit": "group"})
    problems = pd.concat([withdrawn(corrected), contradictions(corrected, pairs)]).assign(scope="grouped")
    quarantine = pd.concat([quarantine, problems])

    remove_temporaries(*(output / f"{name}.csv" for name in (*TABLES, "duplicates")))
    write_csv(output / "annotations.csv", annotations.sort_values("annotation_id", kind="stable"))
    write_csv(output / "quarantine.csv", quarantine.sort_values(["scope", "source", "path", "reason"]))
    write_csv(output / "duplicates.csv", pairs)
    write_csv(output / "images.csv", images)
    logger.info(
        "%d images in %d groups, %d duplicate pairs", len(images), images["group"].nunique(), len(pairs)
    )
    logger.info("quarantine: %s", quarantine["scope"].value_counts().to_dict() or "empty")


def read_sources(folders: list[Path]) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame, np.ndarray]:
    """What ``read_source`` wrote of some sources: images by image_id, annotations, quarantine, thumbnails.

    Raises BusflowError when an image is there twice.
    """
    images, annotations, quarantine = (
        pd.concat([read_csv(folder / f"{name}.csv") for folder in folders], ignore_index=True)
        for name in TABLES
    )
    thumbnails = np.concatenate([np.load(folder / "thumbnails.npy") for folder in folders])
    if images["image_id"].duplicated().any():
        twice = images["image_id"][images["image_id"].duplicated()].iloc[0]
        raise BusflowError(f"{twice} is in the sources twice: give every source folder once")
    order = np.argsort(images["image_id"].to_numpy(), kind="stable")
    return images.iloc[order].reset_index(drop=True), annotations, quarantine, thumbnails[order]


def check_budget(folder: Path, max_share: float) -> None:
    """Refuse a source of which more than ``max_share`` (0..1) of the files have a quarantine row.

    Rows that only remark on what stays in (``REMARKS``) do not count.

    Raises:
        BusflowError: names the source, the share, the commonest reasons and what to do. The list it
            points to is the source's own, which outlives the failed job.
    """
    quarantine = read_csv(folder / "quarantine.csv")
    quarantine = quarantine[~quarantine["reason"].str.startswith(REMARKS)]
    images, annotations = (read_csv(folder / f"{name}.csv") for name in ("images", "annotations"))
    files = {*images["path"], *annotations["mask_path"]} - {""}
    bad = set(quarantine["path"])
    share = len(bad) / len(files | bad)
    if share > max_share:
        reasons = (
            quarantine["reason"].str.removeprefix(f"{WITH_IMAGE}: ").str.split(":").str[0].value_counts()
        )
        commonest = ", ".join(f"{reason} ({count})" for reason, count in reasons.head(3).items())
        first = quarantine.iloc[0]
        raise BusflowError(
            f"source {folder.name}: {len(bad)} of {len(files | bad)} files ({share:.1%}) are in quarantine, "
            f"more than quarantine.max_share = {max_share:.1%} allows: {commonest}; "
            f"for one, {first['path']}: {first['reason']}. All are listed in {folder / 'quarantine.csv'}; "
            "mend the data, or raise quarantine.max_share if they may be missing"
        )


def contradictions(images: pd.DataFrame, pairs: pd.DataFrame) -> pd.DataFrame:
    """Quarantine rows for all images of units that share a duplicate but not the label.

    Args:
        images: ``image_id, source, path, label, unit, dropped``, labels corrected; dropped images
            contradict nobody.
        pairs: ``image_a, image_b, kind, ncc``.
    """
    facts = images[~images["dropped"]].set_index("image_id")[["unit", "label"]]
    partners = facts.rename(columns={"unit": "unit_b", "label": "label_b"})
    both = pd.concat([pairs, pairs.rename(columns={"image_a": "image_b", "image_b": "image_a"})])
    both = both.join(facts, on="image_a", how="inner").join(partners, on="image_b", how="inner")
    clashes = both[both["label"] != both["label_b"]]
    worst = clashes.sort_values(["ncc", "image_a", "image_b"], ascending=[False, True, True])
    reasons = worst.drop_duplicates("unit").set_index("unit").apply(_clash, axis=1, result_type="reduce")
    involved = images[images["unit"].isin(reasons.index) & ~images["dropped"]]
    return quarantine_rows(involved, involved["unit"].map(reasons))


def _clash(pair: pd.Series) -> str:
    relation = "identical to" if pair["kind"] == "exact" else f"a near-duplicate (NCC {pair['ncc']:.3f}) of"
    other = f"{pair['image_b']}, labelled {pair['label_b']}"
    return f"cross-label duplicate: {pair['image_a']} is {relation} {other}"


def withdrawn(images: pd.DataFrame) -> pd.DataFrame:
    """Quarantine rows for the images that the errata drop."""
    return quarantine_rows(
        images[images["dropped"]], "erratum: the makers of the dataset withdrew this video"
    )


def quarantine_rows(images: pd.DataFrame, reason: pd.Series | str) -> pd.DataFrame:
    """Rows of a quarantine, but for their scope, for images whose files are sound."""
    return images.assign(reason=reason, scope="")[QUARANTINE_COLUMNS]
