"""The paper's claims on its segmenters (Table 7, Fig. 7, sections 1, 5 and 5.3), against ours."""

import itertools
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np
import pandas as pd

from busflow.audit.evidence import BY_GROUPS, Claim, Evidence, design
from busflow.audit.table7 import (
    CONVNEXTS,
    SEGFORMERS,
    Results,
    implied_share,
    label,
    leader,
    listed,
    results,
    table7_claims,
)
from busflow.audit.verdicts import (
    CONTRADICTED,
    NOT_TESTABLE,
    UNDEFINED,
    above,
    another,
    holds,
    ranked,
    within,
)
from busflow.errors import BusflowError
from busflow.paper import printed, status
from busflow.tables.overlap import SUBSETS
from busflow.tables.pairs import signed

WHERE = "5.3, Table 7"
ROUNDING = 0.005  # of two printed digits
SCORES = {
    "miou": "mIoU",
    "iou1": "IoU of lesions (printed: Malignant)",
    "acc1": "accuracy on lesions (printed: Malignant)",
    "aacc": "aAcc",
    "macc": "mAcc",
    "iou0": "IoU of the background (printed: Benign)",
    "acc0": "accuracy on the background (printed: Benign)",
}
BY_DICE = ("miou", "iou1")  # what a test of Dice is about
BEST = SEGFORMERS[-1:]


class Comparison(NamedTuple):
    """A claim that each of the ``better`` models outlines the lesions of a subset better than each other."""

    id: str
    claim: str
    where: str
    subset: str
    better: tuple[str, ...]
    worse: tuple[str, ...]


COMPARISONS = (
    Comparison(
        "families", "SegFormer outlines lesions better than ConvNeXt", WHERE, "lesions", SEGFORMERS, CONVNEXTS
    ),
    Comparison(
        "families_small",
        "SegFormer outlines tiny malignant lesions better than ConvNeXt",
        "5",
        "malignant_smallest",
        SEGFORMERS,
        CONVNEXTS,
    ),
    Comparison(
        "b4_small",
        "SegFormer-B4 outlines small lesions better than the others",
        "1, 7",
        "smallest",
        BEST,
        (*CONVNEXTS, *SEGFORMERS[:-1]),
    ),
    Comparison(
        "b4_b0",
        "SegFormer-B4's masks are nearer to the truth than SegFormer-B0's",
        "5.3, Fig. 7",
        "lesions",
        BEST,
        SEGFORMERS[:1],
    ),
)
# id, claim, where, models, and their mean Dice on thirds of the lesions by size in the claimed order.
BY_SIZE = (
    (
        "convnext_sizes",
        "ConvNeXt is worse on small lesions than on large ones",
        "5.3",
        CONVNEXTS,
        ("largest", "smallest"),
    ),
    (
        "b4_sizes",
        "SegFormer-B4's masks are nearest to the truth on small lesions",
        "5.3, Fig. 7",
        BEST,
        ("smallest", "largest"),
    ),
)


def segmentation_claims(evidence: Evidence) -> Iterator[Claim]:
    """Scores, ranks, the two families, small lesions, and what Table 7 says of itself."""
    ours = {protocol: results(evidence, protocol) for protocol in ("paper", "grouped")}
    yield from _scores(evidence, ours)
    yield from table7_claims(evidence, ours)
    yield _test_set(evidence, ours)
    for score in SCORES:
        yield _best(evidence, ours, score)
    yield _above_50(evidence, ours)
    for comparison in COMPARISONS:
        yield _compared(evidence, ours, comparison)
    for claim in BY_SIZE:
        yield _by_size(evidence, ours, *claim)


def check_segmentation_metrics(metrics: dict, name: str) -> None:
    """Hold metrics to their identities: mIoU and mAcc are means of the classes, aAcc is weighted by pixels.

    Raises BusflowError for a mean that does not follow, and for classes that are not all of the pixels.
    """
    for view, block in metrics["views"].items():
        classes = block["per_class"].values()
        pixels = sum(each["n_pixels"] for each in classes)
        if pixels != metrics["n_pixels"]:
            raise BusflowError(f"{name}: {view}: the classes have {pixels} of {metrics['n_pixels']} pixels")
        right = sum(each["acc"] * each["n_pixels"] for each in classes if each["n_pixels"])
        implied = {"aacc": right / pixels}
        for mean, score in (("miou", "iou"), ("macc", "acc")):
            implied[mean] = np.mean([each[score] for each in classes if each[score] is not None])
        for mean, value in implied.items():
            if abs(block[mean] - value) > 1e-9:
                raise BusflowError(f"{name}: {view}: {mean} is {block[mean]}; the classes imply {value}")
    lesion = metrics["views"]["two_class"]["per_class"]["lesion"]["n_pixels"] / metrics["n_pixels"]
    if abs(metrics["lesion_pixel_share"] - lesion) > 1e-9:
        raise BusflowError(f"{name}: lesion_pixel_share is {metrics['lesion_pixel_share']}, not {lesion}")


def _scores(evidence: Evidence, ours: dict[str, Results]) -> Iterator[Claim]:
    corrected = printed("table7", corrected=True)
    for score, words in SCORES.items():
        for model, value in printed("table7")[score].items():
            row, typo = ours["paper"].scores.loc[model], status("table7", model, score) == "typo"
            ends = row[f"{score}_low"], row[f"{score}_high"]
            verdict = within(value, row[score], *ends, ROUNDING, top=100)
            why = design("protocol paper", *another(row[score], *ends, top=100), 1)
            yield Claim(
                f"T7.{model}.{score}",
                f"{label(evidence, model)}: {words} {value:.2f} %",
                WHERE,
                f"{value:.2f}",
                **_judge(evidence, verdict, why, [model]),
                corrected=f"{corrected.loc[model, score]:.2f}" if typo else "–",
                ours_paper_protocol=_interval(row, score),
                ours_grouped=_interval(ours["grouped"].scores.loc[model], score),
            )


def _test_set(evidence: Evidence, ours: dict[str, Results]) -> Claim:
    low, high = (100 * end for end in implied_share())
    share = ours["paper"].scores["lesion_pixel_share"].max()
    return Claim(
        "T7.test_set",
        "Table 7 is about the test images of Table 4",
        "4.2, Tables 4 and 7",
        f"{printed('table4').loc['test', 'total']} images",
        **evidence.judge(
            UNDEFINED if np.isnan(share) else holds(low <= share <= high),
            "share of lesion pixels: implied by Table 7, and of our test set, split by the rule of Table 4",
            sources=["busi"],
            trained=False,
            task="segmentation",
        ),
        corrected=f"{low:.1f} to {high:.1f} %",
        ours_paper_protocol=ours["paper"].share(),
        ours_grouped=ours["grouped"].share(),
    )


def _best(evidence: Evidence, ours: dict[str, Results], score: str) -> Claim:
    """A maximum that is a typo is decided by the paper's own numbers, any other by ours."""
    paper, corrected = printed("table7")[score], printed("table7", corrected=True)[score]
    claimed, values = paper.idxmax(), ours["paper"].scores[score].dropna().to_dict()
    if corrected.idxmax() != claimed:
        judged = {"verdict": CONTRADICTED, "why": "the other cells of the same row imply less"}
    else:
        tested = score in BY_DICE
        told = evidence.told("segmentation_pairs", "paper", "subset", "lesions" if tested else score)
        verdict = UNDEFINED
        if claimed in values:
            verdict = ranked([(claimed, other) for other in values if other != claimed], told)
        why = f"Dice of lesions, {BY_GROUPS}" if tested else f"{BY_GROUPS}, which this score has none of"
        judged = _judge(evidence, verdict, f"protocol paper; {why}", paper.index)
    return Claim(
        f"T7.best_{score}",
        f"{label(evidence, claimed)} has the highest {SCORES[score]}",
        WHERE,
        f"{paper.max():.2f}",
        **judged,
        corrected="–" if corrected.max() == paper.max() else leader(evidence, corrected),
        ours_paper_protocol=leader(evidence, ours["paper"].scores[score]),
        ours_grouped=leader(evidence, ours["grouped"].scores[score]),
    )


def _above_50(evidence: Evidence, ours: dict[str, Results]) -> Claim:
    values = {protocol: each.scores["iou1"].reindex(SEGFORMERS) for protocol, each in ours.items()}
    ends = ours["paper"].scores.loc[list(SEGFORMERS), ["iou1_low", "iou1_high"]].to_numpy(float)
    verdict = UNDEFINED if values["paper"].isna().any() else above(50, ends)
    paper, corrected = (printed("table7", kind)["iou1"].reindex(SEGFORMERS) for kind in (False, True))
    return Claim(
        "T7.above_50",
        "All SegFormers have an IoU of lesions above 50 %",
        WHERE,
        listed(paper),
        **_judge(evidence, verdict, "protocol paper, by the 95 % interval of each", SEGFORMERS),
        corrected=listed(corrected),
        ours_paper_protocol=listed(values["paper"]),
        ours_grouped=listed(values["grouped"]),
    )


def _compared(evidence: Evidence, ours: dict[str, Results], claim: Comparison) -> Claim:
    pairs = list(itertools.product(claim.better, claim.worse))
    found = {
        protocol: np.array([each.pair(claim.subset, *pair) for pair in pairs])
        for protocol, each in ours.items()
    }
    value, low, _ = found["paper"].T
    if np.isnan(value).any():
        verdict = UNDEFINED
    elif np.isnan(low).any():
        verdict = NOT_TESTABLE
    else:
        verdict = ranked(pairs, evidence.told("segmentation_pairs", "paper", "subset", claim.subset))
    iou = printed("table7")["iou1"]
    families = " against ".join(listed(iou.reindex(models)) for models in (claim.better, claim.worse))
    return Claim(
        f"T7.{claim.id}",
        claim.claim,
        claim.where,
        families if claim.subset == "lesions" else "–",
        **_judge(
            evidence,
            verdict,
            f"{SUBSETS[claim.subset].lower()}: mean Dice on the same images, protocol paper; {BY_GROUPS}; "
            "not testable: too few groups",
            [*claim.better, *claim.worse],
        ),
        ours_paper_protocol=_counted(found["paper"]),
        ours_grouped=_counted(found["grouped"]),
    )


def _by_size(
    evidence: Evidence,
    ours: dict[str, Results],
    name: str,
    claim: str,
    where: str,
    models: tuple[str, ...],
    order: tuple[str, str],
) -> Claim:
    columns = [f"dice_{third}" for third in order]
    rows = {protocol: each.images.loc[list(models), columns] for protocol, each in ours.items()}
    ends = ours["paper"].images.loc[list(models), ["dice_size_gap_low", "dice_size_gap_high"]]
    ends = ends.to_numpy(float) if order[0] == "largest" else -ends.to_numpy(float)[:, ::-1]
    verdict = above(0, ends) if rows["paper"].notna().all(axis=None) else UNDEFINED
    text = {
        protocol: "; ".join(
            " against ".join("–" if pd.isna(value) else f"{value:.3f}" for value in row)
            for row in part.to_numpy(float)
        )
        for protocol, part in rows.items()
    }
    thirds = f"the {order[0]} against the {order[1]} third"
    why = f"mean Dice on {thirds} of the lesions, protocol paper, by the 95 % interval of the gap"
    return Claim(
        f"T7.{name}",
        claim,
        where,
        "–",
        **_judge(evidence, verdict, why, models),
        ours_paper_protocol=text["paper"],
        ours_grouped=text["grouped"],
    )


def _judge(evidence: Evidence, verdict: str, why: str, models: Iterable[str]) -> dict[str, str]:
    return evidence.judge(verdict, why, sources=["busi"], models=models, task="segmentation")


def _interval(row: pd.Series, score: str) -> str:
    """``73.25 [70.1, 76.0]``"""
    if pd.isna(row[score]):
        return "–"
    low, high = row[f"{score}_low"], row[f"{score}_high"]
    return f"{row[score]:.2f}" + ("" if pd.isna(low) else f" [{low:.1f}, {high:.1f}]")


def _counted(pairs: np.ndarray) -> str:
    """``+0.031 [+0.010, +0.052]`` of one pair; of several how many are better, worse and not told apart."""
    known = pairs[~np.isnan(pairs[:, 0])]
    if not len(known):
        return "–"
    if len(pairs) == 1:
        return signed(*known[0])
    better, worse = int((known[:, 1] > 0).sum()), int((known[:, 2] < 0).sum())
    return f"{better} of {len(known)} better, {worse} worse, {len(known) - better - worse} not told apart"
