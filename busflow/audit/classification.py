"""The paper's claims on its trained classifiers (Fig. 3 and section 5.1), against ours."""

import itertools
from collections.abc import Iterator

import numpy as np
import pandas as pd

from busflow.audit.data import ALL_SOURCES
from busflow.audit.evidence import BY_GROUPS, Claim, Evidence, design
from busflow.audit.verdicts import UNDEFINED, another, equal, ranked, within
from busflow.metrics.shares import mcnemar
from busflow.paper import printed, status

WHERE = "5.1, Fig. 3"
ROUNDING = 0.005  # of two printed digits


def classification_claims(evidence: Evidence) -> Iterator[Claim]:
    """Scores, ranks, and the classifiers that never find a Normal image."""
    ours = {
        protocol: evidence.rows("classification", protocol, "model").reindex(printed("fig3").index)
        for protocol in ("paper", "grouped")
    }
    yield from _scores(evidence, ours)
    yield _best(evidence, ours)
    small, tiny, base, nano = (f"convnext_{name}" for name in ("small", "tiny", "base", "nano"))
    yield _order(evidence, ours, "F3.order_f1", "F1 ranks Small, Tiny, Base", "macro_f1", [small, tiny, base])
    for other in ("atto", "femto", "pico"):
        claim = f"Nano is more accurate than {other.capitalize()}"
        yield _order(evidence, ours, f"F3.nano_{other}", claim, "accuracy", [nano, f"convnext_{other}"])
    yield from _normal(evidence)
    yield from _by_class(evidence)


def _scores(evidence: Evidence, ours: dict[str, pd.DataFrame]) -> Iterator[Claim]:
    for score, words in {"accuracy": "accuracy", "macro_f1": "total F1"}.items():
        for model, value in printed("fig3")[score].dropna().items():
            yield _percentage(evidence, model, score, words, value, ours, score)


def _best(evidence: Evidence, ours: dict[str, pd.DataFrame]) -> Claim:
    """Small is the best by our numbers; what the printed ones can say at most stands under corrected."""
    accuracy, n = printed("fig3")["accuracy"], printed("table2").loc["test", "total"]
    claimed = accuracy.idxmax()
    first, second = (round(value * n / 100) for value in accuracy.nlargest(2))
    # The fewest disagreements give the smallest p that two such accuracies can have.
    p = mcnemar(np.arange(n) < first, np.arange(n) < second)
    models = list(ours["paper"]["accuracy"].dropna().index)
    told = evidence.told("classification_pairs", "paper", "score", "accuracy")
    rivals = [(claimed, other) for other in models if other != claimed]
    verdict = ranked(rivals, told) if claimed in models else UNDEFINED
    return Claim(
        "F3.best",
        f"{evidence.label(claimed)} is the best of the eight classifiers",
        "5.1",
        " against ".join(f"{value:.2f}" for value in accuracy.nlargest(2)),
        **_judge(evidence, verdict, f"protocol paper; {BY_GROUPS}", list(printed("table5").index)),
        corrected=f"{first} against {second} of {n} images: exact McNemar p ≥ {p:.2f}",
        ours_paper_protocol=_leaders(ours["paper"]),
        ours_grouped=_leaders(ours["grouped"]),
    )


def _order(
    evidence: Evidence, ours: dict[str, pd.DataFrame], name: str, claim: str, score: str, models: list[str]
) -> Claim:
    scores = {protocol: 100 * table[score].reindex(models) for protocol, table in ours.items()}
    told = evidence.told("classification_pairs", "paper", "score", score)
    verdict = UNDEFINED if scores["paper"].isna().any() else ranked(itertools.combinations(models, 2), told)
    return Claim(
        name,
        claim,
        "5.1",
        _list(printed("fig3")[score].reindex(models)),
        **_judge(evidence, verdict, f"protocol paper; {BY_GROUPS}", models),
        ours_paper_protocol=_list(scores["paper"]),
        ours_grouped=_list(scores["grouped"]),
    )


def _normal(evidence: Evidence) -> Iterator[Claim]:
    """Recall 0 on Normal is a result; precision without a prediction is 0/0."""
    paper = printed("fig3")
    classes = {
        protocol: evidence.rows("classification_per_class", protocol, "model").query("`class` == 'normal'")
        for protocol in ("paper", "grouped")
    }
    rows = {protocol: table.reindex(paper.index) for protocol, table in classes.items()}
    for model in paper.index[paper["normal_recall"] == 0]:
        recall = 100 * rows["paper"].loc[model, "recall"]
        yield Claim(
            f"F3.{model}.normal_recall",
            f"{evidence.label(model)} finds none of the Normal images",
            WHERE,
            f"{paper.loc[model, 'normal_recall']:.2f}",
            **_judge(evidence, equal(0, recall, ROUNDING), "recall on Normal, protocol paper", [model]),
            ours_paper_protocol=_share(rows["paper"].loc[model], "recall", "n"),
            ours_grouped=_share(rows["grouped"].loc[model], "recall", "n"),
        )
        value = paper.loc[model, "normal_precision"]
        if status("fig3", model, "normal_precision") == "undefined":
            value = np.nan
        yield Claim(
            f"F3.{model}.normal_precision",
            f"{evidence.label(model)} has a precision of 0 % on Normal",
            WHERE,
            f"{paper.loc[model, 'normal_precision']:.2f}",
            equal(0, value),
            "0 only if some image is wrongly predicted Normal; with none it is 0/0",
            corrected="0/0",
            ours_paper_protocol=_share(rows["paper"].loc[model], "precision", "n_predicted"),
            ours_grouped=_share(rows["grouped"].loc[model], "precision", "n_predicted"),
        )


def _by_class(evidence: Evidence) -> Iterator[Claim]:
    """Precision and recall that the paper prints and that are not 0, of a class."""
    tables = {
        protocol: evidence.rows("classification_per_class", protocol, "model")
        for protocol in ("paper", "grouped")
    }
    for column in [name for name in printed("fig3") if "_" in name and name != "macro_f1"]:
        label, score = column.split("_")
        values = printed("fig3")[column].dropna()
        rows = {
            protocol: table[table["class"] == label].reindex(values.index)
            for protocol, table in tables.items()
        }
        for model, value in values[values > 0].items():
            words = f"{score} of {label.capitalize()}"
            yield _percentage(evidence, model, column, words, value, rows, score)


def _percentage(
    evidence: Evidence,
    model: str,
    key: str,
    words: str,
    value: float,
    ours: dict[str, pd.DataFrame],
    score: str,
) -> Claim:
    """One printed percentage of Fig. 3 against ``score`` of our rows, a table by model per protocol."""
    row = ours["paper"].loc[model]
    point, low, high = (100 * row[f"{score}{end}"] for end in ("", "_low", "_high"))
    return Claim(
        f"F3.{model}.{key}",
        f"{evidence.label(model)}: {words} {value:.2f} %",
        WHERE,
        f"{value:.2f}",
        **_judge(
            evidence,
            within(value, point, low, high, ROUNDING, top=100),
            design("protocol paper", *another(point, low, high, top=100), 1),
            [model],
        ),
        ours_paper_protocol=_interval(row, score),
        ours_grouped=_interval(ours["grouped"].loc[model], score),
    )


def _judge(evidence: Evidence, verdict: str, why: str, models: list[str]) -> dict[str, str]:
    return evidence.judge(verdict, why, sources=ALL_SOURCES, models=models)


def _interval(row: pd.Series, score: str) -> str:
    if pd.isna(row[score]):
        return "–"
    return f"{100 * row[score]:.2f} [{100 * row[f'{score}_low']:.1f}, {100 * row[f'{score}_high']:.1f}]"


def _leaders(table: pd.DataFrame) -> str:
    table = table.dropna(subset="accuracy")
    if table.empty:
        return "–"
    best = table["accuracy"].idxmax()
    as_good = table["indistinguishable"].astype(bool)
    # Told against the study's best model, which need not be one of the paper's.
    tied = table.loc[as_good, "label"].drop(best) if as_good[best] else []
    text = f"{table.loc[best, 'label']} {100 * table.loc[best, 'accuracy']:.2f}"
    return text + (f"; as good: {', '.join(tied)}" if len(tied) else "")


def _list(values: pd.Series) -> str:
    return ", ".join("–" if pd.isna(value) else f"{value:.2f}" for value in values)


def _share(row: pd.Series, name: str, count: str) -> str:
    if pd.isna(row[count]):
        return "–"
    return f"{'n/a' if pd.isna(row[name]) else format(100 * row[name], '.2f')} (n={row[count]:.0f})"
