"""The ledger's claims on detection: verdicts follow from numbers, and our own metrics obey identities."""

import copy
import itertools

import pandas as pd
import pytest
from detection_files import make_timing, study_settings, write_unit

from busflow.audit.detection import check_detection_metrics, detection_claims
from busflow.audit.evidence import TIMING, Evidence, read_timing
from busflow.errors import BusflowError
from busflow.files import write_json
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


def timed(seeds=(0, 1), device="Test CPU", **longer):
    """Latencies of all seven in the order of Table 6, 10 ms apart; ``longer``: other ones, one a run."""
    models, rows = list(printed("table6").index), []
    for run, (protocol, seed) in enumerate(itertools.product(("paper", "grouped"), seeds)):
        for k, model in enumerate(models):
            ms = longer[model][run] if model in longer else 10.0 * (k + 1)
            rows.append((protocol, model, seed, ms, device, 1, "fp32", 64))
    return pd.DataFrame(rows, columns=TIMING)


def claims(data, apart=0.001, timing=None, **settings):
    evidence = Evidence.__new__(Evidence)  # claims on detection need Table 6, the pairs and the times alone
    evidence.tables = {"table6": data, "detection_pairs": pairs(data, apart)}
    evidence.timing = pd.DataFrame(columns=TIMING) if timing is None else timing
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


PROPOSED = "swin_base_detectors_rfla"


def longest(timing, **settings):
    return claims(table(), timing=timing, **settings)["F6.longest"]


def test_the_detector_that_takes_longest_in_every_timing_is_the_one_that_the_paper_names():
    claim = longest(timed(**{PROPOSED: [90, 80, 500, 71]}))
    assert claim.verdict == "reproduced"
    assert claim.why.endswith(
        "4 timings of all (a protocol and seed each); Test CPU, 1 thread, fp32, images of 64 pixels"
    )
    assert claim.ours_paper_protocol == "Swin-Base w/ DetectoRS & RFLA 85 ms, Swin-Base w/ RFLA 60 ms"
    assert claim.ours_grouped.startswith("Swin-Base w/ DetectoRS & RFLA 285.5 ms, ")


def test_timings_that_all_show_a_slower_detector_contradict_and_those_that_differ_tell_nothing():
    assert longest(timed(detr_r50=[100, 100, 100, 100])).verdict == "contradicted"
    assert longest(timed(detr_r50=[70, 70, 70, 70])).verdict == "contradicted"  # as long as the proposed
    assert longest(timed(detr_r50=[100, 1, 1, 1])).verdict == "not told apart"


def test_times_depend_on_no_data_so_any_study_with_the_seven_judges_them():
    stand_in = {"sources": {"lin": {"label": "Stand-in"}}, "study": {"notice": "DEMO"}}
    assert longest(timed(), **stand_in).verdict == "reproduced"
    folds = {"protocols": {"paper": {"label": "Fold", "split": "grouped", "fold": [1, 2]}}}
    claim = longest(timed().query("protocol == 'paper'"), **folds)
    assert (claim.verdict, claim.ours_paper_protocol, claim.ours_grouped) == ("reproduced", "–", "–")


@pytest.mark.parametrize(
    ("timing", "settings", "why"),
    [
        (timed(seeds=()), {}, "no timing of all seven"),
        (timed().query("model != 'detr_r50'"), {}, "no timing of all seven"),
        (timed(), study_settings(models=("detr_r50", PROPOSED)), "not in this study: "),
    ],
)
def test_what_was_not_timed_together_is_not_testable(timing, settings, why):
    claim = longest(timing, **settings)
    assert claim.verdict == "not testable" and why in claim.why


def test_timings_of_different_devices_are_not_compared():
    mixed = timed(**{PROPOSED: [1, 90, 90, 90]})
    mixed.loc[(mixed["model"] == PROPOSED) & (mixed["p50_ms"] == 1), "device"] = "Test GPU"
    claim = longest(mixed)
    assert claim.verdict == "reproduced" and "in 3 timings of all" in claim.why
    mixed.loc[mixed["model"] == PROPOSED, "device"] = "Test GPU"
    assert longest(mixed).verdict == "not testable"


def test_the_ledger_reads_the_times_of_the_units(tmp_path):
    settings = study_settings(models=("convnext_tiny", PROPOSED))
    paths = [
        tmp_path / f"results/{protocol}/detection/{model}/seed0/timing.json"
        for protocol in settings["protocols"]
        for model in settings["models"]["detection"]
    ]
    for k, path in enumerate(paths):
        write_json(path, make_timing(10.0 * (k + 1)))
    found = read_timing(paths, settings)
    assert found.groupby("protocol", sort=False)["p50_ms"].agg(list).to_dict() == {
        "paper": [10.0, 20.0],
        "grouped": [30.0, 40.0],
    }
    assert found.loc[0, ["device", "image_size"]].to_list() == ["Test CPU", 96]


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
