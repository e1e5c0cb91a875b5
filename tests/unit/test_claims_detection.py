"""The ledger's claims on detection: verdicts follow from numbers, and our own metrics obey identities."""

import copy
import itertools

import pandas as pd
import pytest
from detection_files import study_settings, write_unit

from busflow.audit.detection import check_detection_metrics, detection_claims
from busflow.audit.evidence import Evidence
from busflow.errors import BusflowError
from busflow.metrics.detection import evaluate
from busflow.paper import printed

SCORES = ["ap", "ap50", "ap75", "aps", "apm", "apl"]


def table(small=0, **changes):
    """A Table 6 in which everything is as the paper prints it, but AP_S is undefined without small boxes."""
    data = printed("table6").rename_axis("model").reset_index()
    data["aps"] = data["aps"] if small else float("nan")
    data = data.assign(n_boxes=100).assign(**{"n_coco.small": small})
    for score in SCORES:
        data[score] = data[score].astype(float)
        for model, values in changes.items():
            if score in values:
                data.loc[data["model"] == model, score] = values[score]
    for score in SCORES[:3]:
        data[f"{score}_low"], data[f"{score}_high"] = data[score] - 0.01, data[score] + 0.01
    return pd.concat([data.assign(protocol=protocol) for protocol in ("paper", "grouped")])


def pairs(data, apart=0.001):
    """The test of every two detectors: those further apart than this are told apart."""
    rows = []
    for protocol, part in data.groupby("protocol"):
        for score in SCORES[:3]:
            values = part.set_index("model")[score].dropna()
            for one, other in itertools.combinations(values.index, 2):
                difference = values[one] - values[other]
                rows.append((protocol, score, one, other, difference, float(abs(difference) <= apart)))
    return pd.DataFrame(rows, columns=["protocol", "score", "model", "other", "difference", "p_holm"])


def claims(data, apart=0.001, **settings):
    evidence = Evidence.__new__(Evidence)  # claims on detection need Table 6 and the pairs alone
    evidence.tables = {"table6": data, "detection_pairs": pairs(data, apart)}
    evidence.settings = study_settings() | settings
    return {claim.id: claim for claim in detection_claims(evidence)}


def test_every_printed_number_has_its_claim():
    found = claims(table())
    paper = printed("table6")
    for score in SCORES:
        for model in paper.index[paper[score].notna()]:
            assert found[f"T6.{model}.{score}"].printed == f"{paper.loc[model, score]:.3f}"


def test_equal_digits_are_reproduced_and_an_interval_may_hold_the_printed_value():
    found = claims(table(swin_base={"ap": 0.2624}, detr_r50={"ap": 0.086}, convnext_tiny={"ap": 0.3}))
    assert found["T6.swin_base.ap"].verdict == "reproduced"
    assert found["T6.detr_r50.ap"].verdict == "within CI"
    assert found["T6.convnext_tiny.ap"].verdict == "contradicted"
    assert found["T6.detr_r50.ap"].ours_paper_protocol == "0.086 [0.08, 0.10]"


def test_ap_s_is_undefined_when_no_box_is_small():
    found = claims(table(small=0))
    assert found["T6.swin_base.aps"].verdict == "undefined"
    assert found["T6.swin_base.aps"].corrected == "undefined"
    assert found["T6.swin_base.aps"].ours_paper_protocol == "n/a"
    assert found["T6.small_gain"].verdict == found["T6.small_backbone"].verdict == "undefined"


def test_with_small_boxes_ap_s_is_judged_like_a_number():
    found = claims(table(small=5, detr_r50={"aps": 0.1}))
    assert found["T6.swin_base.aps"].verdict == "reproduced"
    assert found["T6.detr_r50.aps"].verdict == "contradicted"
    assert found["T6.small_gain"].verdict == "not told apart"  # no test of AP_S


def test_ap_s_of_the_rfla_rows_is_named_for_what_it_is():
    claim = claims(table(swin_base_rfla={"ap75": 0.27}))["T6.swin_base_rfla.aps"]
    assert claim.printed == "0.265"
    assert claim.corrected == "AP75 0.265, the fourth of AI-TOD's statistics"
    assert claim.ours_paper_protocol == "n/a; AP75 0.270 [0.26, 0.28]"


def test_ranks_are_those_that_tests_over_groups_tell():
    same, other = claims(table()), claims(table(detr_r50={"ap": 0.9}))
    assert same["T6.best_ap"].verdict == same["T6.order_ap"].verdict == "reproduced"
    assert other["T6.best_ap"].verdict == other["T6.order_ap"].verdict == "contradicted"
    assert other["T6.best_ap"].ours_paper_protocol == "DETR-ResNet50 0.900"


@pytest.mark.parametrize("data", [table(), table(detr_r50={"ap": 0.9})], ids=["as printed", "another leads"])
def test_what_no_test_tells_apart_neither_holds_nor_is_contradicted(data):
    found = claims(data, apart=1.0)
    assert found["T6.best_ap"].verdict == found["T6.order_ap"].verdict == "not told apart"
    assert found["T6.order_apl"].verdict == found["T6.order_apm"].verdict == "not told apart"
    assert "which AP_L has none of" in found["T6.order_apl"].why


def test_the_best_of_four_is_sought_among_the_four_that_the_paper_prints():
    found = claims(table(swin_base_rfla={"ap50": 0.9, "ap": 0.9}))
    assert found["T6.best_ap50"].verdict == "reproduced"
    assert found["T6.best_ap"].verdict == "contradicted"


def test_the_best_of_several_is_not_known_from_one():
    found = claims(table(), **study_settings(models=("swin_base",)))
    assert found["T6.best_ap"].verdict == "not testable"
    assert found["T6.swin_base.ap"].verdict == "reproduced"


def test_the_papers_own_numbers_contradict_that_the_proposed_detector_is_best():
    for found in (claims(table()), claims(table(), study={"notice": "DEMO"})):
        assert found["T6.proposed"].verdict == "contradicted"
        assert found["T6.proposed"].corrected == "Swin-Base 0.262, ConvNeXt-Small 0.244"
        assert found["T6.baseline"].verdict == "contradicted"
        assert "CVA-Net [26] 0.361" in found["T6.baseline"].corrected


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        ({"study": {"notice": "DEMO: for tests"}}, "DEMO: for tests"),
        ({"sources": {"lin": {"label": "Stand-in"}}}, "needs the paper's data; this study has Stand-in"),
        ({"models": {"detection": {"detr_r50": {"label": "DETR"}}}}, "not in this study: swin_base"),
    ],
)
def test_a_study_that_cannot_judge_says_why(settings, why):
    claim = claims(table(), **settings)["T6.swin_base.ap"]
    assert claim.verdict == "not testable"
    assert why in claim.why


def test_a_study_without_a_protocol_or_a_detector_has_dashes():
    data = table().query("protocol == 'grouped' and model != 'detr_r50'")
    found = claims(data)
    assert found["T6.swin_base.ap"].ours_paper_protocol == "–"
    assert found["T6.swin_base.ap"].verdict == "undefined"
    assert found["T6.order_ap"].ours_grouped == "0.262, 0.244, 0.207, –"


def test_our_own_metrics_obey_their_identities(tmp_path):
    check_detection_metrics(evaluate(*write_unit(tmp_path)), "metrics.json")


@pytest.mark.parametrize(
    ("where", "value", "message"),
    [
        (("bins", "coco", "large", "ap"), 0.0, "AP of coco large is 0.0, but 0 boxes"),
        (("bins", "relative", "smallest", "ap"), None, "AP of relative smallest is None, but 12 boxes"),
        (("coco", "ap50"), 0.99, "ap50 is 0.99; the classes imply"),
        (("n_boxes",), 33, "do not add up to 33"),
    ],
)
def test_metrics_that_break_an_identity_are_refused(tmp_path, where, value, message):
    metrics = copy.deepcopy(evaluate(*write_unit(tmp_path)))
    part = metrics
    for key in where[:-1]:
        part = part[key]
    part[where[-1]] = value
    with pytest.raises(BusflowError, match=message):
        check_detection_metrics(metrics, "metrics.json")
