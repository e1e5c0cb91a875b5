"""The leakage measurement, against brute force and against splits whose leak is known."""

import json
import runpy
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from busflow.data.packing import PackedImages
from busflow.errors import BusflowError
from busflow.metrics.leakage import PAIRS, measure_leakage

SCRIPT = Path(__file__).parents[2] / "scripts/measure_leakage.py"
NO_DUPLICATES = pd.DataFrame({"image_a": [], "image_b": []}, dtype=str)
SIDE = 32  # the side at which neighbours are compared: thumbnails are the packed images themselves


@pytest.fixture
def study(tmp_path):
    """Writes a packed array and returns (images, split, packed) for rows of
    (source, label, group, split, picture); equal pictures are equal pixels."""

    def build(rows: list[tuple], pictures: np.ndarray):
        table = pd.DataFrame(rows, columns=["source", "label", "group", "split", "picture"])
        table["image_id"] = [f"{source}/{number}" for number, source in enumerate(table["source"])]
        table["pixel_sha256"] = [f"{picture:064x}" for picture in table["picture"]]
        np.save(tmp_path / "images.npy", pictures)
        index = pd.DataFrame({"pixel_sha256": [f"{picture:064x}" for picture in range(len(pictures))]})
        index.rename_axis("row").to_csv(tmp_path / "index.csv")
        packed = PackedImages(tmp_path / "images.npy", tmp_path / "index.csv")
        return (
            table[["image_id", "source", "pixel_sha256"]],
            table[["image_id", "split", "label", "group"]],
            packed,
        )

    return build


def noise(n: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (n, SIDE, SIDE), np.uint8)


def test_each_kind_of_leak_is_counted(study):
    images, split, packed = study(
        [
            ("busi", "benign", "a", "train", 0),
            ("busi", "benign", "b", "train", 1),
            ("busi", "benign", "c", "train", 2),
            ("busi", "benign", "d", "val", 3),
            ("busi", "benign", "a", "test", 0),  # the same pixels, and the same group
            ("busi", "benign", "b", "test", 4),  # the same group
            ("busi", "benign", "e", "test", 5),  # a listed duplicate of picture 2
            ("busi", "benign", "d", "test", 6),  # its relatives are in val
        ],
        noise(7),
    )
    duplicates = pd.DataFrame({"image_a": ["busi/2", "busi/3"], "image_b": ["busi/6", "busi/7"]})
    found = measure_leakage(images, duplicates, split, packed)
    assert (found["n_train"], found["n_test"]) == (3, 4)
    assert found["exact_duplicate"] == 0.25
    assert found["near_duplicate"] == 0.5
    assert found["same_group"] == 0.5


def test_the_order_in_a_listed_pair_does_not_matter(study):
    images, split, packed = study(
        [("busi", "benign", "a", "train", 0), ("busi", "benign", "b", "test", 1)], noise(2)
    )
    for a, b in (("busi/0", "busi/1"), ("busi/1", "busi/0")):
        pair = pd.DataFrame({"image_a": [a], "image_b": [b]})
        assert measure_leakage(images, pair, split, packed)["near_duplicate"] == 1


def test_nearest_neighbour_accuracy_equals_brute_force_correlation(study):
    pictures = noise(60)
    random = np.random.default_rng(1)
    rows = [
        (
            random.choice(["lin", "busi"]),
            random.choice(["benign", "malignant"]),
            str(i),
            "test" if i < 20 else "train",
            i,
        )
        for i in range(60)
    ]
    images, split, packed = study(rows, pictures)
    found = measure_leakage(images, NO_DUPLICATES, split, packed)
    correlation = np.corrcoef(pictures.reshape(60, -1).astype(float))[:20, 20:]
    labels = split["label"].to_numpy()
    right = labels[20 + correlation.argmax(axis=1)] == labels[:20]
    assert found["nearest_neighbour_accuracy"] == pytest.approx(right.mean())
    for source, part in found["sources"].items():
        of_source = images["source"].to_numpy()[:20] == source
        assert part["nearest_neighbour_accuracy"] == pytest.approx(right[of_source].mean())


def test_neighbours_are_found_whatever_brightness_and_contrast(study):
    pictures = noise(3)
    pictures[2] = pictures[0] // 2 + 60
    rows = [
        ("lin", "benign", "a", "train", 0),
        ("lin", "malignant", "b", "train", 1),
        ("lin", "benign", "c", "test", 2),
    ]
    assert measure_leakage(*with_no_duplicates(study(rows, pictures)))["nearest_neighbour_accuracy"] == 1


def with_no_duplicates(built):
    images, split, packed = built
    return images, NO_DUPLICATES, split, packed


def test_majority_is_the_most_frequent_label_in_train_of_all_and_of_each_source(study):
    rows = [("lin", "malignant", "a", "train", 0)] * 3 + [("busi", "benign", "b", "train", 1)] * 2
    rows += [("lin", "malignant", "c", "test", 2)] + [("busi", "benign", "d", "test", 3)] * 3
    found = measure_leakage(*with_no_duplicates(study(rows, noise(4))))
    assert found["majority_accuracy"] == 0.25
    assert {name: part["majority_accuracy"] for name, part in found["sources"].items()} == {
        "busi": 1,
        "lin": 1,
    }


def test_a_share_of_nothing_is_null(study):
    rows = [("lin", "benign", "a", "train", 0), ("busi", "benign", "b", "test", 1)]
    found = measure_leakage(*with_no_duplicates(study(rows, noise(2))))["sources"]
    assert found["lin"] == {
        "n_train": 1,
        "n_test": 0,
        "n_groups": 0,
        "exact_duplicate": None,
        "near_duplicate": None,
        "same_group": None,
        "nearest_neighbour_accuracy": None,
        "nearest_neighbour": {"pixels": {"accuracy": None, "interval": None}},
        "majority_accuracy": None,
        "source_auroc": {"pixels": {"auroc": None, "interval": None}},
    }
    assert found["busi"]["n_train"] == 0 and found["busi"]["majority_accuracy"] is None


def test_a_split_without_a_test_set_is_all_null(study):
    found = measure_leakage(*with_no_duplicates(study([("lin", "benign", "a", "train", 0)], noise(1))))
    assert found["n_test"] == 0 and found["nearest_neighbour_accuracy"] is None


def test_flat_images_are_no_error(study):
    rows = [("lin", "benign", "a", "train", 0), ("lin", "benign", "b", "test", 1)]
    found = measure_leakage(*with_no_duplicates(study(rows, np.full((2, SIDE, SIDE), 7, np.uint8))))
    assert found["nearest_neighbour_accuracy"] == 1


@pytest.fixture
def scanners(study):
    """Two sources of 20 training and 12 test images each, one bright on the left, one on the right; in one of
    them three of four are malignant, in the other one of four. Features tell the labels, and nothing else."""
    rows, pictures = [], noise(64) // 4
    for k in range(64):
        source = ("busi", "lin")[k % 2]
        malignant = (k // 2 % 4 < 3) == (source == "lin")
        pictures[k, :, SIDE // 2 * (k % 2) :][:, : SIDE // 2] += 150
        rows.append(
            (source, "malignant" if malignant else "benign", str(k), "train" if k < 40 else "test", k)
        )
    images, split, packed = study(rows, pictures)
    told = (split["label"] == "malignant").to_numpy().astype(float)
    return images, NO_DUPLICATES, split, packed, np.column_stack([told, 1 - told])


def test_where_the_source_shows_it_is_recognised_and_tells_something_of_the_class(scanners):
    found = measure_leakage(*scanners)
    for part in found["sources"].values():
        assert part["source_auroc"]["pixels"]["auroc"] == 1
        low, high = part["source_auroc"]["pixels"]["interval"]
        assert 0.5 < low < high == 1
        # Features that hold the label alone tell the source only as far as the label does.
        assert part["source_auroc"]["features"]["auroc"] == pytest.approx(0.75)
    assert found["class_from_source"]["auroc"] == pytest.approx(0.75)


def test_neighbours_by_features_are_those_of_the_features(scanners):
    found = measure_leakage(*scanners)["nearest_neighbour"]
    assert found["features"]["accuracy"] == 1 and found["pixels"]["accuracy"] < 1
    low, high = found["pixels"]["interval"]
    assert low < found["pixels"]["accuracy"] < high


def test_features_of_another_array_are_refused(scanners):
    *tables, features = scanners
    with pytest.raises(BusflowError, match=r"features of 63 images for 64 packed ones; extract them again"):
        measure_leakage(*tables, features[1:])


def test_pairs_are_the_most_correlated_of_each_source_and_each_of_another_group(study):
    pictures = noise(30)
    rows = [("busi", "benign", f"g{k}", "train", k) for k in range(10)]
    rows += [("busi", "benign", f"g{k // 2}", "test", 10 + k) for k in range(20)]
    for k in range(20):
        pictures[10 + k] = pictures[k // 2] // 2 + pictures[10 + k] // (2 + k)
    found = measure_leakage(*with_no_duplicates(study(rows, pictures)))["pairs"]
    correlation = np.corrcoef(pictures.reshape(30, -1).astype(float))[10:, :10].max(axis=1)
    best = sorted(correlation.reshape(10, 2).max(axis=1), reverse=True)[:PAIRS]
    assert [pair["correlation"] for pair in found] == pytest.approx(best, abs=1e-4)
    assert len({pair["train"] for pair in found}) == PAIRS and all(pair["same_group"] for pair in found)


def test_an_image_that_the_index_lacks_is_named(study):
    rows = [("lin", "benign", "a", "train", 0), ("lin", "benign", "b", "test", 1)]
    images, split, packed = study(rows, noise(2))
    with pytest.raises(BusflowError, match=r"images.csv lacks lin/1"):
        measure_leakage(images.iloc[:1], NO_DUPLICATES, split, packed)


def test_the_script_writes_json(study, tmp_path, monkeypatch):
    rows = [("lin", "benign", "a", "train", 0), ("lin", "benign", "b", "test", 1)]
    images, split, packed = study(rows, noise(2))
    arguments = [
        "--packed-images",
        str(tmp_path / "images.npy"),
        "--packed-index",
        str(tmp_path / "index.csv"),
    ]
    for name, table in {"images": images, "duplicates": NO_DUPLICATES, "split": split}.items():
        table.to_csv(tmp_path / f"{name}_table.csv", index=False)
        arguments += [f"--{name}", str(tmp_path / f"{name}_table.csv")]
    arguments += ["--output", str(tmp_path / "leakage.json")]
    monkeypatch.setattr("sys.argv", ["measure_leakage.py", *arguments])
    runpy.run_path(SCRIPT, run_name="__main__")
    expected = measure_leakage(images, NO_DUPLICATES, split, packed)
    assert json.loads((tmp_path / "leakage.json").read_text()) == expected
