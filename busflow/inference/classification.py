"""Classifiers on anyone's images: probabilities of the classes."""

from typing import NamedTuple

import numpy as np
import pandas as pd
import torch

from busflow.engine.classification import DIGITS
from busflow.files import write_csv
from busflow.inference.job import Job
from busflow.inference.members import Member, spread
from busflow.inference.overlays import Overlay
from busflow.inference.pictures import Opened
from busflow.labels import LABELS

COLUMNS = [f"p_{label}" for label in LABELS]


class Found(NamedTuple):
    """Of one image: probabilities float64 [K], and the largest difference between members in one of them."""

    probabilities: np.ndarray
    disagreement: float


def infer(job: Job, opened: list[Opened]) -> list[Found]:
    """Mean probabilities of the members for each image; of calibrated ones if that is asked for."""
    every = torch.stack([_probabilities(member, opened, job.calibrated) for member in job.members])
    # Rounded as in the study's predictions, on which operating points were fitted.
    return [Found(one.mean(dim=0).numpy().round(DIGITS), spread(one)) for one in every.unbind(1)]


def _probabilities(member: Member, opened: list[Opened], calibrated: bool) -> torch.Tensor:
    batch = member.model.data_preprocessor({"images": member.images(opened), "labels": None})
    logits = member.model(**batch).float().cpu().double()
    return torch.softmax(logits / (member.meta["calibration"]["temperature"] if calibrated else 1), dim=1)


def finish(job: Job, opened: Opened, found: Found) -> tuple[dict, list[dict], Overlay]:
    """Columns of the summary, the image's row of predictions.csv, and what an overlay shows."""
    by_label = dict(zip(LABELS, found.probabilities.tolist(), strict=True))
    malignant = by_label["malignant"]
    if job.threshold is None:
        allowed = LABELS
    elif malignant >= job.threshold:
        allowed = ["malignant"]
    else:
        allowed = [label for label in LABELS if label != "malignant"]
    label = max(allowed, key=by_label.__getitem__)
    row = {"prediction": label} | dict(zip(COLUMNS, found.probabilities.tolist(), strict=True))
    summary = row | (_operating_points(malignant, job.members) if job.calibrated else {})
    if len(job.members) > 1:
        summary["disagreement"] = round(found.disagreement, 6)
    return summary, [row], Overlay([(label, f"{label} {by_label[label]:.2f}")])


def _operating_points(malignant: float, members: list[Member]) -> dict[str, bool | None]:
    """Whether a single model calls the image malignant at each sensitivity; of ensembles none is known."""
    if len(members) > 1:
        return {}
    thresholds = members[0].meta["calibration"]["thresholds"]
    return {
        f"malignant_at_{wanted}": None if threshold is None else bool(malignant >= threshold)
        for wanted, threshold in thresholds.items()
    }


def write(job: Job, images: pd.DataFrame, results: list[dict]) -> None:
    """Write predictions.csv."""
    write_csv(job.output / "predictions.csv", pd.DataFrame(results).assign(notice=job.notice))
