"""The ledger's claims on segmentation: verdicts follow from numbers, and our own metrics obey identities."""

import copy
import itertools
import re

import numpy as np
import pandas as pd
import pytest
from segmentation_files import (
    SEGMENTERS,
    make_masks,
    make_metrics,
    make_predictions,
    make_split,
    study_settings,
    write_study,
)
from sklearn.metrics import accuracy_score, jaccard_score, recall_score

from busflow.audit.evidence import Evidence
from busflow.audit.segmentation import check_segmentation_metrics, segmentation_claims
from busflow.errors import BusflowError
from busflow.paper import TABLE7, fit_two_class, lesion_share, printed, two_class
from busflow.tables.segmentation import segmentation, segmentation_pairs, table7

SUBSETS = ("lesions", "smallest", "malignant", "malignant_smallest")


def as_printed(share=0.1136, dice=None, spread=0.01, **changes):
    """The study's tables if all were as the paper says: its scores, and Dice equal to its lesion IoU."""
    paper = printed("table7", corrected=True).astype(float)
    for model, values in changes.items():
        paper.loc[model, list(values)] = list(values.values())
    rows = []
    for place, label in enumerate(("background", "lesion")):
        part = pd.DataFrame({"model": paper.index, "class": label, "view": "two_class"})
        for name in ("iou", "acc", "miou", "aacc", "macc"):
            column = name if name in paper else f"{name}{place}"
            part[name] = paper[column].to_numpy() / 100
        for name in ("iou", "acc", "miou", "aacc", "macc"):
            part[f"{name}_low"], part[f"{name}_high"] = part[name] - 0.01, part[name] + 0.01
        rows.append(part.assign(lesion_pixel_share=share, n=156))
    scores = pd.concat(rows)
    dice = paper["iou1"] / 100 if dice is None else pd.Series(dice)
    pairs = pd.DataFrame(
        [
            (
                *(a, b, subset, dice[a] - dice[b], dice[a] - dice[b] - spread, dice[a] - dice[b] + spread),
                0.001 if abs(dice[a] - dice[b]) > spread else 0.5,
            )
            for (a, b), subset in itertools.product(itertools.combinations(paper.index, 2), SUBSETS)
        ],
        columns=["model", "other", "subset", "difference", "low", "high", "p_holm"],
    )
    images = pd.DataFrame({"model": paper.index, "dice_smallest": 0.6, "dice_largest": 0.8})
    images = images.assign(dice_size_gap=0.2, dice_size_gap_low=0.1, dice_size_gap_high=0.3)
    tables = {"table7": scores, "segmentation": images, "segmentation_pairs": pairs}
    both = ("paper", "grouped")
    return {name: pd.concat([each.assign(protocol=p) for p in both]) for name, each in tables.items()}


def claims(tables, **settings):
    evidence = Evidence.__new__(Evidence)  # claims on segmentation need these three tables alone
    evidence.tables, evidence.settings = tables, study_settings() | settings
    return {claim.id: claim for claim in segmentation_claims(evidence)}


def test_every_printed_number_has_its_claim_with_what_mends_it():
    found = claims(as_printed())
    paper = printed("table7")
    for score in paper:
        for model in SEGMENTERS:
            assert found[f"T7.{model}.{score}"].printed == f"{paper.loc[model, score]:.2f}"
    assert found["T7.segformer_b0.iou1"].corrected == "53.42"
    assert found["T7.segformer_b4.iou1"].corrected == "–"


def test_equal_digits_are_reproduced_and_an_interval_may_hold_the_printed_value():
    found = claims(
        as_printed(segformer_b2={"miou": 75.774}, segformer_b4={"miou": 81.0}, segformer_b3={"miou": 60})
    )
    assert found["T7.segformer_b2.miou"].verdict == "reproduced"
    assert found["T7.segformer_b4.miou"].verdict == "within CI"
    assert found["T7.segformer_b3.miou"].verdict == "contradicted"
    assert found["T7.segformer_b4.miou"].ours_paper_protocol == "81.00 [80.0, 82.0]"


def test_the_papers_own_numbers_decide_without_data():
    for found in (claims(as_printed()), claims(as_printed(), study={"notice": "DEMO"})):
        for name in ("arithmetic", "classes", "same_pixels", "accuracies", "baseline", "best_iou0"):
            assert found[f"T7.{name}"].verdict == "contradicted"
        assert found["T7.classes"].corrected == "background, lesion"
        assert found["T7.best_iou0"].corrected == "SegFormer-B4 95.08"
        assert found["T7.same_pixels"].corrected == "ConvNeXt 11.86 to 11.88 %; SegFormer 11.34 to 11.38 %"
        assert "SegFormer-B3 Acc. Benign 96.93" in found["T7.arithmetic"].corrected
        assert "4 of 7 rows" in found["T7.arithmetic"].why


def test_the_lesion_shares_that_the_rows_imply_are_those_of_their_rounding():
    """By drawing what the printed digits may have been before they were rounded."""
    rng = np.random.default_rng(0)
    for model in ("convnext_small", "segformer_b0", "segformer_b4"):
        acc0, acc1, aacc = printed("table7").loc[model, ["acc0", "acc1", "aacc"]].to_numpy(float)[:, None] + (
            rng.uniform(-0.005, 0.005, (3, 20_000))
        )
        drawn = (acc0 - aacc) / (acc0 - acc1)
        value, low, high = lesion_share(model)
        assert low <= drawn.min() < drawn.max() <= high
        assert drawn.min() - low < 0.1 * (high - low)
        assert low <= value <= high


@pytest.mark.parametrize(("share", "verdict"), [(0.115, "reproduced"), (0.0751, "contradicted")])
def test_the_test_set_is_judged_by_its_lesion_pixels_trained_or_not(share, verdict):
    for settings in ({}, {"study": {"notice": "SHORT: for tests"}}):
        claim = claims(as_printed(share=share), **settings)["T7.test_set"]
        assert claim.verdict == verdict
        assert claim.ours_paper_protocol == f"{100 * share:.2f} % (n = 156 images)"


def test_ranks_are_those_that_tests_on_the_same_images_tell():
    same = claims(as_printed())
    assert same["T7.best_miou"].verdict == same["T7.best_iou1"].verdict == "reproduced"
    for score in ("acc1", "aacc", "macc", "acc0"):  # no test of these
        assert same[f"T7.best_{score}"].verdict == "not told apart"
    other = claims(as_printed(convnext_tiny={"aacc": 99.0}))["T7.best_aacc"]
    assert other.ours_paper_protocol == "ConvNeXt-Tiny 99.00"


def test_a_leader_that_dice_does_not_tell_from_the_next_is_not_told_apart():
    wide = claims(as_printed(spread=0.06))  # B4 and B3 are 0.0537 apart
    assert wide["T7.best_miou"].verdict == wide["T7.best_iou1"].verdict == "not told apart"
    behind = as_printed(spread=0.06, segformer_b3={"miou": 90})
    assert claims(behind)["T7.best_miou"].verdict == "not told apart"
    far = as_printed(
        segformer_b3={"miou": 90}, dice={m: 0.9 if m == "segformer_b3" else 0.5 for m in SEGMENTERS}
    )
    assert claims(far)["T7.best_miou"].verdict == "contradicted"


def test_the_families_are_compared_pair_by_pair_on_the_same_images():
    found = claims(as_printed())
    assert found["T7.families"].verdict == "reproduced"
    assert found["T7.families"].ours_paper_protocol == "10 of 10 better, 0 worse, 0 not told apart"
    even = dict.fromkeys(SEGMENTERS, 0.7)
    assert claims(as_printed(dice=even))["T7.families"].verdict == "not told apart"
    one = claims(as_printed(dice=even | {"convnext_tiny": 0.8}))["T7.families"]
    assert one.verdict == "contradicted"
    assert one.ours_paper_protocol == "0 of 10 better, 5 worse, 5 not told apart"


def test_a_pair_is_read_in_either_order():
    claim = claims(as_printed())["T7.b4_b0"]
    assert claim.ours_paper_protocol == "+0.146 [+0.136, +0.156]"  # the table has B0 against B4
    assert claim.verdict == "reproduced"


def test_too_few_groups_to_tell_apart_is_not_testable():
    tables = as_printed()
    pairs = tables["segmentation_pairs"]
    pairs.loc[pairs["subset"] == "malignant_smallest", ["low", "high"]] = np.nan
    found = claims(tables)
    assert found["T7.families_small"].verdict == "not testable"
    assert found["T7.b4_small"].verdict == "reproduced"


def test_sizes_are_judged_by_the_interval_of_the_gap_of_mean_dice():
    tables = as_printed()
    found = claims(tables)
    assert found["T7.convnext_sizes"].verdict == "reproduced"
    assert found["T7.convnext_sizes"].ours_paper_protocol == "0.800 against 0.600; 0.800 against 0.600"
    assert found["T7.b4_sizes"].verdict == "contradicted"
    tiny = tables["segmentation"]["model"] == "convnext_tiny"
    gap = ["dice_size_gap_low", "dice_size_gap_high"]
    tables["segmentation"].loc[tiny, gap] = [-0.1, 0.3]
    assert claims(tables)["T7.convnext_sizes"].verdict == "not told apart"
    tables["segmentation"].loc[tiny, gap] = [-0.6, -0.4]
    assert claims(tables)["T7.convnext_sizes"].verdict == "contradicted"


def test_all_segformers_must_exceed_one_half():
    assert claims(as_printed())["T7.above_50"].verdict == "reproduced"
    assert claims(as_printed(segformer_b1={"iou1": 49.9}))["T7.above_50"].verdict == "not told apart"
    assert claims(as_printed(segformer_b1={"iou1": 45}))["T7.above_50"].verdict == "contradicted"


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        ({"study": {"notice": "DEMO: for tests"}}, "DEMO: for tests"),
        ({"sources": {"busi": {"label": "Stand-in"}}}, "needs the paper's data; this study has Stand-in"),
        ({"models": {"segmentation": {"segformer_b0": {"label": "B0"}}}}, "not in this study: segformer_b4"),
        ({"models": {"classification": {}}}, "not in this study: segmentation"),
    ],
)
def test_a_study_that_cannot_judge_says_why(settings, why):
    found = claims(as_printed(), **settings)
    for name in ("segformer_b4.miou", "families", "b4_sizes", "best_miou", "above_50"):
        assert found[f"T7.{name}"].verdict == "not testable"
    assert why in found["T7.segformer_b4.miou"].why


def test_the_best_of_several_is_not_known_from_one():
    found = claims(as_printed(), models={"segmentation": {"segformer_b4": {"label": "B4"}}})
    assert found["T7.best_miou"].verdict == "not testable"
    assert found["T7.segformer_b4.miou"].verdict == "reproduced"


def test_a_study_without_a_protocol_or_a_model_has_dashes():
    tables = {
        name: table.query("protocol == 'grouped' and model != 'segformer_b4'")
        for name, table in as_printed().items()
    }
    tables["segmentation_pairs"] = tables["segmentation_pairs"].query("other != 'segformer_b4'")
    found = claims(tables)
    assert found["T7.segformer_b0.miou"].ours_paper_protocol == "–"
    assert found["T7.segformer_b0.miou"].verdict == "undefined"
    assert found["T7.test_set"].verdict == found["T7.families"].verdict == "undefined"
    assert found["T7.above_50"].ours_grouped == "53.42, 53.22, 57.70, 62.65, –"
    assert found["T7.families"].ours_grouped == "8 of 8 better, 0 worse, 0 not told apart"


def test_the_claims_read_the_csvs_of_the_studys_tables(tmp_path):
    settings = study_settings()
    paths = write_study(tmp_path, settings)
    tables = {}
    for make in (table7, segmentation, segmentation_pairs):
        make(paths["metrics"], settings).data.to_csv(tmp_path / "t.csv", index=False)
        tables[make.__name__] = pd.read_csv(tmp_path / "t.csv")
    found = claims(tables)
    row = (
        tables["table7"]
        .query("model == 'segformer_b1' and view == 'two_class' and `class` == 'lesion'")
        .iloc[0]
    )
    assert found["T7.segformer_b1.iou1"].ours_paper_protocol.startswith(f"{100 * row['iou']:.2f} [")
    assert {claim.verdict for claim in found.values()} <= {
        "reproduced",
        "within CI",
        "not told apart",
        "contradicted",
        "undefined",
        "not testable",
    }
    words = [value for claim in found.values() for value in claim]
    assert not any(re.search(r"\bnan\b", value) for value in words)


@pytest.fixture(scope="module")
def metrics():
    split = make_split()
    masks = make_masks(split)
    return make_metrics(split, masks, make_predictions(masks))


def test_our_own_metrics_obey_their_identities(metrics):
    check_segmentation_metrics(metrics, "metrics.json")


def test_a_row_of_table_7_follows_from_the_share_of_lesions_and_two_accuracies():
    rng = np.random.default_rng(0)
    truth = rng.random(5000) < 0.12
    found = np.where(rng.random(5000) < 0.2, ~truth, truth)
    recall, iou = (score(truth, found, average=None) for score in (recall_score, jaccard_score))
    expected = [iou[0], recall[0], iou[1], recall[1], iou.mean(), accuracy_score(truth, found), recall.mean()]
    assert two_class(truth.mean(), *recall) / 100 == pytest.approx(expected, abs=1e-12)
    row = pd.Series(100 * np.array(expected), TABLE7)
    assert fit_two_class(row.drop(["acc0", "macc"])) == pytest.approx([truth.mean(), *recall], abs=1e-9)


def test_a_class_that_is_nowhere_has_no_part_in_the_means():
    split = make_split().query("label != 'malignant'")
    masks = make_masks(split)
    metrics = make_metrics(split, masks, make_predictions(masks))
    assert metrics["views"]["three_class"]["per_class"]["malignant"]["acc"] is None
    check_segmentation_metrics(metrics, "metrics.json")


@pytest.mark.parametrize(
    ("where", "value", "message"),
    [
        (("views", "two_class", "miou"), 0.5, "two_class: miou is 0.5; the classes imply"),
        (("views", "three_class", "macc"), 0.5, "three_class: macc is 0.5; the classes imply"),
        (("views", "two_class", "aacc"), 0.5, "two_class: aacc is 0.5; the classes imply"),
        (("views", "two_class", "per_class", "lesion", "n_pixels"), 7, "the classes have .* of 96000 pixels"),
        (("lesion_pixel_share",), 0.0751, "lesion_pixel_share is 0.0751, not 0.05"),
    ],
)
def test_metrics_that_break_an_identity_are_refused(metrics, where, value, message):
    metrics = copy.deepcopy(metrics)
    part = metrics
    for key in where[:-1]:
        part = part[key]
    part[where[-1]] = value
    with pytest.raises(BusflowError, match=message):
        check_segmentation_metrics(metrics, "metrics.json")
