"""Corrections that the makers of a dataset published after the fact (config: ``sources.<id>.errata``)."""

import logging

import pandas as pd

from busflow.errors import BusflowError
from busflow.labels import LABELS

logger = logging.getLogger(__name__)


def apply_errata(images: pd.DataFrame, errata: dict) -> pd.DataFrame:
    """Apply one source's errata to its images.

    Videos are named as in the dataset, ``benign/x63c9ba1377f35bf6``; the ``x`` may be missing on
    either side, since published copies differ in it.

    Args:
        images: the source's rows with ``image_id`` and ``label``.
        errata: any of ``drop: [video]``, ``relabel: {video: label}``, ``same_patient: [[video, ...]]``.

    Returns:
        A copy with ``label`` corrected and two more columns: ``dropped`` (bool) and ``patient``
        (the same text for all videos of one patient, empty when the errata say nothing).

    Raises:
        BusflowError: a new label is not one of benign, malignant, normal.
    """
    videos = images["image_id"].map(_video_of).astype("str")
    corrected = images.assign(dropped=False, patient="")
    for video in errata.get("drop", []):
        corrected.loc[_rows(videos, video), "dropped"] = True
    for video, label in errata.get("relabel", {}).items():
        if label not in LABELS:
            raise BusflowError(
                f"errata.relabel gives {video} the label {label!r}: use one of {', '.join(LABELS)}"
            )
        corrected.loc[_rows(videos, video), "label"] = label
    for patient in errata.get("same_patient", []):
        for video in patient:
            corrected.loc[_rows(videos, video), "patient"] = patient[0]
    return corrected


def correct(images: pd.DataFrame, sources: dict) -> pd.DataFrame:
    """``apply_errata`` for the images of all ``sources`` (the config's section) at once."""
    corrected = images.assign(dropped=False, patient="")
    for source, settings in sources.items():
        rows = images["source"] == source
        if settings.get("errata") and rows.any():
            corrected[rows] = apply_errata(images[rows], settings["errata"])
    return corrected


def corrected_labels(images: pd.DataFrame, sources: dict) -> pd.Series:
    """The labels of ``images`` (``image_id, source, label``) after all errata, with the same index."""
    return correct(images, sources)["label"]


def _video_of(image_id: str) -> str:
    return _bare(image_id.partition("/")[2].rpartition("/")[0])


def _bare(video: str) -> str:
    folder, _, name = video.rpartition("/")
    return f"{folder}/{name.removeprefix('x')}"


def _rows(videos: pd.Series, video: str) -> pd.Series:
    rows = videos == _bare(video)
    if not rows.any():
        logger.warning("the errata name the video %s, of which there is no image", video)
    return rows
