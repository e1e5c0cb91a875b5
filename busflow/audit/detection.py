"""The paper's claims on its detectors (Table 6, Figure 6, sections 1 and 5.2), against ours."""

import itertools
from collections.abc import Iterator

import numpy as np
import pandas as pd

from busflow.audit.evidence import BY_GROUPS, CONDITIONS, Claim, Evidence, design
from busflow.audit.verdicts import NOT_TESTABLE, UNDEFINED, agreed, another, equal, holds, ranked, within
from busflow.errors import BusflowError
from busflow.paper import printed, status
from busflow.tables.detection import COLUMNS, LITERATURE

WHERE = "5.2, Table 6"
ROUNDING = 0.0005  # of three printed digits
INTERVALS = ("ap", "ap50", "ap75")
SWIN, PROPOSED = "swin_base", "swin_base_detectors_rfla"
FOUR = (SWIN, "convnext_small", "convnext_tiny", "detr_r50")  # by AP, as printed


def detection_claims(evidence: Evidence) -> Iterator[Claim]:
    """Scores, AP_S, ranks, the proposed detector, the baseline that the paper itself quotes, and times."""
    ours = {
        protocol: evidence.rows("table6", protocol, "model").reindex(printed("table6").index)
        for protocol in ("paper", "grouped")
    }
    yield from _scores(evidence, ours)
    yield from _small(evidence, ours)
    for score in ("ap", "ap50", "ap75", "apl"):
        yield _best(evidence, ours, score)
    for name, claim, score, models in (
        ("order_ap", "AP ranks Swin-Base, ConvNeXt-Small, ConvNeXt-Tiny, DETR", "ap", FOUR),
        ("order_apl", "AP_L ranks Swin-Base, ConvNeXt-Small, ConvNeXt-Tiny, DETR", "apl", FOUR),
        (
            "small_backbone",
            "With RFLA, Swin-Base is better on small lesions than ConvNeXt-Small",
            "aps",
            ("swin_base_rfla", "convnext_small_rfla"),
        ),
        (
            "small_gain",
            "DetectoRS with RFLA is better on small lesions than Swin-Base",
            "aps",
            (PROPOSED, SWIN),
        ),
    ):
        yield _order(evidence, ours, name, claim, score, list(models))
    yield _medium(evidence, ours)
    yield _proposed(evidence, ours)
    yield _baseline(evidence, ours)
    yield _longest(evidence)


def check_detection_metrics(metrics: dict, name: str) -> None:
    """Hold metrics to their identities: AP is null just where no box is, and the mean of the classes' AP."""
    for family, bins in metrics["bins"].items():
        for size, each in bins.items():
            if (each["ap"] is None) != (each["n"] == 0):
                raise BusflowError(f"{name}: AP of {family} {size} is {each['ap']}, but {each['n']} boxes")
    classes = metrics["per_class"].values()
    if sum(each["n_boxes"] for each in classes) != metrics["n_boxes"]:
        raise BusflowError(f"{name}: the boxes of the classes do not add up to {metrics['n_boxes']}")
    for score in INTERVALS:
        known = [each[score] for each in classes if each["n_boxes"]]
        implied, found = np.mean(known) if known else None, metrics["coco"][score]
        if (found is None) != (implied is None) or (known and abs(found - implied) > 1e-9):
            raise BusflowError(f"{name}: {score} is {found}; the classes imply {implied}")


def _scores(evidence: Evidence, ours: dict[str, pd.DataFrame]) -> Iterator[Claim]:
    for score in (*INTERVALS, "apm", "apl"):
        for model, value in printed("table6")[score].dropna().items():
            row = ours["paper"].loc[model]
            point, low, high = (row.get(f"{score}{part}", np.nan) for part in ("", "_low", "_high"))
            of_size = f"protocol paper; {COLUMNS[score]} has no interval"
            why = design("protocol paper", *another(point, low, high), 3) if score in INTERVALS else of_size
            yield Claim(
                f"T6.{model}.{score}",
                f"{_label(evidence, model)}: {COLUMNS[score]} {value:.3f}",
                WHERE,
                f"{value:.3f}",
                **_judge(
                    evidence,
                    within(value, point, low, high, ROUNDING),
                    why,
                    [model],
                ),
                ours_paper_protocol=_text(ours["paper"].loc[model], score),
                ours_grouped=_text(ours["grouped"].loc[model], score),
            )


def _small(evidence: Evidence, ours: dict[str, pd.DataFrame]) -> Iterator[Claim]:
    """AP_S exists when a test box is under 32 x 32 pixels; RFLA's code prints AP75 in its place."""
    for model, value in printed("table6")["aps"].items():
        suspected = status("table6", model, "aps") == "suspected"
        row, grouped = (ours[protocol].loc[model] for protocol in ("paper", "grouped"))
        yield Claim(
            f"T6.{model}.aps",
            f"{_label(evidence, model)}: AP_S {value:.3f}",
            WHERE,
            f"{value:.3f}",
            **_judge(
                evidence,
                equal(value, row["aps"], ROUNDING),
                f"AP_S of {_count(row['n_coco.small'])} small boxes, protocol paper",
                [model],
            ),
            corrected=f"AP75 {value:.3f}, the fourth of AI-TOD's statistics" if suspected else "undefined",
            ours_paper_protocol=_text(row, "aps") + (f"; AP75 {_text(row, 'ap75')}" if suspected else ""),
            ours_grouped=_text(grouped, "aps") + (f"; AP75 {_text(grouped, 'ap75')}" if suspected else ""),
        )


def _best(evidence: Evidence, ours: dict[str, pd.DataFrame], score: str) -> Claim:
    """Among the detectors for which the paper prints this score."""
    paper = printed("table6")[score].dropna()
    models, claimed = list(paper.index), paper.idxmax()
    values = ours["paper"][score].reindex(models).dropna()
    rivals = [(claimed, other) for other in values.index if other != claimed]
    told = evidence.told("detection_pairs", "paper", "score", score)
    return Claim(
        f"T6.best_{score}",
        f"{_label(evidence, claimed)} has the highest {COLUMNS[score]} of {len(models)} detectors",
        WHERE,
        f"{paper.max():.3f}",
        **_judge(
            evidence,
            ranked(rivals, told) if claimed in values else UNDEFINED,
            _by_groups(score),
            models,
        ),
        ours_paper_protocol=_leader(evidence, ours["paper"][score].reindex(models)),
        ours_grouped=_leader(evidence, ours["grouped"][score].reindex(models)),
    )


def _order(
    evidence: Evidence, ours: dict[str, pd.DataFrame], name: str, claim: str, score: str, models: list[str]
) -> Claim:
    scores = {protocol: table[score].reindex(models) for protocol, table in ours.items()}
    told = evidence.told("detection_pairs", "paper", "score", score)
    verdict = UNDEFINED if scores["paper"].isna().any() else ranked(itertools.combinations(models, 2), told)
    return Claim(
        f"T6.{name}",
        claim,
        WHERE,
        _list(printed("table6")[score].reindex(models)),
        **_judge(evidence, verdict, _by_groups(score), models),
        ours_paper_protocol=_list(scores["paper"]),
        ours_grouped=_list(scores["grouped"]),
    )


def _medium(evidence: Evidence, ours: dict[str, pd.DataFrame]) -> Claim:
    scores = {protocol: table["apm"].reindex(FOUR) for protocol, table in ours.items()}
    pairs = itertools.product(("convnext_tiny", "convnext_small"), (SWIN, "detr_r50"))
    told = evidence.told("detection_pairs", "paper", "score", "apm")
    verdict = UNDEFINED if scores["paper"].isna().any() else ranked(pairs, told)
    return Claim(
        "T6.order_apm",
        "On medium lesions ConvNeXt-Tiny and -Small surpass Swin-Base and DETR",
        WHERE,
        _list(printed("table6")["apm"].reindex(FOUR)),
        **_judge(evidence, verdict, _by_groups("apm"), list(FOUR)),
        ours_paper_protocol=_list(scores["paper"]),
        ours_grouped=_list(scores["grouped"]),
    )


def _proposed(evidence: Evidence, ours: dict[str, pd.DataFrame]) -> Claim:
    """Decided by the paper's own table."""
    paper = printed("table6")["ap"]
    better = paper[paper > paper[PROPOSED]].sort_values(ascending=False)
    return Claim(
        "T6.proposed",
        f"{_label(evidence, PROPOSED)} attains the highest AP",
        "5.2",
        f"{paper[PROPOSED]:.3f}",
        holds(better.empty),
        "the printed values of the same table",
        corrected=", ".join(f"{_label(evidence, model)} {value:.3f}" for model, value in better.items()),
        ours_paper_protocol=_leader(evidence, ours["paper"]["ap"]),
        ours_grouped=_leader(evidence, ours["grouped"]["ap"]),
    )


def _baseline(evidence: Evidence, ours: dict[str, pd.DataFrame]) -> Claim:
    """Decided by the paper's own numbers: section 6.2 quotes a better detector on the same data."""
    quoted, paper = LITERATURE[0], printed("table6")["ap"]
    return Claim(
        "T6.baseline",
        "The proposed approach outperforms the baselines in detection",
        "1, 5.2, 6.2",
        f"{paper[PROPOSED]:.3f}",
        holds(paper[PROPOSED] > quoted["ap"]),
        "AP that the paper prints for its own detectors and, in section 6.2, for a published one",
        corrected=f"{quoted['label']} {quoted['ap']:.3f}; best of Table 6 {paper.max():.3f}",
        ours_paper_protocol=_text(ours["paper"].loc[PROPOSED], "ap"),
        ours_grouped=_text(ours["grouped"].loc[PROPOSED], "ap"),
    )


def _longest(evidence: Evidence) -> Claim:
    """Of the times alone, which no data and no training decides: so of any study, and of each timing of all.

    Section 5.2 gives no number, and the bars of Figure 6 none either.
    """
    models = list(printed("table6").index)
    timing = evidence.timing[evidence.timing["model"].isin(models)]
    runs = [run for _, run in timing.groupby(["protocol", "seed"], sort=False) if _comparable(run, models)]
    medians = [run.set_index("model")["p50_ms"] for run in runs]
    verdict = agreed(each[PROPOSED] > each.drop(PROPOSED).max() for each in medians)
    conditions = [_conditions(run) for run in runs]
    why = (
        f"median latency of one image in {len(runs)} timings of all (a protocol and seed each); "
        + "; ".join(dict.fromkeys(conditions))
    )
    if not runs:
        verdict, why = NOT_TESTABLE, "no timing of all seven detectors under the same conditions"
    return Claim(
        "F6.longest",
        f"{_label(evidence, PROPOSED)} takes longer to predict than the other six detectors",
        "5.2, Figure 6",
        "longer, without a number",
        **evidence.judge(verdict, why, models=models, trained=False, task="detection"),
        ours_paper_protocol=_slowest(evidence, timing, "paper"),
        ours_grouped=_slowest(evidence, timing, "grouped"),
    )


def _comparable(run: pd.DataFrame, models: list[str]) -> bool:
    """Whether all models were timed, and under the same conditions."""
    return set(run["model"]) == set(models) and len(run[[*CONDITIONS]].drop_duplicates()) == 1


def _conditions(run: pd.DataFrame) -> str:
    first = run.iloc[0]
    threads = f"{first['threads']} thread{'s' if first['threads'] > 1 else ''}"
    return f"{first['device']}, {threads}, {first['precision']}, images of {first['image_size']} pixels"


def _slowest(evidence: Evidence, timing: pd.DataFrame, split: str) -> str:
    """The two detectors that take longest, by the median of the seeds."""
    of_split = timing[timing["protocol"] == evidence.protocols[split]]
    longest = of_split.groupby("model")["p50_ms"].median().sort_values(ascending=False).head(2)
    return ", ".join(f"{_label(evidence, model)} {ms:.4g} ms" for model, ms in longest.items()) or "–"


def _judge(evidence: Evidence, verdict: str, why: str, models: list[str]) -> dict[str, str]:
    return evidence.judge(verdict, why, sources=["lin"], models=models, task="detection")


def _by_groups(score: str) -> str:
    untested = "" if score in INTERVALS else f", which {COLUMNS[score]} has none of"
    return f"protocol paper; {BY_GROUPS}{untested}"


def _label(evidence: Evidence, model: str) -> str:
    return evidence.label(model, "detection")


def _leader(evidence: Evidence, scores: pd.Series) -> str:
    known = scores.dropna()
    return "–" if known.empty else f"{_label(evidence, known.idxmax())} {known.max():.3f}"


def _text(row: pd.Series, score: str) -> str:
    """``0.262 [0.20, 0.31]``; ``n/a`` where the study has the detector but the value does not exist."""
    if pd.isna(row[score]):
        return "–" if pd.isna(row["n_boxes"]) else "n/a"
    low, high = row.get(f"{score}_low", np.nan), row.get(f"{score}_high", np.nan)
    return f"{row[score]:.3f}" + ("" if pd.isna(low) else f" [{low:.2f}, {high:.2f}]")


def _list(values: pd.Series) -> str:
    return ", ".join("–" if pd.isna(value) else f"{value:.3f}" for value in values)


def _count(value: float) -> str:
    return "no" if pd.isna(value) or value == 0 else f"{value:,.0f}"
