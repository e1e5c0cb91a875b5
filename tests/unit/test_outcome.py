"""The page of what came out of a study: numbers are those of the files, claims are counted by verdict."""

import pandas as pd
import pytest
from test_cards import Files

from busflow.cards.outcome import outcome
from busflow.files import read_json, write_csv
from busflow.metrics.resamples import read_metrics
from busflow.tables.document import Rows, markdown
from busflow.tables.leading import LEADING, Score, estimate, estimate_text

CLAIMS = [
    ("F3.best", "ConvNeXt-Small leads", "93.84", "90.10", "–", "contradicted", "another leads"),
    ("T1.lin", "25,407 images", "25,407", "–", "–", "not testable", "needs the paper's data"),
    ("T1.busi", "780 images", "780", "–", "–", "not testable", "needs the paper's data"),
    ("T3.sums", "The rows add up", "20,408", "–", "–", "contradicted", "they do not"),
]
COLUMNS = ("id", "claim", "printed", "ours_paper_protocol", "ours_grouped", "verdict", "why")


@pytest.fixture
def files(tmp_path) -> Files:
    return Files(tmp_path, seeds=(0, 1))


def page(files: Files, **changes):
    """The document, with a table of leakage whose values may be changed."""
    ranks = [
        {"protocol": protocol, "model": model, "rank_low": 1, "rank_high": 2}
        for protocol in files.config["protocols"]
        for model in files.config["models"]["classification"]
    ]
    row = {"task": "classification", "protocol": "paper", "source": "all", "n_test": 40, "same_group": 0.9}
    row |= {"neighbour_pixels": 0.8, "neighbour_pixels_low": 0.7, "neighbour_pixels_high": 0.9}
    row |= {"gap_pixels": 0.25, "gap_pixels_low": 0.1, "gap_pixels_high": 0.4, "class_from_source": 0.61}
    tables = {"classification": pd.DataFrame(ranks), "leakage": pd.DataFrame([row | changes])}
    paths = {name: files.root / f"{name}.csv" for name in tables}
    for name, table in tables.items():
        write_csv(paths[name], table)
    write_csv(files.root / "ledger.csv", pd.DataFrame(CLAIMS, columns=COLUMNS))
    return outcome(files.read(), paths, files.root / "ledger.csv")


def rows(document, section: str) -> list[list[list[str]]]:
    return [block.cells for block in document.sections[section] if isinstance(block, Rows)]


def test_scores_and_ranks_of_every_model_under_every_protocol_are_those_of_the_files(files):
    overall, by_source = rows(page(files), "Classification")
    units = [(p, m) for p in files.config["protocols"] for m in files.config["models"]["classification"]]
    assert len(overall) == len(units)
    how = LEADING["classification"]
    malignancy = Score("", "per_class.malignant.auroc", "per_class.malignant.auroc")
    for (protocol, model), cells in zip(units, overall, strict=True):
        seeds = [read_metrics(files.unit(model, protocol, seed) / "metrics.json") for seed in (0, 1)]
        scores = (*how.scores.values(), malignancy)
        assert cells[3:] == [*(estimate_text(*estimate(seeds, score), how) for score in scores), "1–2"]
    sources = read_json(files.unit() / "metrics.json")["per_source"]
    assert len(by_source) == len(units) * len(sources)
    assert by_source[0][-1] != "n/a"


def test_a_training_counts_once_and_its_commit_and_machine_are_named(files):
    document = page(files)
    opening = document.sections["How it was run"][0]
    trainings = 2 * 2 * len(files.config["models"]["classification"])
    assert opening.startswith(f"{trainings} trainings, {trainings / 2:.1f} hours of them in all, on Test GPU")
    assert "seeds 0 and 1" in opening and "Commit 0123abc." in opening
    (models,) = rows(document, "How it was run")
    assert [row[-1] for row in models] == ["30.0"] * len(files.config["models"]["classification"])


def test_the_leak_stands_with_its_gap_and_what_the_source_tells(files):
    document = page(files)
    (leaks,) = rows(document, "What leaks")
    assert leaks == [["classification", "All", "40", "90.0", "80.0 [70.0, 90.0]", "25.0 [10.0, 40.0]"]]
    assert "AUROC of 0.610" in document.sections["What leaks"][-1][0]


def test_a_study_without_two_kinds_of_protocol_has_no_gap_and_says_so(files):
    document = page(files, gap_pixels=None, class_from_source=None)
    assert document.sections["What leaks"][1:] == ["It takes a protocol of each kind."]


def test_claims_are_counted_and_those_with_numbers_of_this_study_are_listed(files):
    document = page(files)
    listed, reasons = rows(document, "The paper's claims on these data")
    assert [row[0] for row in listed] == ["ConvNeXt-Small leads"]
    assert reasons == [["needs the paper's data", "2"]]
    said = document.sections["The paper's claims on these data"][0]
    assert said.startswith("Of the paper's 4 claims in the ledger 2 are judged: 2 contradicted.")
    assert "ConvNeXt-Small leads" in markdown(document)
