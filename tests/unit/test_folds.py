"""Folds and sources left out: every image is tested once, no group is torn, what is given is kept."""

import pandas as pd
import pytest
from test_splits import SOURCES, TABLE_1, index_of, sides_of_groups, split_of, videos

from busflow.data.folds import assign_folds
from busflow.errors import BusflowError
from busflow.protocols import Protocol

SMALL = TABLE_1 | {"lin": {"benign": 400, "malignant": 600}}


def fold(k: int, of: int = 5) -> Protocol:
    return Protocol(f"fold_{k}", "grouped", (k, of))


def without(*sources: str) -> Protocol:
    return Protocol("without", "grouped", leave_out=sources)


@pytest.mark.parametrize("task", ["classification", "segmentation"])
def test_five_folds_test_every_image_once_and_train_on_none_of_its_group(task):
    images = index_of(SMALL, 5)
    tested = []
    for k in range(1, 6):
        split, excluded = split_of(images, task, fold(k))
        assert (sides_of_groups(split) == 1).all() and excluded.empty
        assert split["split"].nunique() == 3
        tested += split.loc[split["split"] == "test", "image_id"].to_list()
    of_task = images["source"].isin(["lin", "busi", "rodrigues"] if task == "classification" else ["busi"])
    assert sorted(tested) == sorted(images.loc[of_task, "image_id"])


def test_folds_are_balanced_and_hold_out_the_usual_share_of_the_rest_for_validation():
    split, _ = split_of(index_of(SMALL, 5), "classification", fold(2))
    shares = split["split"].value_counts(normalize=True)
    assert shares["test"] == pytest.approx(1 / 5, abs=0.02)
    assert shares["val"] == pytest.approx(0.1 * 4 / 5, abs=0.02)
    whole = split["label"].value_counts(normalize=True)
    for _, part in split.groupby("split"):
        assert (part["label"].value_counts(normalize=True) - whole).abs().max() <= 0.05


def test_folds_of_detection_do_not_follow_the_upstream_lists_and_need_none():
    images = videos(train=20, val=5)
    images.loc[:9, "upstream_split"] = ""
    split, excluded = split_of(images, "detection", fold(1), annotations=images)
    assert excluded.empty and (sides_of_groups(split) == 1).all()
    upstream = images.set_index("image_id")["upstream_split"]
    assert set(upstream[split.loc[split["split"] == "test", "image_id"]]) > {"train"}


def test_the_order_of_the_index_changes_no_fold_and_the_seed_does():
    images = index_of({"busi": {"benign": 60, "malignant": 50}}, 2)
    first, _ = split_of(images, "classification", fold(1))
    again, _ = split_of(images.sample(frac=1, random_state=0), "classification", fold(1))
    other, _ = split_of(images, "classification", fold(1), seed=1)
    pd.testing.assert_frame_equal(first, again)
    assert not first.equals(other)


@pytest.mark.parametrize(("written", "first"), [("{}", 1), ("fold{}", 1), ("Fold_{}", 1), ("{}", 0)])
def test_official_folds_are_taken_and_the_rest_is_divided(written, first):
    images = index_of({"busi": {"benign": 50, "malignant": 50}, "rodrigues": {"benign": 25}})
    number = pd.Series(range(len(images))) % 5
    official = images["source"] == "busi"
    names = (number + first).map(written.format)
    images["upstream_split"] = names.where(official, "train")
    found = assign_folds(images, 5, seed=0)
    assert (found[official] == number[official] + 1).all()
    assert found[~official].value_counts().to_dict() == dict.fromkeys(range(1, 6), 5)


def test_a_group_that_official_folds_divide_goes_whole_to_the_fold_of_most_of_its_images(caplog):
    images = index_of({"busi": {"benign": 30}}, 3)
    images["upstream_split"] = [str(1 + i // 3 % 5) for i in range(30)]
    images.loc[[1, 29], "upstream_split"] = ["4", "2"]
    found = assign_folds(images, 5, seed=0)
    assert found.groupby(images["group"]).nunique().max() == 1
    assert found.loc[[0, 1, 2, 29]].to_list() == [1, 1, 1, 5]
    assert "2 images leave their official fold" in caplog.text


def test_official_folds_of_another_number_are_not_followed(caplog):
    images = index_of({"busi": {"benign": 60}})
    images["upstream_split"] = [str(1 + i % 10) for i in range(60)]
    assert set(assign_folds(images, 5, seed=0)) == {1, 2, 3, 4, 5}
    assert "busi has other official folds than 5" in caplog.text


def test_fewer_groups_than_folds_are_refused():
    with pytest.raises(BusflowError, match="4 independent groups cannot make 5 folds"):
        assign_folds(index_of({"busi": {"benign": 20}}, 5), 5, seed=0)


def test_a_source_left_out_is_tested_whole_and_the_others_are_trained_on():
    images = index_of(SMALL, 5)
    split, excluded = split_of(images, "classification", without("busi", "rodrigues"))
    source = split["image_id"].str.partition("/")[0]
    assert set(source[split["split"] == "test"]) == {"busi", "rodrigues"}
    assert set(source[split["split"] != "test"]) == {"lin"}
    assert len(split) == len(images) and excluded.empty
    assert (split["split"] == "val").sum() == pytest.approx(100, abs=10)


def test_relatives_of_the_source_left_out_are_trained_on_by_nobody_and_counted():
    images = index_of(SMALL, 5)
    relative = images.index[images["source"] == "rodrigues"][:5]
    images.loc[relative, "group"] = images.loc[images["source"] == "busi", "group"].iloc[0]
    split, excluded = split_of(images, "classification", without("busi"))
    assert excluded["image_id"].to_list() == images.loc[relative, "image_id"].to_list()
    assert set(excluded["reason"]) == {"shares its group with busi, which is left out to be tested on"}
    assert (sides_of_groups(split) == 1).all()
    assert (split["split"] == "test").sum() == sum(SMALL["busi"].values())


def quarantined(images: pd.DataFrame) -> pd.DataFrame:
    return images[["image_id"]].assign(reason="withdrawn", scope="grouped")


@pytest.mark.parametrize("left_out", [("rodrigues",), ("busi", "rodrigues")])
def test_a_protocol_one_of_whose_sources_left_out_has_no_usable_image_is_refused_by_name(left_out):
    images = index_of(SMALL, 5)
    gone = quarantined(images[images["source"] == "rodrigues"])
    said = r"^protocol without has no image of rodrigues to test classification on: none is usable; see .*csv"
    with pytest.raises(BusflowError, match=said):
        split_of(images, "classification", without(*left_out), quarantine=gone)


def test_a_source_left_out_need_not_serve_every_task():
    sources = SOURCES | {"clinic": {"tasks": ["segmentation"]}}
    images = index_of(SMALL | {"clinic": {"benign": 40, "malignant": 40}}, 2)
    split, _ = split_of(images, "segmentation", without("busi", "rodrigues"), sources=sources)
    tested = split.loc[split["split"] == "test", "image_id"].str.partition("/")[0]
    assert set(tested) == {"busi"}


def test_a_protocol_whose_fold_is_empty_is_refused_by_name():
    images = index_of({"busi": {"benign": 60, "malignant": 60}}, 6)
    images["upstream_split"] = ["2" if i % 6 == 5 else "1" for i in range(len(images))]
    split, _ = split_of(images.assign(group=images["image_id"]), "classification", fold(2, of=2))
    assert (split["split"] == "test").sum() == 20
    said = "^protocol fold_2 has no image to test classification on: fold 2 of 2 is empty; ask for fewer"
    with pytest.raises(BusflowError, match=said):
        split_of(images, "classification", fold(2, of=2))
