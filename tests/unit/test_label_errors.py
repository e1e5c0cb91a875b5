"""Probable label errors, in sets of images whose wrong labels are known."""

import numpy as np
import pandas as pd
import pytest

from busflow.data.label_errors import find_label_errors
from busflow.data.packing import PackedImages
from busflow.errors import BusflowError
from busflow.labels import LABELS

SIDE = 32
OF_CLASS = 20


@pytest.fixture
def rank(tmp_path):
    """Ranks pictures [N, 32, 32] with labels and groups."""

    def ranked(pictures: np.ndarray, labels: list[str], groups: list[str] | None = None) -> pd.DataFrame:
        names = [f"s/{k:03d}" for k in range(len(labels))]
        hashes = [f"{k:064x}" for k in range(len(labels))]
        np.save(tmp_path / "images.npy", np.clip(pictures, 0, 255).astype(np.uint8))
        pd.DataFrame({"pixel_sha256": hashes}).rename_axis("row").to_csv(tmp_path / "index.csv")
        images = {"image_id": names, "source": "s", "label": labels, "group": groups or names}
        packed = PackedImages(tmp_path / "images.npy", tmp_path / "index.csv")
        return find_label_errors(pd.DataFrame(images | {"pixel_sha256": hashes}), packed)

    return ranked


def made_up(noise: float = 40) -> tuple[np.ndarray, list[str]]:
    """Images of three classes, each with a pattern of its own under noise."""
    rng = np.random.default_rng(0)
    patterns = rng.integers(60, 196, (len(LABELS), SIDE, SIDE))
    truth = np.repeat(np.arange(len(LABELS)), OF_CLASS)
    return patterns[truth] + rng.normal(0, noise, (len(truth), SIDE, SIDE)), [LABELS[k] for k in truth]


def test_flipped_labels_are_found_first_and_their_true_class_is_named(rank):
    pictures, labels = made_up()
    flipped = {3: "malignant", 25: "normal", 47: "benign"}
    wrong = [flipped.get(k, label) for k, label in enumerate(labels)]
    found = rank(pictures, wrong)
    assert set(found["image_id"][:3]) == {f"s/{k:03d}" for k in flipped}
    first = found[:3].set_index("image_id")
    assert [first.loc[f"s/{k:03d}", "probable_label"] for k in flipped] == [labels[k] for k in flipped]
    assert (found["probable_label"] == found["label"])[3:].all()
    assert found["confidence"].is_monotonic_increasing and found["confidence"].between(0, 1).all()


def test_a_copy_with_another_label_outweighs_all_images_that_are_only_alike(rank):
    pictures, labels = made_up()
    pictures[30] = pictures[5] + 2  # a benign image that is in the set as a malignant one too
    found = rank(pictures, labels)
    assert set(found["image_id"][:2]) == {"s/005", "s/030"}
    nearest = found.set_index("image_id")["nearest_image_id"]
    assert nearest["s/005"] == "s/030" and nearest["s/030"] == "s/005"
    assert found["similarity"][:2].to_numpy() == pytest.approx(1, abs=1e-3)


def test_frames_of_one_video_do_not_vouch_for_each_other(rank):
    pictures, labels = made_up()
    video = list(range(5))  # all of a benign video are labelled malignant
    wrong = ["malignant" if k in video else label for k, label in enumerate(labels)]
    pictures[1:5] = pictures[0] + np.arange(1, 5)[:, None, None]
    groups = ["video" if k in video else f"g{k}" for k in range(len(labels))]
    found = rank(pictures, wrong, groups)
    assert set(found["image_id"][:5]) == {f"s/{k:03d}" for k in video}
    assert set(found["probable_label"][:5]) == {"benign"}


def test_the_similarity_is_the_correlation_with_the_named_image(rank):
    pictures, labels = made_up()
    found = rank(pictures, labels)
    flat = np.clip(pictures, 0, 255).astype(np.uint8).reshape(len(labels), -1)
    correlations = np.corrcoef(flat)
    for row in found.itertuples():
        a, b = (int(name[2:]) for name in (row.image_id, row.nearest_image_id))
        assert a != b and row.similarity == pytest.approx(correlations[a, b], abs=1e-4)


def test_an_image_with_nothing_to_compare_is_neither_confirmed_nor_suspected(rank):
    pictures, _ = made_up()
    found = rank(pictures[:3], ["benign"] * 3, ["one"] * 3)
    assert found["confidence"].to_list() == pytest.approx([1 / 3] * 3)
    assert found["probable_label"].to_list() == ["benign"] * 3 and found["similarity"].isna().all()


def test_an_image_that_was_never_packed_is_refused(tmp_path, rank):
    rank(*made_up())
    packed = PackedImages(tmp_path / "images.npy", tmp_path / "index.csv")
    row = {"image_id": "s/x", "source": "s", "label": "benign", "group": "x", "pixel_sha256": "f" * 64}
    with pytest.raises(BusflowError, match="not in the packed array"):
        find_label_errors(pd.DataFrame([row]), packed)
