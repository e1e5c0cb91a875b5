"""The paper's claims on its data (Tables 1 to 4) and its networks (Table 5), against ours."""

from collections.abc import Iterable, Iterator

import pandas as pd

from busflow.audit.evidence import Claim, Evidence
from busflow.audit.verdicts import NOT_TESTABLE, equal, holds
from busflow.labels import LABELS
from busflow.paper import facts, printed
from busflow.tables.classification import macs
from busflow.tables.data import COLUMNS

ALL_SOURCES = ("lin", "busi", "rodrigues")
MAC_TOLERANCE = 0.01  # tools differ in what they count as an operation


def data_claims(evidence: Evidence) -> Iterator[Claim]:
    """Counts per source and subset, and the independence of images and subsets."""
    yield from _sources(evidence)
    yield _distinct(evidence)
    yield _split(
        evidence, "T2.counts", "table2", "The merged data is split 8:1:1", ALL_SOURCES, "classification"
    )
    yield _independent(evidence)
    yield _detection(evidence)
    yield _split(
        evidence, "T4.counts", "table4", "The segmentation data is split 64:16:20", ["busi"], "segmentation"
    )


def network_claims(evidence: Evidence) -> Iterator[Claim]:
    """Parameters, MACs and size of each network, which need neither data nor training, and its batch."""
    ours = evidence.tables["table5"].set_index("model").reindex(printed("table5").index)
    paper, corrected = printed("table5"), printed("table5", corrected=True)
    for column, found, text in (
        ("params_m", ours["params_1000"] / 1e6, lambda x: f"{x:,.2f} M parameters"),
        ("macs", ours["macs"], lambda x: f"{macs(x)} MACs"),
        ("size_mb", ours["size_bytes_3"] / 1e6, lambda x: f"{x:,.1f} MB"),
    ):
        for model, value in paper[column].items():
            tolerance = MAC_TOLERANCE * value if column == "macs" else _last_digit(value)
            implied = corrected.loc[model, column]
            yield Claim(
                f"T5.{model}.{column}",
                f"{evidence.label(model)}: {text(value)}",
                "Table 5",
                text(value),
                **evidence.judge(
                    equal(value, found[model], tolerance),
                    "to within 1 %" if column == "macs" else "to one unit of the last printed digit",
                    models=[model],
                    trained=False,
                ),
                corrected="–" if implied == value else text(implied),
                ours_paper_protocol="–" if pd.isna(found[model]) else text(found[model]),
            )
    for model, value in paper["batch_size"].items():
        yield Claim(
            f"T5.{model}.batch_size",
            f"{evidence.label(model)}: trained with batches of {value:,.0f}",
            "Table 5",
            f"{value:,.0f}",
            NOT_TESTABLE,
            "a choice of the authors, which studies follow and cannot judge",
        )


def _sources(evidence: Evidence) -> Iterator[Claim]:
    ours = evidence.tables["table1"].set_index("source").reindex(printed("table1").index)[COLUMNS]
    for source, row in printed("table1").iterrows():
        name = "The three sources" if source == "total" else facts()["sources"][source]
        yield Claim(
            f"T1.{source}",
            f"{name}: {row['total']:,} images",
            "Table 1",
            _per_class(row),
            **evidence.judge(
                holds((ours.loc[source] == row).all()),
                "images in the archive, class by class",
                sources=ALL_SOURCES if source == "total" else [source],
                trained=False,
                task=None,
            ),
            ours_paper_protocol=_per_class(ours.loc[source]),
        )


def _distinct(evidence: Evidence) -> Claim:
    total = evidence.tables["table1"].set_index("source").loc["total"]
    return Claim(
        "T1.distinct",
        "The data sets consist of distinct image samples",
        "4.2",
        f"{printed('table1').loc['total', 'total']:,} images",
        **evidence.judge(
            holds(total["groups"] == total["total"]),
            "a group is a video, a patient or a set of near-identical images",
            sources=ALL_SOURCES,
            trained=False,
            task=None,
        ),
        ours_paper_protocol=f"{total['total']:,} images in {total['groups']:,} independent groups",
    )


def _split(evidence: Evidence, name: str, table: str, claim: str, sources: Iterable[str], task: str) -> Claim:
    paper = printed(table)
    ours = evidence.rows(table, "paper", "subset").reindex(paper.index)
    return Claim(
        name,
        claim,
        table.replace("table", "Table "),
        _per_subset(paper),
        **evidence.judge(
            holds((ours[COLUMNS] == paper[COLUMNS]).all(axis=None)),
            "each class of each subset, protocol paper",
            sources=sources,
            trained=False,
            task=task,
        ),
        ours_paper_protocol=_per_subset(ours),
        ours_grouped=_per_subset(evidence.rows(table, "grouped", "subset").reindex(paper.index)),
    )


def _detection(evidence: Evidence) -> Claim:
    """Table 3's cells, as images or as boxes (the paper does not say which)."""
    paper, cells = printed("table3"), ["benign", "malignant"]
    ours = evidence.rows("table3", "paper", "subset").reindex(paper.index)
    grouped = evidence.rows("table3", "grouped", "subset").reindex(paper.index)
    same = [
        (ours[[f"{what}_{cell}" for cell in cells]].to_numpy() == paper[cells].to_numpy()).all()
        for what in ("images", "boxes")
    ]
    return Claim(
        "T3.counts",
        "The detection data has these counts",
        "Table 3",
        _per_subset(paper),
        **evidence.judge(
            holds(any(same)),
            "the printed cells against images and against boxes, protocol paper; shown: images",
            sources=["lin"],
            trained=False,
            task="detection",
        ),
        corrected=_per_subset(printed("table3", corrected=True)),
        ours_paper_protocol=_per_subset(ours, "images_total"),
        ours_grouped=_per_subset(grouped, "images_total"),
    )


def _independent(evidence: Evidence) -> Claim:
    shares = {split: each["same_group"] for split, each in evidence.leakage.items()}

    def text(split: str) -> str:
        share = shares.get(split)
        return "–" if share is None else f"{100 * share:.1f} % of the test images have a relative in training"

    return Claim(
        "T2.independent",
        "Training, validation and testing are independent subsets",
        "4.3",
        "three independent subsets",
        **evidence.judge(
            equal(0, shares.get("paper")),
            "files are shuffled one by one: frames of a video and near copies fall on both sides",
            sources=ALL_SOURCES,
            trained=False,
        ),
        ours_paper_protocol=text("paper"),
        ours_grouped=text("grouped"),
    )


def _per_class(row: pd.Series) -> str:
    return ", ".join(f"{label} {_count(row[label])}" for label in LABELS)


def _per_subset(table: pd.DataFrame, column: str = "total") -> str:
    return ", ".join(f"{subset} {_count(table.loc[subset, column])}" for subset in ("train", "val", "test"))


def _count(value: float) -> str:
    return "–" if pd.isna(value) else f"{value:,.0f}"


def _last_digit(value: float) -> float:
    """One unit of the last printed digit."""
    return 10.0 ** -len(str(value).partition(".")[2])
