"""Claims that the paper's own Table 7 decides, and what all claims on segmenters are judged by."""

import itertools
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import pandas as pd

from busflow.audit.evidence import ENDS, Claim, Evidence
from busflow.audit.identities import table7_identities
from busflow.audit.verdicts import holds
from busflow.paper import facts, lesion_share, printed
from busflow.tables.segmentation import CATEGORIES

CONVNEXTS = ("convnext_tiny", "convnext_small")
SEGFORMERS = tuple(f"segformer_b{k}" for k in range(5))
COLUMNS = {
    "iou0": "IoU Benign",
    "acc0": "Acc. Benign",
    "iou1": "IoU Malignant",
    "acc1": "Acc. Malignant",
    "miou": "mIoU",
    "aacc": "aAcc",
    "macc": "mAcc",
}
# Per cent, of other methods on source [27], as section 6.3 quotes them.
QUOTED = {"STAN [64]": 84.70, "Huang et al. [60]": 72.12, "AMS-PAN [62]": 68.53}


class Results(NamedTuple):
    """One protocol's results of the paper's models; NaN is what the study lacks.

    ``scores``: by model, in the columns of the paper (per cent), each with ``_low`` and ``_high``,
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
        for name, end in itertools.product(("iou", "acc"), ENDS):
            scores[f"{name}{place}{end}"] = 100 * part[f"{name}{end}"]
    for name, end in itertools.product(("miou", "aacc", "macc"), ENDS):
        scores[f"{name}{end}"] = 100 * part[f"{name}{end}"]
    scores["lesion_pixel_share"] = 100 * part["lesion_pixel_share"]
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


def table7_claims(evidence: Evidence, ours: dict[str, Results]) -> Iterator[Claim]:
    """Arithmetic, the names of the classes, the pixels, the accuracies, and the baselines that it quotes."""
    yield _arithmetic(evidence)
    yield _classes()
    yield _same_pixels(ours)
    yield _accuracies(ours)
    yield _baseline(evidence, ours)


def _arithmetic(evidence: Evidence) -> Claim:
    broken = {each.row for each in table7_identities() if not each.holds}
    typos = [note for note in facts()["table7"]["notes"] if note["status"] == "typo"]

    def cells(values: pd.DataFrame) -> str:
        return "; ".join(
            f"{label(evidence, note['row'])} {COLUMNS[note['column']]} "
            f"{values.loc[note['row'], note['column']]:.2f}"
            for note in typos
        )

    rows = len(printed("table7"))
    return Claim(
        "T7.arithmetic",
        "In each row of Table 7 the classes and the means belong together",
        "Table 7",
        cells(printed("table7")),
        holds(not broken),
        f"{rows - len(broken)} of {rows} rows are those of a confusion matrix",
        corrected=cells(printed("table7", corrected=True)),
    )


def _classes() -> Claim:
    """Two classes whose accuracies, weighted by their pixels, give aAcc are all classes that there are."""
    fit = all(each.holds for each in table7_identities(corrected=True))
    return Claim(
        "T7.classes",
        "The two classes of Table 7 are Benign and Malignant",
        "5.3, Table 7",
        "Benign, Malignant",
        holds(not fit),
        "each row, typos mended, is to its last digit that of a matrix in which two classes make up all "
        "pixels; Benign and Malignant leave the background out",
        corrected="background, lesion",
    )


def _same_pixels(ours: dict[str, Results]) -> Claim:
    """The shares of lesion pixels that the rows imply, to within their rounding, must have one in common."""
    ends = {model: lesion_share(model)[1:] for model in printed("table7").index}
    ends = pd.DataFrame(ends, index=["low", "high"]).T.dropna()
    families = {"ConvNeXt": CONVNEXTS, "SegFormer": SEGFORMERS}
    common = {name: ends.loc[ends.index.intersection(models)] for name, models in families.items()}
    return Claim(
        "T7.same_pixels",
        "All segmenters of Table 7 were scored on the same images",
        "5.3, 5.4",
        f"Acc. and aAcc of {len(ends)} models",
        holds(ends["low"].max() <= ends["high"].min()),
        "the share of lesion pixels that they imply, with all that rounding leaves open",
        corrected="; ".join(
            f"{name} {100 * part['low'].max():.2f} to {100 * part['high'].min():.2f} %"
            for name, part in common.items()
        ),
        ours_paper_protocol=ours["paper"].share(),
        ours_grouped=ours["grouped"].share(),
    )


def _accuracies(ours: dict[str, Results]) -> Claim:
    paper = printed("table7", corrected=True)
    names = {"acc0": "background", "acc1": "lesion"}
    gaps = [
        paper.loc[list(SEGFORMERS), score].min() - paper.loc[list(CONVNEXTS), score].max() for score in names
    ]

    def text(scores: pd.DataFrame) -> str:
        least, most = (scores.loc[list(models), list(names)] for models in (SEGFORMERS, CONVNEXTS))
        if pd.concat([least, most]).isna().any(axis=None):
            return "–"
        words = [
            f"{name} {least[score].min():.2f} and more against up to {most[score].max():.2f}"
            for score, name in names.items()
        ]
        return "; ".join(words)

    return Claim(
        "T7.accuracies",
        "SegFormer's accuracies of both classes are higher than ConvNeXt's",
        "5.3, Table 7",
        text(printed("table7")),
        holds(min(gaps) > 0),
        "the values of the same table",
        corrected=text(paper),
        ours_paper_protocol=text(ours["paper"].scores),
        ours_grouped=text(ours["grouped"].scores),
    )


def _baseline(evidence: Evidence, ours: dict[str, Results]) -> Claim:
    best = printed("table7", corrected=True)["iou1"].max()
    return Claim(
        "T7.baseline",
        "The proposed approach outperforms the baselines in segmentation",
        "1, 6.3, 7",
        f"{best:.2f}",
        holds(best > max(QUOTED.values())),
        "IoU of lesions that the paper prints, and that it quotes of others on the same source; on which "
        "images of it, and whether over pixels or image by image, it does not say",
        corrected=", ".join(f"{name} {value:.2f}" for name, value in QUOTED.items()),
        ours_paper_protocol=leader(evidence, ours["paper"].scores["iou1"]),
        ours_grouped=leader(evidence, ours["grouped"].scores["iou1"]),
    )


def implied_share() -> tuple[float, float]:
    """The least and the greatest share of lesion pixels (0..1) that a row of Table 7 can be about."""
    ends = np.array([lesion_share(model)[1:] for model in printed("table7").index])
    return np.nanmin(ends), np.nanmax(ends)
