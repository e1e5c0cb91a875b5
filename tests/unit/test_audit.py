"""The paper's arithmetic, the verdict rules, the ledger, and the same rules held against ourselves."""

import itertools
import json
import re
import runpy
import sys
from pathlib import Path

import detection_files
import numpy as np
import pandas as pd
import pytest
import segmentation_files

from busflow.audit import verdicts
from busflow.audit.evidence import OF_TASKS, check_metrics, check_tables
from busflow.audit.identities import identities, nano_matrix
from busflow.audit.ledger import CHECKS, ledger
from busflow.audit.summary import FINDINGS, PARTS, summary
from busflow.errors import BusflowError
from busflow.files import read_json, write_csv
from busflow.paper import facts, printed
from busflow.tables import classification as tables_classification
from busflow.tables import data as tables_data
from busflow.tables import detection as tables_detection
from busflow.tables import pairs as tables_pairs
from busflow.tables import segmentation as tables_segmentation
from study_files import LIN, write_facts, write_study
from study_files import study_settings as classification_settings

ROOT = Path(__file__).parents[2]


def study_settings(notice=None) -> dict:
    """Three classifiers, two detectors and two segmenters."""
    settings = classification_settings(notice=notice)
    detectors = detection_files.study_settings(models=("convnext_tiny", "swin_base"))
    segmenters = segmentation_files.study_settings(models=("segformer_b0", "segformer_b4"))
    settings["models"] |= detectors["models"] | segmenters["models"]
    return settings


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    settings = study_settings()
    root = tmp_path_factory.mktemp("study")
    paths = write_study(root, settings)
    of_detectors = detection_files.write_study(tmp_path_factory.mktemp("detection"), settings)
    detected, paths["detectors_timing"] = of_detectors["metrics"], of_detectors["timing"]
    segmented = segmentation_files.write_study(tmp_path_factory.mktemp("segmentation"), settings)["metrics"]
    made = {
        "table1": tables_data.table1(root / "index/images.csv", settings),
        "table2": tables_data.table2(paths["classification"], settings),
        "table3": tables_data.table3(paths["detection"], root / "index/annotations.csv", settings),
        "table4": tables_data.table4(paths["segmentation"], settings),
        "table5": tables_classification.table5(write_facts(root / "facts.json", settings), settings),
        "classification": tables_classification.classification(
            paths["predictions"], paths["classification"], settings
        ),
        "classification_pairs": tables_classification.classification_pairs(
            paths["predictions"], paths["classification"], settings
        ),
        "detection_pairs": tables_pairs.pairs(detected, settings),
        "classification_per_class": tables_classification.classification_per_class(
            paths["metrics"], settings
        ),
        "table6": tables_detection.table6(detected, settings),
        "detection": tables_detection.detection(detected, settings),
        "table7": tables_segmentation.table7(segmented, settings),
        "segmentation": tables_segmentation.segmentation(segmented, settings),
        "segmentation_pairs": tables_segmentation.segmentation_pairs(segmented, settings),
    }
    paths["metrics"] += detected + segmented
    return {name: table.data for name, table in made.items()}, paths


@pytest.fixture
def judge(study, tmp_path):
    """The ledger by claim id, for (changed) tables and settings."""

    def run(settings=None, **changed):
        tables = []
        for name, table in (study[0] | changed).items():
            write_csv(tmp_path / f"{name}.csv", table)
            tables.append(tmp_path / f"{name}.csv")
        found = ledger(tables, study[1]["leakage"], study[1]["metrics"], settings or study_settings())
        return found.data.set_index("id")

    return run


def test_where_the_best_classifier_is_none_of_the_papers_no_other_is_called_as_good(judge, study):
    beaten = study[0]["classification"].assign(indistinguishable=False)
    ours = judge(classification=beaten).loc["F3.best", "ours_paper_protocol"]
    assert ours.startswith("ConvNeXt-") and "as good" not in ours


def broken(**kwargs):
    return {(each.table, each.row, each.statement) for each in identities(**kwargs) if not each.holds}


# The paper's own numbers


def test_exactly_the_rows_with_a_typo_break_an_identity():
    noted = {
        (table, note["row"])
        for table, content in facts().items()
        if isinstance(content, dict)
        for note in content.get("notes", [])
        if note["status"] == "typo"
    }
    assert {(table, row) for table, row, _ in broken()} == noted | {("fig3", "convnext_nano")}


def test_the_implied_values_restore_every_sum_size_and_mean():
    left = {(table, statement) for table, _, statement in broken(corrected=True)}
    assert left == {
        ("table3", "validation is 5 % of the original training set"),
        ("table3", "the images of source lin are those of Table 1"),
        ("fig3", "one confusion matrix yields every value printed of this model (deviation in points)"),
    }


def test_an_identity_can_fail(monkeypatch):
    monkeypatch.setitem(facts()["table2"]["rows"]["test"], "benign", 1049)
    assert {row for table, row, _ in broken() if table == "table2"} == {"test", "total"}


def test_printed_accuracies_are_these_counts():
    counts = {e.row: round(e.implied * 26.46) for e in identities() if "is k /" in e.statement}
    assert counts == {
        "convnext_small": 2483,
        "convnext_base": 2481,
        "convnext_nano": 2469,
        "convnext_tiny": 2467,
    }


def test_the_matrix_of_nano_is_the_nearest_by_brute_force():
    best = np.inf
    for predicted in range(900, 1000):
        for hits in range(860, 960):
            other, other_predicted = 2466 - hits, 2641 - predicted
            f1 = (2 * hits / (predicted + 1048) + 2 * other / (other_predicted + 1584) + 6 / 19) / 3
            deviations = (
                abs(100 * hits / predicted - 96.10),
                abs(100 * other / other_predicted - 91.86),
                abs(100 * f1 - 72.59),
            )
            best = min(best, max(deviations))
    matrix, deviation = nano_matrix()
    assert deviation == pytest.approx(best)
    assert matrix[:, 0].sum() == 2469
    assert matrix[:, 1].sum() == matrix[:, 2].sum() == 2646


def test_the_facts_hold_every_number_of_tables_6_and_7():
    assert printed("table6").count().sum() == 4 * 6 + 3 * 2
    assert printed("table7").shape == (7, 7)
    assert printed("table7", corrected=True).loc["segformer_b3", "macc"] == 87.30


# Verdicts


def told(*pairs: str):
    """That the first letter of each pair is better than the second."""
    return lambda one, other: one + other in pairs


def test_two_studies_with_the_same_truth_contradict_each_other_in_a_twentieth_of_cases():
    rng, n, z = np.random.default_rng(0), 400, 1.959964
    ours, theirs = rng.binomial(n, 0.9, (2, 4000)) / n
    reach = z / np.sqrt(n * ours * (1 - ours))
    low, high = (1 / (1 + np.exp(-(np.log(ours / (1 - ours)) + sign * reach))) for sign in (-1, 1))
    found = [verdicts.within(*each) == "contradicted" for each in zip(theirs, ours, low, high, strict=True)]
    assert 0.03 < np.mean(found) < 0.07
    assert 0.13 < np.mean((theirs < low) | (theirs > high)) < 0.20  # by our interval alone


@pytest.mark.parametrize(
    ("verdict", "expected"),
    [
        (verdicts.equal(3.7, 3.6963, 0.1), "reproduced"),
        (verdicts.equal(34.2, 34.1, 0.1), "reproduced"),
        (verdicts.equal(28.9, 28.59, 0.1), "contradicted"),
        (verdicts.equal(0, float("nan")), "undefined"),
        (verdicts.equal(0, None), "undefined"),
        (verdicts.within(93.84, 93.84, 92, 95, 0.005, top=100), "reproduced"),
        (verdicts.within(93.84, 93.1, 92, 95, 0.005, top=100), "within CI"),
        (verdicts.within(91.6, 93.1, 92, 94, 0.005, top=100), "within CI"),  # in another study's interval
        (verdicts.within(93.84, 97.0, 96, 98, 0.005, top=100), "contradicted"),
        (verdicts.within(93.84, float("nan"), 96, 98), "undefined"),
        (verdicts.within(93.84, 93.1, float("nan"), float("nan")), "not testable"),
        (verdicts.ranked([("a", "b"), ("a", "c")], told("ab", "ac")), "reproduced"),
        (verdicts.ranked([("a", "b"), ("a", "c")], told("ab")), "not told apart"),
        (verdicts.ranked([("a", "b"), ("a", "c")], told()), "not told apart"),
        (verdicts.ranked([("a", "b"), ("a", "c")], told("ab", "ca")), "contradicted"),
        (verdicts.above(50, [(51, 60), (50.1, 70)]), "reproduced"),
        (verdicts.above(50, [(51, 60), (49, 70)]), "not told apart"),
        (verdicts.above(50, [(51, 60), (float("nan"), float("nan"))]), "not told apart"),
        (verdicts.above(50, [(51, 60), (40, 49)]), "contradicted"),
    ],
)
def test_verdicts_follow_the_numbers(verdict, expected):
    assert verdict == expected


# The ledger


def test_every_number_that_the_paper_prints_of_a_model_is_under_a_claim(judge):
    found = set(judge().index)
    cells = {
        f"{short}.{row}.{column}"
        for short, table in (("T5", "table5"), ("F3", "fig3"), ("T6", "table6"), ("T7", "table7"))
        for (row, column), _ in printed(table).stack().dropna().items()
    }
    assert len(cells) == 8 * 4 + 4 * 2 + 2 * 3 + 6 + 4 * 6 + 3 * 2 + 7 * 7
    assert sorted(cells - found) == []


def test_claims_that_arithmetic_decides_need_no_data(judge):
    demo = study_settings(notice="DEMO")
    for source in demo["sources"].values():
        source["label"] += " (phantoms)"
    found = judge(demo)
    assert found.loc["T3.sums", "verdict"] == "contradicted"
    assert found.loc["T2.rule", "verdict"] == "reproduced"
    assert found.loc["F3.runners_up", "verdict"] == "contradicted"
    assert found.loc["F3.runners_up", "corrected"] == "base 93.76, nano 93.31"
    assert found.loc["F3.f1", "verdict"] == "reproduced"
    assert found.loc["E2.precision", "verdict"] == "contradicted"
    assert found.loc["F3.convnext_atto.normal_precision", "verdict"] == "undefined"
    assert found.loc["T5.convnext_small.size_mb", "verdict"] == "contradicted"
    assert found.loc["T5.convnext_small.params_m", "verdict"] == "reproduced"


def test_a_demo_says_nothing_on_the_papers_data(judge):
    demo = study_settings(notice="DEMO")
    for source in demo["sources"].values():
        source["label"] += " (phantoms)"
    found = judge(demo)
    needs_data = found.index.str.match(r"T1\.(lin|busi|rodrigues|total|distinct)|T\d\.(counts|independent)")
    needs_data |= found.index.str.match(r"F3\.(best|order|nano_|.*\.(accuracy|macro_f1|normal_recall))")
    assert needs_data.sum() == 27
    assert set(found.loc[needs_data, "verdict"]) == {"not testable"}
    assert found.loc["T1.lin", "why"] == f"needs the paper's data; this study has {LIN} (phantoms)"


def test_a_stand_in_blocks_only_the_claims_on_its_source(judge):
    settings = study_settings()
    settings["sources"]["lin"]["label"] = "BUS-BRA as a stand-in"
    found = judge(settings)
    assert found.loc["T1.lin", "verdict"] == found.loc["T3.counts", "verdict"] == "not testable"
    assert "BUS-BRA" in found.loc["T3.counts", "why"]
    assert found.loc["T1.busi", "verdict"] == found.loc["T4.counts", "verdict"] == "contradicted"


def test_a_notice_blocks_trained_results_but_not_counts(judge):
    found = judge(study_settings(notice="Short training"))
    assert found.loc["F3.convnext_nano.accuracy", "verdict"] == "not testable"
    assert "Short training" in found.loc["F3.convnext_nano.accuracy", "why"]
    assert found.loc["T1.busi", "verdict"] == "contradicted"


def test_a_model_outside_the_study_is_not_testable(judge):
    found = judge()
    assert found.loc["F3.convnext_tiny.accuracy", "verdict"] == "not testable"
    # The best of eight is not known from three.
    assert found.loc["F3.best", "verdict"] == "not testable"
    assert found.loc["T5.convnext_large.macs", "why"] == "not in this study: convnext_large"


def test_verdicts_on_scores_change_with_our_numbers(judge, study):
    table = study[0]["classification"].copy()
    row = (table["protocol"] == "paper") & (table["model"] == "convnext_small")
    for point, low, high, expected in (
        (0.9384, 0.92, 0.95, "reproduced"),
        (0.9300, 0.92, 0.95, "within CI"),
        (0.9800, 0.97, 0.99, "contradicted"),
    ):
        table.loc[row, ["accuracy", "accuracy_low", "accuracy_high"]] = [point, low, high]
        assert judge(classification=table).loc["F3.convnext_small.accuracy", "verdict"] == expected


def test_the_true_counts_reproduce_table_1(judge, study):
    table = study[0]["table1"].copy()
    columns = ["benign", "malignant", "normal", "total"]
    for source, row in printed("table1").iterrows():
        table.loc[table["source"] == source, columns] = row[columns].to_numpy()
    found = judge(table1=table)
    assert set(found.loc[["T1.lin", "T1.busi", "T1.rodrigues", "T1.total"], "verdict"]) == {"reproduced"}


def test_siblings_in_training_contradict_independent_subsets(judge):
    row = judge().loc["T2.independent"]
    assert row["verdict"] == "contradicted"
    assert row["ours_paper_protocol"].startswith("90.0 %")
    assert row["ours_grouped"].startswith("0.0 %")


def renamed(study, **names):
    """The study's tables under other names of its protocols."""
    return {
        name: table.assign(protocol=table["protocol"].replace(names)) if "protocol" in table else table
        for name, table in study[0].items()
    }


def test_the_ledger_goes_by_what_a_protocol_is_and_not_by_its_name(judge, study, tmp_path):
    whole, settings = judge(), study_settings()
    fold = {"label": "Fold", "split": "grouped", "fold": [1, 5]}
    protocols = {
        "fold": fold,
        "mended": settings["protocols"]["grouped"],
        "printed": settings["protocols"]["paper"],
    }
    paths = []
    for name, table in renamed(study, paper="printed", grouped="mended").items():
        paths.append(tmp_path / f"{name}.csv")
        write_csv(paths[-1], table)
    found = ledger(paths, [], [], settings | {"protocols": protocols})
    columns = ["ours_paper_protocol", "ours_grouped", "verdict"]
    but = whole.index.difference(["T2.independent"])  # which goes by leakage
    pd.testing.assert_frame_equal(found.data.set_index("id").loc[but, columns], whole.loc[but, columns])
    assert "“Ours, paper protocol”, Paper protocol; “Ours, grouped”, Grouped protocol." in found.notes[1]


def test_without_a_protocol_that_follows_the_paper_its_splits_and_scores_are_not_testable(study, tmp_path):
    folds = {f"fold_{k}": {"label": f"Fold {k}", "split": "grouped", "fold": [k, 2]} for k in (1, 2)}
    paths = []
    for name in ("table1", "table2", "table3", "table4", "table5"):
        paths.append(tmp_path / f"{name}.csv")
        write_csv(paths[-1], renamed(study, paper="fold_1", grouped="fold_2")[name])
    table = ledger(paths, [], [], study_settings() | {"protocols": folds})
    found = table.data.set_index("id")
    claims = ["T2.counts", "T3.counts", "T4.counts", "T2.independent", "F3.convnext_nano.accuracy"]
    assert set(found.loc[claims, "verdict"]) == {"not testable"}
    assert set(found.loc[claims, "why"]) == {"no protocol of this study follows the paper"}
    assert found.loc["F3.convnext_nano.accuracy", ["ours_paper_protocol", "ours_grouped"]].to_list() == [
        "–",
        "–",
    ]
    assert (
        found.loc["T1.busi", "verdict"] == "contradicted" and found.loc["T2.sums", "verdict"] == "reproduced"
    )
    assert "follows the paper (split: paper)" in table.notes[1]
    links = dict(zip(table.data["id"], table.links, strict=True))
    assert links["T7.segformer_b0.miou"] == "" and links["T4.counts"] == "tables/table4.html"


@pytest.mark.parametrize("task", OF_TASKS)
def test_a_study_without_a_task_is_asked_nothing_about_it(judge, study, tmp_path, task):
    whole, settings = judge(), study_settings()
    del settings["models"][task]
    tables = [path for path in tmp_path.glob("*.csv") if path.stem not in OF_TASKS[task]]
    leakage = [] if task == "classification" else study[1]["leakage"]
    metrics = [path for path in study[1]["metrics"] if f"/{task}/" not in str(path)]
    found = ledger(tables, leakage, metrics, settings).data.set_index("id")
    assert list(found.index) == list(whole.index)
    concerned = found["why"] == f"not in this study: {task}"
    assert set(found.loc[concerned, "verdict"]) == {"not testable"}
    heads = {"classification": "T2.counts", "detection": "T3.counts", "segmentation": "T4.counts"}
    assert concerned[heads[task]] and not concerned[["T1.busi", "T2.sums"]].any()
    changed = found.index[~concerned & (found["verdict"] != whole["verdict"])]
    assert list(changed) == []


def test_claims_find_their_columns_in_the_studys_tables(study):
    for columns in OF_TASKS.values():
        for name, wanted in columns.items():
            assert set(wanted) - set(study[0][name].columns) == set(), name


def test_a_missing_table_is_named(study, tmp_path):
    with pytest.raises(BusflowError, match="needs the table table1, table2"):
        ledger([], study[1]["leakage"], [], study_settings())


# The same identities on our own numbers


def test_our_tables_and_metrics_obey_the_identities(study):
    check_tables(study[0])
    for path in study[1]["metrics"]:
        CHECKS[path.parts[-4]](read_json(path), str(path))


@pytest.mark.parametrize(
    ("name", "column"), [("table1", "total"), ("table2", "benign"), ("table3", "boxes_total")]
)
def test_a_table_that_does_not_add_up_is_refused(study, name, column):
    table = study[0][name].copy()
    table.loc[0, column] += 1
    with pytest.raises(BusflowError, match=f"{name}.* adds up to its total does not hold"):
        check_tables(study[0] | {name: table})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m: m.update(n=m["n"] + 1), "not to n"),
        (lambda m: m["per_class"]["benign"].update(f1=0.5), "f1 of benign is 0.5"),
        (lambda m: m["per_class"]["benign"].update(precision=None), "precision of benign is None"),
        (lambda m: m.update(macro_f1=0.9), "macro_f1 is 0.9"),
    ],
)
def test_metrics_that_contradict_their_matrix_are_refused(study, change, message):
    metrics = read_json(study[1]["metrics"][0])
    change(metrics)
    with pytest.raises(BusflowError, match=message):
        check_metrics(metrics, "metrics.json")


def test_the_script_writes_the_ledger_with_its_notice(study, tmp_path, monkeypatch):
    for name, table in study[0].items():
        write_csv(tmp_path / f"{name}.csv", table)
    arguments = ["--tables", *map(str, sorted(tmp_path.glob("*.csv")))]
    for kind, files in (("leakage", "leakage"), ("metrics", "metrics"), ("timing", "detectors_timing")):
        arguments += [f"--{kind}", *map(str, study[1][files])]
    arguments += ["--settings", json.dumps(study_settings(notice="DEMO"))]
    arguments += ["--csv", str(tmp_path / "out/ledger.csv"), "--md", str(tmp_path / "out/ledger.md")]
    arguments += ["--html", str(tmp_path / "out/ledger.html")]
    arguments += [f"--summary-{kind}={tmp_path}/out/summary.{kind}" for kind in ("md", "html")]
    monkeypatch.setattr(sys, "argv", ["audit.py", *arguments])
    runpy.run_path(str(ROOT / "scripts/audit.py"), run_name="__main__")
    found = pd.read_csv(tmp_path / "out/ledger.csv")
    allowed = {"reproduced", "within CI", "not told apart", "contradicted", "undefined", "not testable"}
    assert set(found["verdict"]) <= allowed
    assert found["id"].is_unique
    assert "> DEMO" in (tmp_path / "out/ledger.md").read_text()
    assert "> DEMO" in (tmp_path / "out/summary.md").read_text()
    assert "in two minutes</h1>" in (tmp_path / "out/summary.html").read_text()
    page = (tmp_path / "out/ledger.html").read_text()
    links = {
        claim: table for table, claim in re.findall(r'data-result="tables/(\w+)\.html">([^<]*)</a>', page)
    }
    # This study has no external test, which the claims of section 5 would link to; Figure 6 is no table.
    assert set(links) == set(found.loc[~found["id"].str.startswith(("S5.", "F6.")), "id"])
    assert 'data-result="figures/fig6_paper.png">F6.longest</a>' in page
    assert set(links.values()) <= set(study[0])
    assert links["T3.sums"] == "table3" and links["F3.best"] == "classification"
    assert links["T7.families"] == "segmentation_pairs" and links["T7.b4_sizes"] == "segmentation"


# The ledger in two minutes


def test_the_summary_counts_every_claim_once_and_names_all_that_does_not_hold(judge):
    claims = judge().reset_index()
    sections = summary(claims, study_settings()).sections
    opening, parts = sections["How many hold"]
    counts = claims["verdict"].value_counts()
    assert (
        f"Of the paper's {len(claims)} claims" in opening
        and f"{counts['contradicted']} contradicted" in opening
    )
    assert [row[0] for row in parts.cells] == list(PARTS)
    assert sum(int(row[-1]) for row in parts.cells) == len(claims)
    assert [int(number) for number in np.array([row[1:-1] for row in parts.cells], int).sum(axis=0)] == [
        counts[verdict] for verdict in parts.headings[1:-1]
    ]
    listed = [row[0] for row in sections["What does not hold"][0].cells]
    assert listed == claims.loc[claims["verdict"] == "contradicted", "id"].to_list()
    reasons = sections["What cannot be judged here, and why"][0]
    assert sum(int(count) for _, count in reasons.cells) == counts["not testable"]


def test_the_summary_answers_each_question_by_claims_of_the_ledger_with_their_numbers(judge):
    claims = judge()
    sections = summary(claims.reset_index(), study_settings()).sections
    assert len(FINDINGS) == 5 and set(itertools.chain(*FINDINGS.values())) <= set(claims.index)
    for question, ids in FINDINGS.items():
        (answers,) = sections[question]
        assert len(answers) == len(ids)
        for claim in claims.loc[list(ids)].itertuples():
            answer = next(text for text in answers if text.startswith(claim.claim))
            assert all(part in answer for part in (claim.printed, claim.verdict, claim.why))


def test_a_summary_of_nothing_contradicted_says_so(judge):
    claims = judge().reset_index()
    sections = summary(claims[claims["verdict"] == "reproduced"], study_settings()).sections
    assert sections["What does not hold"] == sections["What cannot be judged here, and why"] == ["Nothing."]
