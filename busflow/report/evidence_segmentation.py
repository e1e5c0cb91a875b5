"""What the claims on segmenters are judged by: a protocol's rows of the study's tables, and their wording."""

from typing import NamedTuple

import numpy as np
import pandas as pd

from busflow.report.evidence import Evidence
from busflow.report.paper import printed
from busflow.report.tables_segmentation import CATEGORIES

CONVNEXTS = ("convnext_tiny", "convnext_small")
SEGFORMERS = tuple(f"segformer_b{k}" for k in range(5))


class Results(NamedTuple):
    """One protocol's results of the paper's models; NaN is what the study lacks.

    ``scores``: by model, in the columns of the paper (per cent), with ``miou_low``, ``iou1_high`` ...,
    ``lesion_pixel_share`` and ``n``. ``images``: the table of overlap image by image, by model.
    ``pairs``: the differences of mean Dice, by subset.
    """

    scores: pd.DataFrame
    images: pd.DataFrame
    pairs: pd.DataFrame

    def pair(self, subset: str, model: str, other: str) -> list[float]:
        """Mean Dice of the model less the other's on the same images, and the ends of its interval."""
        rows = self.pairs[self.pairs.index == subset]
        for sign, (first, second) in ((1, (model, other)), (-1, (other, model))):
            row = rows[(rows["model"] == first) & (rows["other"] == second)]
            if len(row):
                value, *ends = sign * row[["difference", "low", "high"]].to_numpy(float)[0]
                return [value, *ends[::sign]]
        return [np.nan] * 3

    def share(self) -> str:
        """``7.51 % (n = 156 images)``"""
        share, n = self.scores["lesion_pixel_share"].max(), self.scores["n"].max()
        return "–" if pd.isna(share) else f"{share:.2f} % (n = {n:.0f} images)"


def results(evidence: Evidence, protocol: str) -> Results:
    """The two-class view of Table 7, and the tables ``segmentation`` and ``segmentation_pairs``."""
    models = printed("table7").index
    rows = evidence.rows("table7", protocol, "model").query("view == 'two_class'")
    scores = pd.DataFrame(index=models)
    for place, label in enumerate(CATEGORIES):
        part = rows[rows["class"] == label].reindex(models)
        for name in ("iou", "iou_low", "iou_high", "acc"):
            scores[f"{name[:3]}{place}{name[3:]}"] = 100 * part[name]
    for name in ("miou", "miou_low", "miou_high", "aacc", "macc", "lesion_pixel_share"):
        scores[name] = 100 * part[name]
    scores["n"] = part["n"]
    images = evidence.rows("segmentation", protocol, "model").reindex(models)
    return Results(scores, images, evidence.rows("segmentation_pairs", protocol, "subset"))


def label(evidence: Evidence, model: str) -> str:
    """A segmenter's name in sentences."""
    return evidence.label(model, "segmentation")


def leader(evidence: Evidence, scores: pd.Series) -> str:
    """``SegFormer-B4 81.55``"""
    known = scores.dropna()
    return "–" if known.empty else f"{label(evidence, known.idxmax())} {known.max():.2f}"


def listed(values: pd.Series) -> str:
    """``54.97, –, 57.70``"""
    return ", ".join("–" if pd.isna(value) else f"{value:.2f}" for value in values)
