"""What came out of a study, in one page: how it was run, its scores, what leaks, which claims it judges."""

from pathlib import Path

import numpy as np
import pandas as pd

from busflow.audit.verdicts import NOT_TESTABLE
from busflow.cards.model import starting_weights
from busflow.cards.results import per_source, score_text
from busflow.cards.study import Study
from busflow.cards.words import counted, known, listed
from busflow.labels import SPLITS
from busflow.tables.document import Block, Document, Rows
from busflow.tables.leading import INTERVAL, LEADING, RANKS, Score, rank_text, seeds_text
from busflow.tables.leakage import ALL, VIEWS
from busflow.tables.table import number

# Which table of a task ranks its models, and by what.
RANKED = {
    "classification": ("classification", "accuracy"),
    "detection": ("table6", "AP"),
    "segmentation": ("segmentation", "Dice of lesions"),
}
# Scores beside those that lead the tables, of all test images and of a source's.
MALIGNANCY = "AUROC of malignancy"
FURTHER = {"classification": [Score(MALIGNANCY, "per_class.malignant.auroc", "per_class.malignant.auroc")]}
FURTHER_OF_SOURCE = {"classification": [Score(MALIGNANCY, "malignant_auroc", "malignant_auroc")]}
OURS = {"ours_paper_protocol": "paper protocol", "ours_grouped": "grouped protocol"}
NOTHING = "–"


def outcome(study: Study, tables: dict[str, Path], ledger: Path) -> Document:
    """The page of a study.

    Args:
        study: of all tasks.
        tables: CSVs of the study's tables, by name; those that rank models, and ``leakage``.
        ledger: ``ledger.csv``.
    """
    found = {name: pd.read_csv(path) for name, path in tables.items()}
    sections: dict[str, list[Block]] = {"How it was run": _runs(study), "Data": _data(study)}
    for task in study.tasks:
        sections[task.capitalize()] = _scores(study, task, found)
    sections["What leaks"] = _leakage(study, found["leakage"])
    sections["The paper's claims on these data"] = _claims(pd.read_csv(ledger, keep_default_na=False))
    return Document(
        f"{study.config['study']['title']}: what came out", study.config["study"].get("notice"), sections
    )


def _runs(study: Study) -> list[Block]:
    runs = [run for each in study.trained for run in each.runs]
    first = runs[0]
    commits = dict.fromkeys(
        f"{run['git']['commit']}{' (changed)' * bool(run['git']['dirty'])}" for run in runs
    )
    machines = dict.fromkeys(
        f"{run['device']} ({counted(run['threads'], 'thread')} a training)" for run in runs
    )
    hours = sum(run["seconds"] for run in runs) / 3600
    rows = [
        [
            task,
            study.config["models"][task][model]["label"],
            starting_weights(study, same[0]).partition(" (")[0],
            f"{same[0].runs[0]['settings']['image_size']} px",
            str(same[0].runs[0]["settings"]["epochs"]),
            f"{np.mean([run['seconds'] for each in same for run in each.runs]) / 60:.1f}",
        ]
        for task in study.tasks
        for model in study.config["models"][task]
        if (same := [each for each in study.of_task(task) if each.model == model])
    ]
    return [
        f"{counted(len(runs), 'training')}, {hours:.1f} hours of them in all, on {listed(machines)}; "
        f"seeds {listed(map(str, study.trained[0].seeds))}. Python {first['python']}, "
        f"{listed(f'{name} {version}' for name, version in first['packages'].items())}. "
        f"Commit {listed(commits)}.",
        Rows(["Task", "Model", "Starts from", "Images", "Epochs", "Minutes of a training"], rows),
    ]


def _data(study: Study) -> list[Block]:
    sources = [
        f"{source['label']}: {known(source.get('citation'), 'citation')}; licence "
        f"{known(source.get('licence'), 'licence')}."
        for source in study.config["sources"].values()
    ]
    rows = []
    for (protocol, task), split in study.splits.items():
        sizes, test = split["split"].value_counts(), split[split["split"] == "test"]
        label = study.config["protocols"][protocol]["label"]
        counts = [number(sizes.get(name, 0)) for name in SPLITS]
        rows.append([task, label, *counts, number(test["group"].nunique())])
    return [sources, Rows(["Task", "Protocol", *SPLITS, "groups in test"], rows)]


def _scores(study: Study, task: str, tables: dict[str, pd.DataFrame]) -> list[Block]:
    how = LEADING[task]
    name, ranked_by = RANKED[task]
    ranks = tables[name].set_index(["protocol", "model"]) if name in tables else pd.DataFrame()
    scores = (*how.scores.values(), *FURTHER.get(task, []))
    rows, sources = [], []
    for each in study.of_task(task):
        place = (each.protocol, each.model)
        rank = rank_text(ranks.loc[place]) if place in ranks.index else NOTHING
        label = study.config["protocols"][each.protocol]["label"]
        texts = [score_text(each.metrics, score, task) for score in scores]
        rows.append([label, study.label(each), number(each.metrics[0]["n_groups"]), *texts, rank])
        of_sources = per_source(study, each, FURTHER_OF_SOURCE.get(task, []))
        sources += [[label, study.label(each), *row] for row in of_sources]
    blocks: list[Block] = [
        f"{how.words} {seeds_text(len(study.trained[0].seeds))} {INTERVAL} {RANKS.format(ranked_by)}",
        Rows(["Protocol", "Model", "Groups", *(score.title for score in scores), "Rank"], rows),
    ]
    if sources:
        headings = ["Protocol", "Model", "Source", "Test images", *(score.title for score in scores)]
        blocks.append(Rows(headings, sources))
    return blocks


def _leakage(study: Study, table: pd.DataFrame) -> list[Block]:
    views = [view for view in VIEWS if f"neighbour_{view}" in table]
    rows = []
    for row in table[table["gap_pixels"].notna()].to_dict("records"):
        source = "All" if row["source"] == ALL else study.config["sources"][row["source"]]["label"]
        cells = [row["task"], source, number(row["n_test"]), number(100 * row["same_group"], 1)]
        for view in views:
            cells += [_share(row, f"{name}_{view}") for name in ("neighbour", "gap")]
        rows.append(cells)
    headings = [f"{name}, {VIEWS[view]}" for view in views for name in ("1-NN", "gap")]
    told = [
        f"{study.config['protocols'][row['protocol']]['label']}: the source alone tells malignant images "
        f"from others with an AUROC of {row['class_from_source']:.3f}."
        for row in table[table["class_from_source"].notna()].to_dict("records")
    ]
    return [
        "Under the protocol that splits as the paper did: test images of whose group training has an "
        "image, what copying the label of the most similar training image scores (1-NN), and how much more "
        "that is than under the grouped protocol (the gap), in per cent with 95 % intervals over groups. "
        "tables/leakage.html has all else.",
        Rows(["Task", "Source", "Test images", "Same group", *headings], rows)
        if rows
        else "It takes a protocol of each kind.",
        *([told] if told else []),
    ]


def _share(row: dict, name: str) -> str:
    value, low, high = (100 * row[f"{name}{end}"] for end in ("", "_low", "_high"))
    return number(value, 1) + ("" if np.isnan(low) else f" [{low:.1f}, {high:.1f}]")


def _claims(claims: pd.DataFrame) -> list[Block]:
    judged = claims[claims["verdict"] != NOT_TESTABLE]
    ours = judged[(judged[[*OURS]] != NOTHING).any(axis=1)]
    counts = judged["verdict"].value_counts()
    rows = [
        [row["claim"], row["printed"], *(row[name] for name in OURS), row["verdict"], row["why"]]
        for row in ours.to_dict("records")
    ]
    reasons = claims.loc[claims["verdict"] == NOT_TESTABLE, "why"].value_counts()
    return [
        f"Of the paper's {len(claims)} claims in the ledger {len(judged)} are judged: "
        f"{', '.join(f'{n} {verdict}' for verdict, n in counts.items()) or 'none'}. Most of these by the "
        f"paper's own numbers; those that stand beside numbers of this study:",
        Rows(["Claim", "Printed", *OURS.values(), "Verdict", "Why"], rows) if rows else "None.",
        "What keeps the others from being judged here:",
        Rows(["Why", "Claims"], [[why, str(n)] for why, n in reasons.items()])
        if len(reasons)
        else "Nothing.",
    ]
