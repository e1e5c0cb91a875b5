"""Splits: the paper's counts to the unit, and no leak in protocol grouped."""

import json
import runpy
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from busflow.data.splits import SPLITS, make_split
from busflow.errors import BusflowError
from busflow.protocols import Protocol

SCRIPT = Path(__file__).parents[2] / "scripts/split.py"

SETTINGS = {"seed": 1337, "balance_tolerance": 0.05}
SOURCES = {
    "lin": {"tasks": ["classification", "detection"]},
    "busi": {"tasks": ["classification", "segmentation"]},
    "rodrigues": {"tasks": ["classification"]},
}
TABLE_1 = {
    "lin": {"benign": 9932, "malignant": 15475},
    "busi": {"benign": 437, "malignant": 210, "normal": 133},
    "rodrigues": {"benign": 100, "malignant": 150},
}
NO_ANNOTATIONS = pd.DataFrame({"image_id": []}, dtype=str)
NO_QUARANTINE = pd.DataFrame({"image_id": [], "reason": [], "scope": []}, dtype=str)


def index_of(counts: dict[str, dict[str, int]], group_size: int = 1) -> pd.DataFrame:
    """An index with ``counts[source][label]`` images in groups of ``group_size``."""
    rows = [
        (f"{source}/{label}/{i:05}", source, label, f"{source}/{label}/{i // group_size:05}", "")
        for source, labels in counts.items()
        for label, n in labels.items()
        for i in range(n)
    ]
    return pd.DataFrame(rows, columns=["image_id", "source", "label", "group", "upstream_split"])


def split_of(
    images,
    task,
    protocol,
    *,
    annotations=NO_ANNOTATIONS,
    quarantine=NO_QUARANTINE,
    sources=SOURCES,
    **changed,
):
    return make_split(
        images,
        annotations,
        quarantine,
        task=task,
        protocol=Protocol(protocol, protocol) if isinstance(protocol, str) else protocol,
        splits=SETTINGS | changed,
        sources=sources,
    )


def videos(train: int, val: int, frames: int = 10) -> pd.DataFrame:
    """Lin-like frames, as many benign as malignant videos in either upstream list."""
    images = pd.concat(
        index_of({"lin": {"benign": n * frames, "malignant": n * frames}}, frames).assign(
            upstream_split=name,
            image_id=lambda t, name=name: t["image_id"] + name,
            group=lambda t, name=name: t["group"] + name,
        )
        for name, n in (("train", train), ("val", val))
    )
    return images.reset_index(drop=True)


def counts(split: pd.DataFrame) -> dict[str, list[int]]:
    table = pd.crosstab(split["split"], split["label"])
    return {name: table.loc[name].to_list() for name in SPLITS}


def sides_of_groups(split: pd.DataFrame) -> pd.Series:
    return split.groupby("group")["split"].nunique()


def test_paper_classification_has_the_counts_of_table_2():
    split, excluded = split_of(index_of(TABLE_1), "classification", "paper")
    assert counts(split) == {"train": [8375, 12668, 106], "val": [1046, 1583, 13], "test": [1048, 1584, 14]}
    assert excluded.empty


def test_paper_segmentation_has_the_counts_of_table_4():
    split, _ = split_of(index_of(TABLE_1), "segmentation", "paper")
    assert counts(split) == {"train": [280, 134, 85], "val": [70, 34, 21], "test": [87, 42, 27]}


def test_paper_detection_tests_on_upstream_val_and_validates_on_a_twentieth_of_upstream_train_rounded_up():
    images = videos(train=7, val=2)
    split, _ = split_of(images, "detection", "paper", annotations=images)
    sides = split.set_index("image_id")["split"]
    upstream = images.set_index("image_id")["upstream_split"]
    assert (upstream[sides.index[sides == "test"]] == "val").all() and (sides == "test").sum() == 40
    assert (sides == "val").sum() == 7  # 140 frames
    assert (sides == "train").sum() == 133


@pytest.mark.parametrize("protocol", ["paper", "grouped"])
def test_detection_on_sources_without_upstream_lists_is_tested_on_a_fifth(protocol):
    images = index_of({"clinic": {"benign": 60, "malignant": 40}})
    sources = {"clinic": {"tasks": ["detection"]}}
    split, excluded = split_of(images, "detection", protocol, annotations=images, sources=sources)
    assert counts(split)["test"][:2] == [12, 8] and len(split) == 100 and excluded.empty
    assert split["split"].value_counts()["val"] in (4, 5)  # a twentieth of the rest, or nearly


def test_detection_leaves_out_frames_without_annotation_or_upstream_list_and_says_why():
    images = videos(train=7, val=2)
    images.loc[0, "upstream_split"] = ""
    split, excluded = split_of(images, "detection", "paper", annotations=images.drop(index=1))
    assert excluded.set_index("image_id")["reason"].to_dict() == {
        images.loc[0, "image_id"]: "is in neither of the upstream train and val lists",
        images.loc[1, "image_id"]: "has no annotated lesion",
    }
    assert len(split) == len(images) - 2


def test_paper_keeps_what_is_quarantined_for_grouped_only():
    images = index_of({"busi": {"benign": 30, "malignant": 30}})
    quarantine = pd.DataFrame(
        [
            ("busi/benign/00003", "is identical to a malignant image", "grouped"),
            ("", "cannot be decoded", "all"),
        ],
        columns=["image_id", "reason", "scope"],
    )
    paper, _ = split_of(images, "classification", "paper", quarantine=quarantine)
    grouped, excluded = split_of(images, "classification", "grouped", quarantine=quarantine)
    assert "busi/benign/00003" in set(paper["image_id"])
    assert "busi/benign/00003" not in set(grouped["image_id"])
    assert excluded.to_dict("records") == [
        {
            "image_id": "busi/benign/00003",
            "label": "benign",
            "group": "busi/benign/00003",
            "reason": "is identical to a malignant image",
        }
    ]


def test_grouped_uses_labels_corrected_by_the_erratum_and_paper_the_upstream_ones():
    images = index_of({"lin": {"benign": 40, "malignant": 40}})
    images["image_id"] = [f"lin/{label}/video{i // 2}/{i:06}" for i, label in enumerate(images["label"])]
    images["group"] = images["image_id"].str.rsplit("/", n=1).str[0]
    sources = {"lin": {"tasks": ["classification"], "errata": {"relabel": {"benign/video0": "malignant"}}}}
    relabelled = ["lin/benign/video0/000000", "lin/benign/video0/000001"]
    paper, _ = split_of(images, "classification", "paper", sources=sources)
    grouped, _ = split_of(images, "classification", "grouped", sources=sources)
    assert set(paper.set_index("image_id").loc[relabelled, "label"]) == {"benign"}
    assert set(grouped.set_index("image_id").loc[relabelled, "label"]) == {"malignant"}


@pytest.mark.parametrize(
    ("task", "ratios"), [("classification", (0.8, 0.1, 0.1)), ("segmentation", (0.64, 0.16, 0.2))]
)
def test_grouped_keeps_ratios_and_the_share_of_every_class(task, ratios):
    split, _ = split_of(index_of(TABLE_1 | {"lin": {"benign": 900, "malignant": 1500}}, 5), task, "grouped")
    assert (sides_of_groups(split) == 1).all()
    whole = split["label"].value_counts(normalize=True)
    for name, ratio in zip(SPLITS, ratios, strict=True):
        part = split[split["split"] == name]
        assert len(part) / len(split) == pytest.approx(ratio, abs=0.02)
        assert (part["label"].value_counts(normalize=True) - whole).abs().max() <= 0.05


def test_grouped_detection_excludes_the_training_frames_of_groups_that_reach_into_the_test_set():
    images = videos(train=40, val=4)
    group = images.loc[images["upstream_split"] == "val", "group"].iloc[0]
    partner = images.loc[images["upstream_split"] == "train", "group"].iloc[0]
    images["group"] = images["group"].replace(partner, group)
    split, excluded = split_of(images, "detection", "grouped", annotations=images)
    assert (sides_of_groups(split) == 1).all()
    assert len(excluded) == 10 and set(excluded["group"]) == {group}
    assert set(excluded["reason"]) == {"shares its group with the upstream val list, which is the test set"}
    upstream = images.loc[images["upstream_split"] == "val", "image_id"]
    assert set(split.loc[split["split"] == "test", "image_id"]) == set(upstream)
    assert split.loc[split["split"] == "val", "group"].nunique() == 4  # of 79 training videos: a twentieth


def test_groups_too_large_for_their_share_are_balanced_by_taking_more_of_them():
    # A twentieth of 40 benign and 80 malignant frames is 2 and 4, but a video has 5.
    images = index_of({"lin": {"benign": 50, "malignant": 100}}, 5)
    number = images["group"].str[-5:].astype(int)
    images["upstream_split"] = (number % 5 == 0).map({True: "val", False: "train"})
    split, _ = split_of(images, "detection", "grouped", annotations=images)
    assert counts(split)["val"] == [5, 10]


def test_images_of_one_group_with_different_labels_keep_them_and_stay_together():
    images = index_of({"busi": {"benign": 40, "normal": 40}})
    images.loc[images["image_id"] == "busi/normal/00000", "group"] = "busi/benign/00000"
    split, _ = split_of(images, "classification", "grouped")
    together = split[split["group"] == "busi/benign/00000"]
    assert set(together["label"]) == {"benign", "normal"} and together["split"].nunique() == 1


@pytest.mark.parametrize("protocol", ["paper", "grouped"])
@pytest.mark.parametrize("task", ["classification", "segmentation"])
def test_the_order_of_the_index_does_not_matter(protocol, task):
    images = index_of({"busi": {"benign": 60, "malignant": 50}, "rodrigues": {"benign": 20}}, 2)
    first, _ = split_of(images, task, protocol)
    second, _ = split_of(images.sample(frac=1, random_state=0), task, protocol)
    pd.testing.assert_frame_equal(first, second)


def test_another_seed_gives_another_split():
    images = index_of({"busi": {"benign": 60, "malignant": 50}})
    first, _ = split_of(images, "classification", "grouped")
    second, _ = split_of(images, "classification", "grouped", seed=1)
    assert not first.equals(second)


def test_a_class_absent_from_the_index_is_absent_from_the_split():
    split, _ = split_of(index_of({"rodrigues": {"benign": 50, "malignant": 50}}), "classification", "grouped")
    assert set(split["label"]) == {"benign", "malignant"}


labels_with_groups = st.fixed_dictionaries(
    {
        label: st.lists(st.integers(1, 6), min_size=3, max_size=12)
        for label in ("benign", "malignant", "normal")
    }
)


def index_of_groups(sizes: dict[str, list[int]]) -> pd.DataFrame:
    """Groups of the given sizes, alternately of two sources."""
    rows = [
        (f"{source}/{label}/{group}/{i}", source, label, f"{source}/{label}/{group}", "")
        for label, groups in sizes.items()
        for group, size in enumerate(groups)
        for source in [("busi", "rodrigues")[group % 2]]
        for i in range(size)
    ]
    return pd.DataFrame(rows, columns=["image_id", "source", "label", "group", "upstream_split"])


@settings(max_examples=25)
@given(labels_with_groups, st.integers(0, 3))
def test_grouped_is_a_partition_with_every_class_on_every_side(sizes, seed):
    images = index_of_groups(sizes)
    split, excluded = split_of(images, "classification", "grouped", seed=seed, balance_tolerance=1)
    assert split["image_id"].to_list() == sorted(images["image_id"]) and excluded.empty
    assert (sides_of_groups(split) == 1).all()
    assert (split.groupby("split")["label"].nunique() == 3).all() and split["split"].nunique() == 3


@settings(max_examples=50)
@given(st.fixed_dictionaries({label: st.integers(10, 200) for label in ("benign", "malignant", "normal")}))
def test_paper_classification_is_a_partition_into_floor_floor_rest(sizes):
    images = index_of({"busi": sizes})
    split, _ = split_of(images, "classification", "paper")
    assert split["image_id"].to_list() == sorted(images["image_id"])
    for label, n in sizes.items():
        found = split.loc[split["label"] == label, "split"].value_counts().to_dict()
        assert found == {"train": int(0.8 * n), "val": n // 10, "test": n - int(0.8 * n) - n // 10}


@pytest.mark.parametrize(("task", "protocol"), [("regression", "paper"), ("classification", "stratified")])
def test_an_unknown_task_or_split_is_named(task, protocol):
    with pytest.raises(BusflowError, match=rf"no split {protocol} of {task}: splits are paper, grouped"):
        split_of(index_of(TABLE_1), task, protocol)


def test_a_doubled_image_is_named():
    images = index_of({"busi": {"benign": 30}})
    with pytest.raises(BusflowError, match="lists busi/benign/00004 more than once"):
        split_of(pd.concat([images, images.iloc[[4]]]), "classification", "paper")


@pytest.mark.parametrize("column", ["image_id", "label", "group"])
def test_a_row_without_id_label_or_group_is_refused(column):
    images = index_of({"busi": {"benign": 30}})
    images.loc[7, column] = ""
    with pytest.raises(BusflowError, match=f"a row without {column}"):
        split_of(images, "classification", "paper")


def test_an_annotation_of_a_missing_image_is_named():
    images = videos(train=7, val=2)
    with pytest.raises(
        BusflowError, match=r"annotations.csv names lin/benign/00000train, which images.csv lacks"
    ):
        split_of(images.iloc[1:], "detection", "paper", annotations=images)


def test_a_task_without_images_is_refused():
    with pytest.raises(BusflowError, match=r"no image is left for segmentation: check sources.<id>.tasks"):
        split_of(index_of({"rodrigues": {"benign": 30}}), "segmentation", "paper")


def test_an_empty_split_is_refused():
    with pytest.raises(BusflowError, match="split val of paper/classification is empty"):
        split_of(index_of({"busi": {"benign": 9}}), "classification", "paper")


def test_too_few_images_for_a_stratified_paper_split_are_refused():
    with pytest.raises(BusflowError, match="31 images cannot be divided by the paper's rule"):
        split_of(index_of({"busi": {"benign": 30, "normal": 1}}), "segmentation", "paper")


def test_a_class_with_fewer_groups_than_splits_is_named():
    images = index_of({"busi": {"benign": 30, "normal": 10}}, 5)
    with pytest.raises(
        BusflowError, match="class normal has 2 independent groups where protocol grouped needs 3"
    ):
        split_of(images, "classification", "grouped")


def test_groups_that_mix_classes_beyond_division_are_refused():
    # Three groups a class, so one for each split: c and d need the same side, and different ones.
    groups = {"benign": "abc", "malignant": "abd", "normal": "cde"}
    rows = [
        (f"busi/{label}/{group}", "busi", label, group, "") for label in groups for group in groups[label]
    ]
    images = pd.DataFrame(rows, columns=["image_id", "source", "label", "group", "upstream_split"])
    with pytest.raises(BusflowError, match="no division with every class on every side"):
        split_of(images, "classification", "grouped", balance_tolerance=1)


@pytest.mark.parametrize("protocol", ["paper", "grouped"])
@pytest.mark.parametrize("present", ["train", "val"])
def test_detection_without_an_upstream_train_or_val_list_is_refused(protocol, present):
    images = videos(train=20, val=20)
    images = images[images["upstream_split"] == present]
    with pytest.raises(BusflowError, match="needs images of both upstream lists, train and val"):
        split_of(images, "detection", protocol, annotations=images)


def test_groups_that_cannot_be_balanced_are_refused_with_counts_and_the_key_to_change():
    images = index_of_groups({"benign": [100, 10, 10], "malignant": [40, 40, 40]})
    with pytest.raises(BusflowError, match=r"'benign': 100.*raise splits.balance_tolerance \(now 0.05\)"):
        split_of(images, "classification", "grouped")
    split, _ = split_of(images, "classification", "grouped", balance_tolerance=0.5)
    assert (sides_of_groups(split) == 1).all()


def test_the_script_writes_both_tables(tmp_path, monkeypatch):
    images = index_of({"busi": {"benign": 40, "normal": 30}}, 2)
    tables = {"images": images, "annotations": NO_ANNOTATIONS, "quarantine": NO_QUARANTINE}
    arguments = ["--protocol", "grouped", "--task", "segmentation"]
    for name, table in tables.items():
        table.to_csv(tmp_path / f"{name}.csv", index=False)
        arguments += [f"--{name}", str(tmp_path / f"{name}.csv")]
    settings = {"protocol": {"split": "grouped"}, "splits": SETTINGS, "sources": SOURCES}
    arguments += ["--settings", json.dumps(settings)]
    arguments += ["--output", str(tmp_path / "split.csv"), "--excluded", str(tmp_path / "excluded.csv")]
    monkeypatch.setattr("sys.argv", ["split.py", *arguments])
    (tmp_path / ".split.csv.abcd1234.csv").write_text("what a killed run left")
    runpy.run_path(SCRIPT, run_name="__main__")
    assert list(tmp_path.glob(".*")) == []
    expected, _ = split_of(images, "segmentation", "grouped")
    pd.testing.assert_frame_equal(pd.read_csv(tmp_path / "split.csv", dtype=str), expected)
    assert (tmp_path / "excluded.csv").read_text() == "image_id,label,group,reason\n"


def boxes_of(images: pd.DataFrame) -> pd.DataFrame:
    return pd.DataFrame({"annotation_id": images["image_id"] + "#1", "image_id": images["image_id"]})


def detection_split_of(images: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    return make_split(
        images,
        boxes_of(images),
        NO_QUARANTINE,
        task="detection",
        protocol=Protocol("grouped", split="grouped"),
        splits={"seed": 0, "balance_tolerance": 0.1},
        sources={name: {"tasks": ["detection"]} for name in ("busi", "rodrigues")},
    )


def test_detection_without_upstream_lists_divides_groups_as_the_other_tasks_do():
    images = index_of_groups({"benign": [2] * 20, "malignant": [2] * 20})
    split, excluded = detection_split_of(images)
    assert excluded.empty and (sides_of_groups(split) == 1).all()
    shares = split["split"].value_counts(normalize=True)
    assert shares["test"] == pytest.approx(0.2, abs=0.05) and 0 < shares["val"] < 0.15


def test_a_source_without_lists_is_trained_on_beside_one_whose_list_is_the_test_set():
    images = index_of_groups({"benign": [1] * 60, "malignant": [1] * 60})
    listed = images["source"] == "busi"
    images.loc[listed, "upstream_split"] = ["train", "train", "val"] * (listed.sum() // 3)
    split, _ = detection_split_of(images)
    tested = set(split.loc[split["split"] == "test", "image_id"])
    assert tested == set(images.loc[images["upstream_split"] == "val", "image_id"])
    assert set(images.loc[~listed, "image_id"]) <= set(split["image_id"]) - tested
