"""The ledger: every claim of the paper, what its own numbers say, what ours say, and the verdict."""

import re
from collections.abc import Iterable
from pathlib import Path

import pandas as pd

from busflow.audit.classification import classification_claims
from busflow.audit.data import data_claims, network_claims
from busflow.audit.detection import check_detection_metrics, detection_claims
from busflow.audit.evidence import Claim, Evidence, check_metrics
from busflow.audit.external import external_claims
from busflow.audit.printed import printed_claims
from busflow.audit.segmentation import check_segmentation_metrics, segmentation_claims
from busflow.files import read_json
from busflow.protocols import GROUPED, PAPER, whole
from busflow.tables.table import Table
from busflow.units import units

ORDER = ("T1", "T2", "T3", "T4", "T5", "E2", "F3", "T6", "F6", "T7", "S5")
# The table that shows what a claim is judged by: that of the first pattern which its id matches.
TABLE_OF = {
    r"T7\.(families|families_small|b4_small|b4_b0)": "segmentation_pairs",
    r"T7\.(convnext|b4)_sizes": "segmentation",
    r"E2\..*|F3\..*_(precision|recall)": "classification_per_class",
    r"F3\..*": "classification",
    r"T(\d)\..*": r"table\1",
    r"S5\.(.*)": r"\1",
}
CHECKS = {
    "classification": check_metrics,
    "detection": check_detection_metrics,
    "segmentation": check_segmentation_metrics,
}
TITLES = {
    "id": "Id",
    "claim": "Claim",
    "where": "Where",
    "printed": "Printed",
    "corrected": "Corrected",
    "ours_paper_protocol": "Ours, paper protocol",
    "ours_grouped": "Ours, grouped",
    "verdict": "Verdict",
    "why": "Why",
}


def ledger(
    tables: list[Path],
    leakage: list[Path],
    metrics: list[Path],
    settings: dict,
    timing: Iterable[Path] = (),
) -> Table:
    """Judge the claims by the CSVs of the study's tables, by its leakage and its detectors' ``timing.json``.

    Our own tables and metrics must obey the identities that the paper's are held to, else BusflowError.
    """
    for unit in units(metrics, settings):
        CHECKS[unit.task](read_json(unit.path), str(unit.path))
    evidence = Evidence(tables, leakage, settings, timing)
    claims = [
        *data_claims(evidence),
        *network_claims(evidence),
        *printed_claims(),
        *classification_claims(evidence),
        *detection_claims(evidence),
        *segmentation_claims(evidence),
        *external_claims(evidence),
    ]
    claims.sort(key=lambda claim: ORDER.index(claim.id.split(".")[0]))
    data = pd.DataFrame(claims, columns=Claim._fields)[list(TITLES)]
    verdicts = ", ".join(f"{n} {verdict}" for verdict, n in data["verdict"].value_counts().items())
    digests = ", ".join(
        f"{task} {row.protocol} {row.split_sha256[:12]}"
        for task in CHECKS
        for row in evidence.tables[task].drop_duplicates("protocol").itertuples()
    )
    notes = [
        f"n = {len(data)} claims: {verdicts}. Splits: {digests}.",
        _ours(evidence),
        "“Corrected” follows by arithmetic from what the paper prints; in brackets 95 % intervals.",
        "Verdicts are rules on numbers. Reproduced: equal to the printed digits, or the statement holds. "
        "Within CI: another study of the same design may have the printed value. Not told apart: no test "
        "over groups tells a rank or an order, or several timings differ. Undefined: the quantity does not "
        "exist. Not testable: this study lacks the data, the model or the training for it.",
    ]
    links = tuple(link(claim.id, evidence) for claim in claims)
    return Table("Audit of the paper's claims.", data, data.rename(columns=TITLES), notes, links)


def _ours(evidence: Evidence) -> str:
    """Which protocols the two columns of ours are about, or why a column is empty."""
    words = {
        PAPER: "none of this study follows the paper (split: paper)",
        GROUPED: "none of this study is grouped without folds and left-out sources (split: grouped)",
    }
    labels = {
        split: evidence.settings["protocols"][name]["label"] if name else words[split]
        for split, name in evidence.protocols.items()
    }
    columns = {PAPER: TITLES["ours_paper_protocol"], GROUPED: TITLES["ours_grouped"]}
    return "Protocols: " + "; ".join(f"“{columns[split]}”, {label}" for split, label in labels.items()) + "."


def link(claim_id: str, evidence: Evidence) -> str:
    """The page or figure behind a claim, as a path below the results; empty if the study has none."""
    if claim_id.startswith("F6."):
        timed = set(evidence.timing["protocol"])
        shown = (name for name in whole(evidence.settings["protocols"]) if name in timed)
        return next((f"figures/fig6_{name}.png" for name in shown), "")
    matches = ((re.fullmatch(pattern, claim_id), name) for pattern, name in TABLE_OF.items())
    table = next(match.expand(name) for match, name in matches if match)
    return f"tables/{table}.html" if len(evidence.tables.get(table, ())) else ""
