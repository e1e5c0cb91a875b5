"""What entries of the config's protocols mean, and which are refused."""

import pytest

from busflow.errors import BusflowError
from busflow.protocols import (
    check_protocols,
    division,
    families,
    plain,
    sources_left_out,
    whole,
    with_labels,
)

SOURCES = {
    "lin": {"use": "study", "tasks": ["classification", "detection"]},
    "busi": {"use": "study", "tasks": ["classification", "segmentation"]},
    "rodrigues": {"use": "study", "tasks": ["classification"]},
    "archive": {"use": "study", "tasks": ["ranking"]},
    "clinic": {"use": "external", "tasks": ["classification"]},
}


def check(entry: dict, tasks=("classification",), name="mine", **others) -> None:
    entries = others | {name: {"split": "grouped"} | entry}
    check_protocols({"protocols": entries, "sources": SOURCES, "models": dict.fromkeys(tasks)})


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ({"split": "paper", "fold": [1, 5]}, "protocols.mine: the paper's split has no fold"),
        ({"split": "paper", "leave_out": ["busi"]}, "protocols.mine: the paper's split has no leave_out"),
        ({"fold": [1, 5], "leave_out": ["busi"]}, "protocols.mine has both fold and leave_out"),
        ({"fold": [6, 5]}, r"protocols.mine.fold is \[6, 5\]; expected \[k, of\], k from 1 to of"),
        ({"fold": [0, 5]}, r"protocols.mine.fold is \[0, 5\]"),
        ({"fold": [1, 1]}, r"protocols.mine.fold is \[1, 1\]"),
        ({"leave_out": ["busy"]}, "names busy; the study's own sources are lin, busi, rodrigues"),
        ({"leave_out": ["lin", "busi", "rodrigues"]}, "leaves classification no source to train on, of lin"),
    ],
)
def test_what_does_not_go_together_is_refused_in_one_line(entry, said):
    with pytest.raises(BusflowError, match=said) as refusal:
        check(entry)
    assert "\n" not in str(refusal.value)


def test_each_task_needs_a_source_to_test_on_and_one_to_train_on():
    check({"leave_out": ["busi"]})
    with pytest.raises(
        BusflowError, match="leaves detection no source to test on, of lin; change it, or leave"
    ):
        check({"leave_out": ["rodrigues"]}, tasks=["classification", "detection"])
    with pytest.raises(BusflowError, match=r"no source to train on, of busi.*models.segmentation: null"):
        check({"leave_out": ["busi"]}, tasks=["segmentation"])


def test_a_source_that_tests_no_task_of_the_study_is_no_source_to_leave_out():
    said = r"leave_out names archive, which no task of the study \(classification\) is tested on; take it out"
    for useless in (["archive"], ["busi", "archive"]):
        with pytest.raises(BusflowError, match=said):
            check({"leave_out": useless})
    check({"leave_out": ["busi", "rodrigues"]})


def test_an_external_source_cannot_be_left_out_of_trainings_that_it_is_never_in():
    with pytest.raises(BusflowError, match="names clinic; the study's own sources are lin, busi"):
        check({"leave_out": ["clinic"]})


def test_a_name_that_the_results_need_is_refused():
    with pytest.raises(BusflowError, match=r"protocols\.tables: results/tables is something else"):
        check({}, name="tables")


def test_the_same_protocol_twice_is_refused_and_another_loss_makes_another():
    first = {"split": "grouped", "fold": [1, 5], "label": "First"}
    check({"fold": [1, 5], "balance_classes": True}, first=first)
    with pytest.raises(BusflowError, match=r"protocols\.mine is the same as protocols\.first"):
        check({"fold": [1, 5], "label": "Second"}, first=first)


def test_folds_of_one_division_are_a_family_in_the_order_of_their_numbers():
    entries = {
        "b": {"split": "grouped", "fold": [2, 3]},
        "whole": {"split": "grouped"},
        "balanced": {"split": "grouped", "fold": [1, 3], "balance_classes": True},
        "a": {"split": "grouped", "fold": [1, 3], "balance_classes": False},
        "ten": {"split": "grouped", "fold": [1, 10]},
    }
    assert families(entries) == [["a", "b"], ["balanced"], ["ten"]]
    assert whole(entries) == ["whole"]


def test_sources_left_out_in_turn_are_a_family_unless_their_loss_differs():
    entries = {
        "one": {"split": "grouped", "leave_out": ["busi"]},
        "fold": {"split": "grouped", "fold": [1, 3]},
        "balanced": {"split": "grouped", "leave_out": ["busi"], "balance_classes": True},
        "two": {"split": "grouped", "leave_out": ["lin", "rodrigues"]},
    }
    assert sources_left_out(entries) == [["one", "two"], ["balanced"]]


def test_the_first_plain_protocol_of_a_split_speaks_for_it():
    entries = {
        "fold": {"split": "grouped", "fold": [1, 3]},
        "out": {"split": "grouped", "leave_out": ["busi"]},
        "first": {"split": "grouped", "balance_classes": True},
        "second": {"split": "grouped"},
    }
    assert plain(entries, "grouped") == "first" and plain(entries, "paper") is None
    assert whole(entries) == ["out", "first", "second"]


def test_labels_and_losses_divide_nothing_and_a_label_may_be_left_to_the_name():
    entry = {"split": "grouped", "fold": [2, 5], "balance_classes": True}
    assert with_labels({"fold_2": entry}) == {"fold_2": entry | {"label": "Fold 2"}}
    assert with_labels({"fold_2": entry | {"label": "Two"}})["fold_2"]["label"] == "Two"
    assert division(entry | {"label": "Two"}) == {"split": "grouped", "fold": [2, 5]}
