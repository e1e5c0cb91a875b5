"""Segmentation metrics against torchmetrics, scikit-learn and scipy, and the refusal of bad input."""

import hashlib
import json
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from pycocotools import mask as coco_mask
from scipy import ndimage
from sklearn.metrics import confusion_matrix, f1_score, jaccard_score
from torchmetrics.functional.classification import multiclass_accuracy, multiclass_jaccard_index

from busflow.errors import BusflowError
from busflow.files import read_json, sha256, write_csv
from busflow.labels import LESIONS
from busflow.metrics.mask_geometry import hd95, surface
from busflow.metrics.resamples import read_metrics
from busflow.metrics.segmentation import confusions, evaluate, overlap, summary, two_classes
from busflow.metrics.segmentation_inputs import read_segmentations, read_truth
from busflow.metrics.uncertainty import weights

ROOT = Path(__file__).parents[2]
EXACT = {"rel": 0, "abs": 1e-9}
CLASSES = ["background", "benign", "malignant"]
VALUES = {"normal": 0, "benign": 1, "malignant": 2}


def plain(metrics):
    """What goes to metrics.json."""
    return {name: value for name, value in metrics.items() if name != "resamples"}


def rle(mask):
    code = coco_mask.encode(np.asfortranarray(mask, np.uint8))
    return {"size": list(mask.shape), "counts": code["counts"].decode()}


def entries_of(predicted):
    return [
        {"image_id": image_id, "label": label, "segmentation": rle(mask == k)}
        for image_id, mask in predicted.items()
        for k, label in enumerate(LESIONS, start=1)
    ]


def write_unit(folder, labels, true, predicted, groups=None):
    """Write what evaluate reads; labels, index masks of both kinds and groups by image_id."""
    for image_id, mask in true.items():
        path = folder / "masks" / f"{image_id}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(mask.astype(np.uint8)).save(path)
    split = pd.DataFrame({"image_id": list(labels), "split": "test", "label": list(labels.values())})
    split["group"] = split["image_id"].map(groups) if groups else split["image_id"]
    training = {"image_id": "busi/train", "split": "train", "label": "benign", "group": "train"}
    write_csv(folder / "split.csv", pd.concat([split, pd.DataFrame([training])]))
    (folder / "predictions.json").write_text(json.dumps(entries_of(predicted)))
    return [folder / "predictions.json", folder / "split.csv", folder / "masks"]


def blob(rng, shape):
    """An ellipse anywhere, cut at the border, with a ragged edge."""
    rows, columns = np.mgrid[: shape[0], : shape[1]]
    y, x = rng.uniform(0, shape)
    a, b = rng.uniform(3, 0.5 * min(shape), 2)
    return ((rows - y) / a) ** 2 + ((columns - x) / b) ** 2 < 1 + 0.3 * rng.random(shape)


def random_study(seed, n=24, labels=("benign", "malignant", "normal")):
    """Images of all sizes, two of a group; predictions from good to none, some of both classes."""
    rng = np.random.default_rng(seed)
    label_of, true, predicted = {}, {}, {}
    for i in range(n):
        label = labels[i % len(labels)]
        image_id = f"busi/{label}/{label} ({i})"
        shape = tuple(rng.integers(20, 70, 2))
        lesion = blob(rng, shape)
        lesion[0, 0] |= not lesion.any()
        label_of[image_id], true[image_id] = label, lesion * VALUES[label]
        guess = np.roll(lesion, rng.integers(-6, 7, 2), (0, 1)) if rng.random() < 0.7 else blob(rng, shape)
        classes = rng.choice([1, 2], shape) if rng.random() < 0.3 else rng.integers(0, 3)
        predicted[image_id] = guess * classes
    groups = {image_id: f"group{i // 2}" for i, image_id in enumerate(label_of)}
    return label_of, true, predicted, groups


@pytest.fixture(scope="module", params=[0, 1, 2])
def study(request, tmp_path_factory):
    labels, true, predicted, groups = random_study(request.param)
    files = write_unit(tmp_path_factory.mktemp("study"), labels, true, predicted, groups)
    return labels, true, predicted, groups, files, evaluate(*files)


def pooled(masks, two=False):
    values = np.concatenate([mask.ravel() for mask in masks.values()])
    return (values > 0).astype(int) if two else values.astype(int)


@pytest.mark.parametrize(("view", "two"), [("three_class", False), ("two_class", True)])
def test_pooled_values_are_those_of_torchmetrics_and_scikit_learn(study, view, two):
    _, true, predicted, _, _, found = study
    truth, guess = pooled(true, two), pooled(predicted, two)
    k = 2 if two else 3
    tensors = torch.from_numpy(guess), torch.from_numpy(truth)
    ours = found["views"][view]
    scores = {name: [each[name] for each in ours["per_class"].values()] for name in ("iou", "acc", "dice")}
    assert scores["iou"] == pytest.approx(jaccard_score(truth, guess, average=None), **EXACT)
    assert scores["dice"] == pytest.approx(f1_score(truth, guess, average=None), **EXACT)
    assert ours["miou"] == pytest.approx(jaccard_score(truth, guess, average="macro"), **EXACT)
    assert ours["aacc"] == pytest.approx((truth == guess).mean(), **EXACT)
    # torchmetrics computes in single precision.
    iou, accuracy = (
        function(*tensors, num_classes=k, average="none").tolist()
        for function in (multiclass_jaccard_index, multiclass_accuracy)
    )
    assert scores["iou"] == pytest.approx(iou, abs=1e-6)
    assert scores["acc"] == pytest.approx(accuracy, abs=1e-6)
    assert ours["macc"] == pytest.approx(np.mean(accuracy), abs=1e-6)


def test_the_confusion_matrix_is_that_of_scikit_learn(study):
    _, true, predicted, _, files, found = study
    assert found["confusion_matrix"] == confusion_matrix(pooled(true), pooled(predicted)).tolist()
    truth = read_truth(*files[1:])
    matrices = confusions(truth, read_segmentations(files[0], truth))
    for image_id, matrix in zip(truth["image_id"], matrices, strict=True):
        expected = confusion_matrix(true[image_id].ravel(), predicted[image_id].ravel(), labels=[0, 1, 2])
        assert matrix.tolist() == expected.tolist()


def test_values_of_each_image_are_those_of_scikit_learn(study):
    labels, true, predicted, groups, _, found = study
    assert [each["image_id"] for each in found["images"]] == sorted(labels)
    for each in found["images"]:
        truth, guess = ((masks[each["image_id"]] > 0).ravel() for masks in (true, predicted))
        assert each["dice"] == pytest.approx(f1_score(truth, guess, zero_division=1), **EXACT)
        assert each["iou"] == pytest.approx(jaccard_score(truth, guess, zero_division=1), **EXACT)
        assert each["relative_area"] == pytest.approx(truth.mean(), **EXACT)
        assert (each["label"], each["group"]) == (labels[each["image_id"]], groups[each["image_id"]])


def by_distance_transform(true, predicted):
    """HD95 on whole frames: the distance to the other surface at the pixels of each."""
    surfaces = [mask & ~ndimage.binary_erosion(mask) for mask in (true, predicted)]
    away = [ndimage.distance_transform_edt(~each) for each in surfaces]
    return max(np.percentile(away[1 - k][surfaces[k]], 95) for k in (0, 1))


def test_hd95_is_that_of_distance_transforms_of_the_whole_image(study):
    _, true, predicted, _, _, found = study
    defined = 0
    for each in found["images"]:
        pair = [masks[each["image_id"]] > 0 for masks in (true, predicted)]
        if all(mask.any() for mask in pair):
            defined += 1
            assert each["hd95_px"] == pytest.approx(by_distance_transform(*pair), **EXACT)
        else:
            assert each["hd95_px"] is None
    assert defined > 5


def test_hd95_takes_the_worse_direction_and_leaves_out_the_farthest_twentieth():
    line = np.array([[0, k] for k in range(101)])
    assert hd95(line, line) == 0
    assert hd95(line, line[:51]) == hd95(line[:51], line) == pytest.approx(45)
    outlier = np.vstack([line, [[90, 0]]])
    assert hd95(line, outlier) == 0


def test_the_surface_is_the_mask_less_its_erosion_and_counts_the_images_border():
    mask = np.zeros((30, 40), bool)
    mask[0:12, 25:40] = mask[20, 3] = True
    expected = np.argwhere(mask & ~ndimage.binary_erosion(mask))
    assert sorted(map(tuple, surface(rle(mask)))) == sorted(map(tuple, expected))
    assert [0, 30] in surface(rle(mask)).tolist()


def part_of(images, label):
    return [each for each in images if each["label"] == label]


def assert_spread(found, values, sd=True):
    assert found["n"] == len(values)
    assert found["mean"] == (pytest.approx(np.mean(values), **EXACT) if len(values) else None)
    assert found["sd"] == (pytest.approx(np.std(values, ddof=1), **EXACT) if len(values) > 1 else None)


def test_means_over_images_are_those_of_the_listed_images(study):
    _, true, predicted, _, _, found = study
    blocks = {label: part_of(found["images"], label) for label in LESIONS}
    blocks["lesion"] = blocks["benign"] + blocks["malignant"]
    for name, images in blocks.items():
        block = found["per_image"][name]
        assert block["n"] == len(images)
        assert block["n_missed"] == sum(not predicted[each["image_id"]].any() for each in images)
        for score in ("dice", "iou", "hd95_px"):
            values = [each[score] for each in images if each[score] is not None]
            assert_spread(block[score], values)
        assert block["hd95_px"]["median"] == pytest.approx(np.median(values), **EXACT)
    assert blocks["lesion"] and found["per_image"]["lesion"]["n_missed"] > 0

    normals = part_of(found["images"], "normal")
    shares = [(predicted[each["image_id"]] > 0).mean() for each in normals]
    block = found["per_image"]["normal"]
    assert (block["n"], block["false_positive_images"]) == (len(normals), np.count_nonzero(shares))
    assert_spread(block["false_positive_area"], shares)
    assert_spread(block["dice"], [float(share == 0) for share in shares])

    for k, label in enumerate(LESIONS, start=1):
        values = [
            f1_score((true[each["image_id"]] == k).ravel(), (predicted[each["image_id"]] == k).ravel())
            for each in blocks[label]
        ]
        assert_spread(found["per_image"]["class_dice"][label], values)


def test_counts_hashes_and_shares_describe_the_test_images(study):
    labels, true, _, groups, files, found = study
    ids = "\n".join(sorted(labels)).encode()
    assert found["images_sha256"] == hashlib.sha256(ids).hexdigest()
    assert found["split_sha256"] == sha256(files[1])
    assert (found["n"], found["n_groups"]) == (len(labels), len(set(groups.values())))
    assert found["n_pixels"] == sum(mask.size for mask in true.values())
    assert found["lesion_pixel_share"] == pytest.approx((pooled(true) > 0).mean(), **EXACT)
    for k, label in enumerate(CLASSES):
        block = found["views"]["three_class"]["per_class"][label]
        assert block["n_pixels"] == (pooled(true) == k).sum()
        assert block["n_images"] == sum((mask == k).any() for mask in true.values())


def test_the_identities_between_the_values_hold(study):
    found = study[-1]
    share = found["lesion_pixel_share"]
    two = found["views"]["two_class"]
    accuracy = [two["per_class"][label]["acc"] for label in ("background", "lesion")]
    assert two["aacc"] == pytest.approx((1 - share) * accuracy[0] + share * accuracy[1], **EXACT)
    for view in found["views"].values():
        classes = view["per_class"].values()
        assert view["miou"] == pytest.approx(np.mean([each["iou"] for each in classes]), **EXACT)
        assert view["macc"] == pytest.approx(np.mean([each["acc"] for each in classes]), **EXACT)
        pixels = np.array([each["n_pixels"] for each in classes])
        shares = pixels / found["n_pixels"]
        assert shares.sum() == pytest.approx(1, **EXACT)
        assert view["aacc"] == pytest.approx(shares @ [each["acc"] for each in classes], **EXACT)
        assert all(each["iou"] <= each["acc"] and each["iou"] <= each["dice"] for each in classes)
    assert two["aacc"] >= found["views"]["three_class"]["aacc"]


def test_sizes_hold_every_lesion_once_in_rising_order(study):
    found = study[-1]
    lesions = part_of(found["images"], "benign") + part_of(found["images"], "malignant")
    sizes = [found["sizes"][name] for name in ("smallest", "middle", "largest")]
    assert sum(each["n"] for each in sizes) == len(lesions)
    assert max(each["n"] for each in sizes) - min(each["n"] for each in sizes) <= 1
    for before, after in pairwise(sizes):
        assert before["bounds"][1] < after["bounds"][0]
    for each in sizes:
        low, high = each["bounds"]
        members = [lesion for lesion in lesions if low <= lesion["relative_area"] <= high]
        assert_spread(each["dice"], [member["dice"] for member in members])
        assert_spread(each["iou"], [member["iou"] for member in members])


def test_the_resamples_are_those_written_out(study):
    labels, true, predicted, groups, _, found = study
    members = {group: [each for each in sorted(labels) if groups[each] == group] for group in groups.values()}
    of_image = {each["image_id"]: each for each in found["images"]}
    names = sorted(members)
    counted = {
        each: confusion_matrix(true[each].ravel(), predicted[each].ravel(), labels=[0, 1, 2])
        for each in labels
    }
    for row in (0, 1, 500, 2000, 2001):  # all, resamples, and without the first group
        times = weights(len(names))[row].astype(int)
        drawn = [each for name, k in zip(names, times, strict=True) for each in members[name] * k]
        matrix = sum(counted[each] for each in drawn)
        two = np.array([[matrix[0, 0], matrix[0, 1:].sum()], [matrix[1:, 0].sum(), matrix[1:, 1:].sum()]])
        iou = [np.diag(m) / (m.sum(0) + m.sum(1) - np.diag(m)) for m in (matrix, two)]
        lesions = [of_image[each] for each in drawn if labels[each] != "normal"]
        distances = [each["hd95_px"] for each in lesions if each["hd95_px"] is not None]
        expected = {
            "two_class_miou": iou[1].mean(),
            "two_class_lesion_iou": iou[1][1],
            "three_class_miou": iou[0].mean(),
            "dice_mean": np.mean([each["dice"] for each in lesions]),
            "per_image.lesion.hd95_px": np.mean(distances),
        }
        values = {name: found["resamples"][name].values[row] for name in expected}
        assert values == pytest.approx(expected, **EXACT)
    low, high = found["intervals"]["two_class_miou"]
    assert low < found["views"]["two_class"]["miou"] < high


def square(shape, *boxes):
    """An index mask; boxes are (value, x, y, side)."""
    mask = np.zeros(shape, int)
    for value, x, y, side in boxes:
        mask[y : y + side, x : x + side] = value
    return mask


@pytest.fixture
def trio(tmp_path):
    """A benign, a malignant and a normal image of 30 × 40 px; predictions as given, else perfect."""
    labels = {"busi/a": "benign", "busi/b": "malignant", "busi/c": "normal"}
    true = {
        "busi/a": square((30, 40), (1, 5, 5, 10)),
        "busi/b": square((30, 40), (2, 10, 10, 20)),
        "busi/c": square((30, 40)),
    }

    def write(predicted=None, keep=tuple(labels), groups=None):
        kept = {image_id: labels[image_id] for image_id in keep}
        predicted = {image_id: true[image_id] for image_id in keep} | (predicted or {})
        return write_unit(tmp_path, kept, true, predicted, groups)

    return write


def test_a_perfect_prediction_scores_one(trio):
    found = evaluate(*trio())
    for view in found["views"].values():
        assert (view["miou"], view["aacc"], view["macc"]) == (1, 1, 1)
    assert found["per_image"]["lesion"]["dice"] == {"mean": 1, "sd": 0, "n": 2}
    assert found["per_image"]["lesion"]["hd95_px"] == {"mean": 0, "sd": 0, "n": 2, "median": 0}


def test_a_prediction_of_background_alone_is_defined(trio):
    empty = square((30, 40))
    found = evaluate(*trio({"busi/a": empty, "busi/b": empty}))
    two = found["views"]["two_class"]
    assert two["per_class"]["lesion"] == {"iou": 0, "acc": 0, "dice": 0, "n_pixels": 500, "n_images": 2}
    assert two["per_class"]["background"]["acc"] == 1
    assert two["aacc"] == pytest.approx(1 - 500 / 3600, **EXACT)
    assert two["macc"] == 0.5
    lesion = found["per_image"]["lesion"]
    assert (lesion["n"], lesion["n_missed"], lesion["dice"]["mean"]) == (2, 2, 0)
    assert lesion["hd95_px"] == {"mean": None, "sd": None, "n": 0, "median": None}
    assert found["per_image"]["normal"]["dice"]["mean"] == 1
    assert found["intervals"]["dice_mean"] is None  # of two groups
    json.dumps(plain(found), allow_nan=False)


def test_a_normal_has_dice_one_if_nothing_is_found_and_zero_otherwise(trio):
    found = evaluate(*trio())
    assert found["images"][2] == {
        "image_id": "busi/c",
        "label": "normal",
        "group": "busi/c",
        "dice": 1,
        "iou": 1,
        "hd95_px": None,
        "relative_area": 0,
    }
    found = evaluate(*trio({"busi/c": square((30, 40), (1, 0, 0, 6))}))
    normal = found["per_image"]["normal"]
    assert (normal["false_positive_images"], normal["dice"]["mean"]) == (1, 0)
    assert normal["false_positive_area"] == {"mean": 36 / 1200, "sd": None, "n": 1}


def test_a_test_set_without_normals_has_null_for_them(trio):
    found = evaluate(*trio(keep=["busi/a", "busi/b"]))
    nothing = {"mean": None, "sd": None, "n": 0}
    assert found["per_image"]["normal"] == {
        "n": 0,
        "false_positive_images": 0,
        "false_positive_area": nothing,
        "dice": nothing,
    }
    assert found["per_image"]["lesion"]["n"] == 2
    assert found["intervals"]["dice_mean"] is None


def test_a_class_that_is_neither_shown_nor_predicted_is_null_and_left_out_of_the_means(trio):
    found = evaluate(*trio({"busi/a": square((30, 40), (1, 5, 5, 5))}, keep=["busi/a", "busi/c"]))
    view = found["views"]["three_class"]
    assert view["per_class"]["malignant"] == {
        "iou": None,
        "acc": None,
        "dice": None,
        "n_pixels": 0,
        "n_images": 0,
    }
    assert view["miou"] == pytest.approx(np.mean([2300 / 2375, 0.25]), **EXACT)
    assert view["macc"] == pytest.approx(np.mean([1, 0.25]), **EXACT)
    assert found["per_image"]["malignant"]["dice"] == {"mean": None, "sd": None, "n": 0}
    assert found["per_image"]["class_dice"]["malignant"] == {"mean": None, "sd": None, "n": 0}


def test_a_class_that_is_predicted_but_not_shown_has_iou_zero_and_no_accuracy(trio):
    found = evaluate(*trio({"busi/c": square((30, 40), (2, 0, 0, 6))}, keep=["busi/a", "busi/c"]))
    malignant = found["views"]["three_class"]["per_class"]["malignant"]
    assert (malignant["iou"], malignant["acc"], malignant["dice"]) == (0, None, 0)
    assert found["views"]["three_class"]["macc"] == pytest.approx(np.mean([2264 / 2300, 1]), **EXACT)


def test_a_test_set_of_normals_alone_has_no_lesion_scores(trio):
    found = evaluate(*trio(keep=["busi/c"]))
    assert found["lesion_pixel_share"] == 0
    assert found["views"]["two_class"]["per_class"]["lesion"]["iou"] is None
    assert {each["n"] for each in found["sizes"].values()} == {0}
    assert found["sizes"]["middle"]["bounds"] == [None, None]
    assert found["sizes"]["middle"]["dice"]["mean"] is None
    json.dumps(plain(found), allow_nan=False)


def test_the_wrong_class_counts_in_two_classes_but_not_in_three(trio):
    found = evaluate(*trio({"busi/a": square((30, 40), (2, 5, 5, 10))}))
    assert found["views"]["two_class"]["miou"] == 1
    assert found["views"]["three_class"]["per_class"]["benign"]["iou"] == 0
    assert found["views"]["three_class"]["per_class"]["malignant"]["iou"] == 400 / 500
    assert found["per_image"]["benign"]["dice"]["mean"] == 1
    assert found["per_image"]["class_dice"]["benign"]["mean"] == 0


def test_a_lesion_of_exactly_32_squared_pixels_is_medium_alone(tmp_path):
    sides = {"busi/a": 31, "busi/b": 32, "busi/c": 96}
    true = {image_id: square((100, 100), (1, 0, 0, side)) for image_id, side in sides.items()}
    found = evaluate(*write_unit(tmp_path, dict.fromkeys(sides, "benign"), true, true))
    assert {size: each["n"] for size, each in found["coco_sizes"].items()} == {
        "small": 1,
        "medium": 1,
        "large": 1,
    }


def test_lesions_of_one_size_share_one_third(tmp_path):
    ids = [f"busi/{k}" for k in range(7)]
    true = dict.fromkeys(ids, square((20, 20), (1, 2, 2, 8)))
    found = evaluate(*write_unit(tmp_path, dict.fromkeys(ids, "benign"), true, true))
    assert [each["n"] for each in found["sizes"].values()] == [7, 0, 0]
    assert found["sizes"]["smallest"]["bounds"] == [0.16, 0.16]


def test_a_single_group_has_no_interval(trio):
    files = trio(groups=dict.fromkeys(("busi/a", "busi/b", "busi/c"), "one"))
    intervals = evaluate(*files)["intervals"]
    assert intervals["dice_mean"] is intervals["two_class_miou"] is None
    assert intervals["per_image"]["lesion"]["hd95_px"] is None


def test_the_order_of_the_predictions_does_not_matter(study, tmp_path):
    *_, files, found = study
    shuffled = tmp_path / "predictions.json"
    shuffled.write_text(json.dumps(read_json(files[0])[::-1]))
    assert plain(evaluate(shuffled, *files[1:])) == plain(found)


def test_two_classes_of_matrices_are_their_sums():
    matrices = np.random.default_rng(0).integers(0, 99, (4, 3, 3))
    for three, two in zip(matrices, two_classes(matrices), strict=True):
        expected = [[three[0, 0], three[0, 1:].sum()], [three[1:, 0].sum(), three[1:, 1:].sum()]]
        assert two.tolist() == [[int(each) for each in row] for row in expected]
    assert overlap(matrices)["iou"].shape == (4, 3) and summary(matrices)["miou"].shape == (4,)


def overlapping(entries):
    entries[1]["segmentation"] = entries[0]["segmentation"]


def of_another_size(entries):
    entries[0]["segmentation"] = rle(np.zeros((40, 30)))


def with_counts(counts):
    def apply(entries):
        entries[0]["segmentation"]["counts"] = counts

    return apply


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (
            lambda e: e[0].update(image_id="busi/z"),
            r"not an image of the test split \(image busi/z; 1 in all",
        ),
        (lambda e: e[0].update(label="cyst"), r"a label is not benign or malignant \(image busi/a"),
        (lambda e: e.pop(3), r"a mask of benign or malignant is missing \(image busi/b; 1 in all"),
        (lambda e: e.clear(), r"a mask of benign or malignant is missing \(image busi/a; 6 in all"),
        (lambda e: e.append(e[0]), r"an image has more than one mask of a label \(image busi/a"),
        (lambda e: e[0].pop("segmentation"), "not a list of segmentations .an entry lacks 'segmentation'"),
        (lambda e: e.append("mask"), "not a list of segmentations"),
        (lambda e: e[0].update(segmentation=[[1, 2, 3, 4]]), "a mask is not of its image's size"),
        (lambda e: e[0].update(segmentation={"counts": "`n1"}), "a mask is not of its image's size"),
        (lambda e: e[0].update(segmentation={"size": [30, 40]}), "no intact run-length code"),
        (of_another_size, r"a mask is not of its image's size \(image busi/a"),
        (with_counts(""), r"no intact run-length code \(image busi/a"),
        (with_counts("5"), "no intact run-length code"),
        (with_counts("zzzz"), "no intact run-length code"),
        (with_counts("oooooooooooooooo"), "no intact run-length code"),
        (with_counts("é"), "no intact run-length code"),
        (with_counts([100, 1100]), "no intact run-length code"),
        (with_counts(None), "no intact run-length code"),
        (overlapping, r"a pixel is both benign and malignant \(image busi/a"),
    ],
)
def test_bad_predictions_are_refused_by_name(trio, spoil, message):
    files = trio()
    entries = read_json(files[0])
    spoil(entries)
    files[0].write_text(json.dumps(entries))
    with pytest.raises(BusflowError, match=f"{message}.*predict again") as caught:
        evaluate(*files)
    assert str(files[0]) in str(caught.value)


@pytest.mark.parametrize("content", ["", '[{"image_id": "bu', '{"masks": []}', "null", "[" * 100_000])
def test_a_broken_predictions_file_is_refused(trio, content):
    files = trio()
    files[0].write_text(content)
    with pytest.raises(BusflowError, match=r"predictions\.json: not a list of segmentations.*predict again"):
        evaluate(*files)


def test_a_missing_predictions_file_names_the_remedy(trio):
    files = trio()
    files[0].unlink()
    with pytest.raises(BusflowError, match="no such file; run the rule that makes it"):
        evaluate(*files)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda path: path.unlink(), r"a\.png is no intact index mask.*run the workflow again"),
        (lambda path: path.write_bytes(path.read_bytes()[:60]), r"a\.png is no intact index mask.*damaged"),
        (
            lambda path: Image.fromarray(np.full((30, 40), 255, np.uint8)).save(path),
            "it holds the value 255, which is no class",
        ),
        (
            lambda path: Image.fromarray(np.full((30, 40), 2, np.uint8)).save(path),
            r"a mask differs from the split's label \(image busi/a",
        ),
        (
            lambda path: Image.fromarray(np.zeros((30, 40), np.uint8)).save(path),
            r"a mask differs from the split's label \(image busi/a",
        ),
    ],
)
def test_truth_that_cannot_be_scored_is_refused(trio, spoil, message):
    files = trio()
    spoil(files[2] / "busi/a.png")
    with pytest.raises(BusflowError, match=message):
        evaluate(*files)


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [("split", "train", "has no test image"), ("label", "cyst", "label is not one of benign, malignant")],
)
def test_a_split_that_cannot_be_scored_is_refused(trio, column, value, message):
    files = trio()
    pd.read_csv(files[1]).assign(**{column: value}).to_csv(files[1], index=False)
    with pytest.raises(BusflowError, match=message):
        evaluate(*files)


def test_evaluation_needs_no_torch():
    code = "import sys, busflow.metrics.segmentation; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


def test_the_script_writes_what_the_function_returns(trio, tmp_path):
    files = trio()
    arguments = [
        str(p) for pair in zip(["--predictions", "--split", "--masks"], files, strict=True) for p in pair
    ]
    output = str(tmp_path / "metrics.json")
    command = [sys.executable, "scripts/evaluate.py", "--task", "segmentation", "--output", output]
    command += ["--scores", str(tmp_path / "scores.json")]
    subprocess.run([*command, *arguments], cwd=ROOT, check=True, env={"PYTHONPATH": str(ROOT)})
    expected = evaluate(*files)
    assert read_json(output) == plain(expected)
    assert read_metrics(output)["resamples"].keys() == expected["resamples"].keys()
    failed = subprocess.run([*command, *arguments[:4]], cwd=ROOT, check=False, capture_output=True, text=True)
    assert failed.returncode == 2
    assert "task segmentation needs --masks" in failed.stderr
