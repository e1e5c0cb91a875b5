"""The ledger in two minutes: how many claims hold, which do not, and which cannot be judged."""

import pandas as pd

from busflow.audit.ledger import TITLES
from busflow.audit.verdicts import (
    CONTRADICTED,
    NOT_TESTABLE,
    NOT_TOLD,
    REPRODUCED,
    UNDEFINED,
    WITHIN,
)
from busflow.tables.document import Block, Document, Rows

# From the best to the worst.
VERDICTS = (REPRODUCED, WITHIN, NOT_TOLD, UNDEFINED, CONTRADICTED, NOT_TESTABLE)
PARTS = {
    "Data (Tables 1 to 4)": ("T1", "T2", "T3", "T4"),
    "Networks (Table 5)": ("T5",),
    "Classification (Figure 3, Equation 2)": ("E2", "F3"),
    "Detection (Table 6, Figure 6)": ("T6", "F6"),
    "Segmentation (Table 7)": ("T7",),
    "Discussion (section 5)": ("S5",),
}
# The questions on which most of the paper's conclusions hang, and the claims that answer them.
FINDINGS = {
    "Are the test images independent of the training images?": ("T1.distinct", "T2.independent"),
    "Does the proposed detector lead?": ("T6.proposed", "T6.baseline"),
    "Do RFLA and DetectoRS find small lesions better?": ("T6.swin_base_detectors_rfla.aps", "T6.small_gain"),
    "Which classes, and which images, is Table 7 about?": ("T7.classes", "T7.same_pixels"),
    "Are the models that lead told apart from the others?": ("F3.best", "T6.best_ap", "T7.best_miou"),
}
OURS = {"paper": "ours_paper_protocol", "grouped": "ours_grouped"}
SHOWN = ("id", "claim", "printed", "corrected", "ours_paper_protocol", "why")
NOTHING = "–"


def summary(claims: pd.DataFrame, settings: dict) -> Document:
    """A page for a reader with two minutes.

    Args:
        claims: data of the ledger (``busflow.audit.ledger``).
        settings: of the study.
    """
    counts = claims["verdict"].value_counts()
    found = [f"{counts[verdict]} {verdict}" for verdict in VERDICTS[:-1] if verdict in counts]
    judged = len(claims) - counts.get(NOT_TESTABLE, 0)
    opening = (
        f"Of the paper's {len(claims)} claims in the ledger, this study and the paper's own numbers judge "
        f"{judged}: {', '.join(found) or 'none'}. ledger.html has each with its numbers and its rule."
    )
    sections: dict[str, list[Block]] = {"How many hold": [opening, _by_part(claims)]}
    for question, ids in FINDINGS.items():
        rows = claims[claims["id"].isin(ids)]
        sections[question] = [[_finding(row) for row in rows.itertuples()]]
    for heading, verdict in (("What does not hold", CONTRADICTED), ("What is not defined", UNDEFINED)):
        rows = claims[claims["verdict"] == verdict]
        sections[heading] = [_table(rows)] if len(rows) else ["Nothing."]
    sections["What cannot be judged here, and why"] = [_reasons(claims[claims["verdict"] == NOT_TESTABLE])]
    return Document("The paper's claims in two minutes", settings["study"]["notice"], sections)


def _by_part(claims: pd.DataFrame) -> Rows:
    table = pd.crosstab(claims["id"].str.split(".").str[0], claims["verdict"])
    present = [verdict for verdict in VERDICTS if verdict in table]
    rows = []
    for part, prefixes in PARTS.items():
        here = table.reindex(prefixes, fill_value=0).sum()
        rows.append([part, *(str(here[verdict]) for verdict in present), str(here.sum())])
    return Rows(["Part of the paper", *present, "all"], rows)


def _finding(row: tuple) -> str:
    """One claim with its numbers, in a sentence."""
    said = [f"{row.claim} (printed: {row.printed}): {row.verdict}"]
    if row.corrected != NOTHING:
        said.append(f"corrected: {row.corrected}")
    said += [
        f"ours, {protocol} protocol: {value}"
        for protocol, column in OURS.items()
        if (value := getattr(row, column)) != NOTHING
    ]
    return "; ".join([*said, row.why]) + "."


def _table(rows: pd.DataFrame) -> Rows:
    return Rows([TITLES[name] for name in SHOWN], rows[[*SHOWN]].to_numpy().tolist())


def _reasons(rows: pd.DataFrame) -> Rows | str:
    """How many claims each obstacle stands in the way of, the greatest first."""
    if rows.empty:
        return "Nothing."
    counts = rows["why"].value_counts(sort=True)
    return Rows(["Why", "Claims"], [[why, str(count)] for why, count in counts.items()])
