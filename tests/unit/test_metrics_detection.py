"""Detection metrics against pycocotools, scikit-learn and brute force, and the refusal of bad input."""

import contextlib
import io
import itertools
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from detection_files import BOX, HEIGHT, WIDTH, make_detections, make_truth, write_unit
from pycocotools import mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from sklearn.metrics import average_precision_score

from busflow.errors import BusflowError
from busflow.files import read_json
from busflow.labels import LESIONS
from busflow.metrics import coco
from busflow.metrics.detection import BINS, evaluate, rank_classes, relative_thirds
from busflow.metrics.detection_inputs import Truth, read_detections, read_truth
from busflow.metrics.froc import RATES, froc
from busflow.metrics.matching import assign, average_precision, overlaps
from busflow.metrics.resamples import read_metrics
from busflow.metrics.uncertainty import weights

ROOT = Path(__file__).parents[2]
EXACT = {"rel": 0, "abs": 1e-12}
WHOLE = {coco.ALL: (0, coco.UNBOUNDED)}


def plain(metrics):
    """What goes to metrics.json."""
    return {name: value for name, value in metrics.items() if name != "resamples"}


def read(files):
    truth = read_truth(*files[1:])
    return truth, read_detections(files[0], truth)


@pytest.fixture(scope="module")
def crowd(tmp_path_factory):
    """Twenty images of up to four lesions and 260 boxes, many scores equal; two without lesion."""
    rng = np.random.default_rng(3)
    split, images, _ = make_truth(videos=5)
    boxes = []
    for image_id in split["image_id"][2:]:
        for k in range(rng.integers(1, 5)):
            size = rng.choice([6, 14, 28, 60]) * rng.uniform(0.8, 1.2, 2)
            box = [*rng.uniform(0, (WIDTH, HEIGHT) - size), *size]
            boxes.append((f"{image_id}#{k}", image_id, "benign", *box))
    annotations = pd.DataFrame(boxes, columns=["annotation_id", "image_id", "label", *BOX])
    found = []
    for image_id, part in annotations.groupby("image_id"):
        near = part[BOX].to_numpy()[rng.integers(0, len(part), rng.integers(0, 200))]
        near = np.maximum(near + rng.normal(0, 4, near.shape), 0)
        away = rng.uniform(0, 60, (rng.integers(0, 60), 4))
        for box in [*near, *away]:
            label, score = str(rng.choice(LESIONS)), round(float(rng.random()), 2)
            found.append({"image_id": image_id, "label": label, "bbox": box.tolist(), "score": score})
    found = [entry for entry in found if entry["image_id"] in set(split.query("split == 'test'")["image_id"])]
    found.append({"image_id": split["image_id"][0], "label": "benign", "bbox": [1, 1, 9, 9], "score": 0.99})
    return read(write_unit(tmp_path_factory.mktemp("crowd"), split, images, annotations, found))


def by_pycocotools(truth, detections, ranges, limits, ious, column="area"):
    """Its precision and recall arrays, from nothing but the two tables."""
    category = {label: k for k, label in enumerate(LESIONS, 1)}

    def dictionaries(boxes):
        return [
            {"id": k, "image_id": int(row.image) + 1, "category_id": category[row.label], "iscrowd": 0}
            | {"bbox": [row.x, row.y, row.w, row.h], "area": getattr(row, column)}
            | {"score": getattr(row, "score", 1)}
            for k, row in enumerate(boxes.itertuples(), 1)
        ]

    with contextlib.redirect_stdout(io.StringIO()):
        pair = COCO(), COCO()
        for each, boxes in zip(pair, (truth.boxes, detections), strict=True):
            each.dataset = {
                "images": [{"id": image + 1} for image in range(len(truth.images))],
                "categories": [{"id": k, "name": label} for label, k in category.items()],
                "annotations": dictionaries(boxes),
            }
            each.createIndex()
        reference = COCOeval(*pair, "bbox")
        reference.params.areaRng, reference.params.areaRngLbl = list(ranges.values()), list(ranges)
        reference.params.maxDets, reference.params.iouThrs = limits, np.array(ious)
        reference.evaluate()
        reference.accumulate()
    return reference.eval


def mean(values):
    return values[values > -1].mean() if (values > -1).any() else None


def test_every_coco_value_is_that_of_pycocotools(crowd):
    truth, detections = crowd
    ranges = WHOLE | BINS["coco"]
    ours = coco.evaluate(truth.boxes, detections, {"area": ranges})["area"]
    reference = by_pycocotools(truth, detections, ranges, [1, 10, 100], coco.IOUS)
    precision, recall = reference["precision"], reference["recall"]
    assert ours.ap() == pytest.approx(mean(precision[:, :, :, 0, 2]), **EXACT)
    assert ours.ap(0.5) == pytest.approx(mean(precision[0, :, :, 0, 2]), **EXACT)
    assert ours.ap(0.75) == pytest.approx(mean(precision[5, :, :, 0, 2]), **EXACT)
    for k, limit in enumerate((1, 10, 100)):
        assert ours.ar(limit=limit) == pytest.approx(mean(recall[:, :, 0, k]), **EXACT)
    for k, label in enumerate(LESIONS):
        assert ours.ap(label=label) == pytest.approx(mean(precision[:, :, k, 0, 2]), **EXACT)
        assert ours.curve(label) == pytest.approx(precision[0, :, k, 0, 2], **EXACT)
        for a, size in enumerate(BINS["coco"], 1):
            expected = mean(precision[:, :, k, a, 2])
            assert ours.ap(label=label, area=size) == (expected and pytest.approx(expected, **EXACT))


def test_the_aitod_values_are_those_of_pycocotools_with_their_bins_and_limit(crowd, tmp_path):
    truth, detections = crowd
    ours = coco.evaluate(truth.boxes, detections, {"area": WHOLE | BINS["aitod"]})
    ranges = WHOLE | BINS["aitod"]
    reference = by_pycocotools(truth, detections, ranges, [1500], [0.25, *coco.IOUS])["precision"]
    assert detections.groupby(["image", "label"]).size().max() > 100
    assert ours["area"].ap(0.25, limit=1500) == pytest.approx(mean(reference[0, :, :, 0]), **EXACT)
    assert ours["area"].ap(limit=1500) == pytest.approx(mean(reference[1:, :, :, 0]), **EXACT)
    for a, size in enumerate(BINS["aitod"], 1):
        assert ours["area"].ap(area=size, limit=1500) == pytest.approx(mean(reference[1:, :, :, a]), **EXACT)


def test_relative_sizes_are_shares_of_the_image(crowd):
    truth, detections = crowd
    thirds = relative_thirds(truth.boxes)
    ours = coco.evaluate(truth.boxes, detections, {"relative_area": thirds})["relative_area"]
    reference = by_pycocotools(truth, detections, thirds, [100], coco.IOUS, "relative_area")["precision"]
    for a, third in enumerate(thirds):
        assert ours.ap(area=third) == pytest.approx(mean(reference[:, :, :, a]), **EXACT)
    assert truth.boxes["relative_area"].max() < 1


def test_thirds_hold_every_box_once_and_are_about_equal(crowd):
    boxes = crowd[0].boxes
    counts = [coco.count(boxes, bounds, "relative_area") for bounds in relative_thirds(boxes).values()]
    assert sum(counts) == len(boxes)
    assert max(counts) - min(counts) <= 1


def test_boxes_of_one_size_fall_into_one_third():
    boxes = pd.DataFrame({"relative_area": [0.25] * 7})
    counts = [coco.count(boxes, bounds, "relative_area") for bounds in relative_thirds(boxes).values()]
    assert counts == [7, 0, 0]


def test_overlaps_are_those_of_pycocotools(crowd):
    truth, detections = crowd
    pairs = overlaps(truth.boxes, detections, 0.3)
    expected = {}
    for image in truth.boxes["image"].unique():
        lesions, boxes = (t[t["image"] == image] for t in (truth.boxes, detections))
        if len(boxes):
            iou = mask.iou(boxes[BOX].values.tolist(), lesions[BOX].values.tolist(), [0] * len(lesions))
            for i, j in np.argwhere(iou >= 0.3):
                expected[boxes.index[i], lesions.index[j]] = iou[i, j]
    found = {(row.detection, row.lesion): row.iou for row in pairs.itertuples()}
    assert found == pytest.approx(expected)


def test_a_box_takes_the_one_free_lesion_that_it_overlaps_most():
    lesions = pd.DataFrame({"image": 0, "x": [20, 28], "y": 0, "w": 40, "h": 40})
    boxes = pd.DataFrame(
        {"image": 0, "x": [26, 8], "y": 0, "w": 40, "h": 40}
    )  # the second: of the first alone
    assert assign(overlaps(lesions, boxes, 0.5), 0.5)[0].tolist() == [0, 1]
    assert assign(overlaps(lesions, boxes.assign(x=[26, 50]), 0.5), 0.5)[0].tolist() == [0]


def copied(truth, detections, times):
    """The tables of a test set that has the images of group g ``times[g]`` times."""
    groups = np.unique(truth.images["group"])
    copies = pd.Series(times, groups)[truth.images["group"]].to_numpy()
    source = np.repeat(np.arange(len(copies)), copies)
    place = pd.DataFrame({"image": source, "copy": np.arange(len(source))})

    def again(table):
        return (
            table.merge(place, on="image")
            .assign(image=lambda t: t.pop("copy"))
            .sort_values("image", kind="stable")
        )

    images = truth.images.iloc[source].reset_index(drop=True)
    return Truth(images, again(truth.boxes).reset_index(drop=True)), again(detections).reset_index(drop=True)


@pytest.mark.parametrize("times", [(1, 1, 1, 1, 1), (1, 0, 1, 0, 1), (3, 0, 2, 1, 4)])
def test_weights_give_what_pycocotools_gives_of_images_copied_so_often(crowd, times):
    truth, detections = crowd
    rng = np.random.default_rng(0)
    detections = detections.assign(score=rng.permutation(len(detections)) / len(detections))
    detections = detections.sort_values(["image", "score"], ascending=[True, False], ignore_index=True)
    precision = by_pycocotools(*copied(truth, detections, times), WHOLE, [1, 10, 100], coco.IOUS)["precision"]
    for k, label in enumerate(LESIONS):
        for i, ranking in enumerate(rank_classes(truth, detections)[label]):
            found = average_precision(ranking, np.array([times], float))[0]
            expected = mean(precision[i, :, k, 0, 2])
            assert np.isnan(found) if expected is None else found == pytest.approx(expected, abs=1e-7)


def test_boxes_of_one_score_count_together_however_often_their_images_are_copied(crowd):
    truth, detections = crowd
    assert detections["score"].duplicated().any()
    times = (3, 0, 2, 1, 4)
    literally = rank_classes(*copied(truth, detections, times))["benign"]
    for ranking, other in zip(rank_classes(truth, detections)["benign"], literally, strict=True):
        alone = np.ones((1, len(other.lesions)))
        weighted = average_precision(ranking, np.array([times], float))
        assert weighted == pytest.approx(average_precision(other, alone), abs=1e-12)


def test_with_ties_average_precision_is_the_least_that_any_order_of_the_images_gives():
    box = {"x": 0, "y": 0, "w": 9, "h": 9, "label": "benign", "area": 81, "relative_area": 0.1}
    lesions = pd.DataFrame([box | {"image": image} for image in range(5)])
    boxes = lesions.assign(score=[0.9, 0.9, 0.9, 0.5, 0.5], x=[0, 50, 0, 50, 0])  # x = 50: of nothing
    images = pd.DataFrame({"image_id": list("abcde"), "group": list("abcde")})
    found = average_precision(rank_classes(Truth(images, lesions), boxes)["benign"][0], np.ones((1, 5)))[0]
    values = []
    for order in itertools.permutations(range(5)):
        place = pd.Series(order)
        moved = [each.assign(image=place[each["image"]].to_numpy()) for each in (lesions, boxes)]
        moved = [each.sort_values("image", ignore_index=True) for each in moved]
        values.append(
            mean(by_pycocotools(Truth(images, moved[0]), moved[1], WHOLE, [1, 10, 100], [0.5])["precision"])
        )
    assert max(values) > min(values) + 0.05
    assert found == pytest.approx(min(values), abs=1e-7)


def test_a_third_of_the_lesions_by_size_has_the_average_precision_of_coco(crowd):
    truth, detections = crowd
    detections = detections.assign(score=np.linspace(1, 0, len(detections)))  # no ties
    thirds = relative_thirds(truth.boxes)
    reference = coco.evaluate(truth.boxes, detections, {"relative_area": thirds})["relative_area"]
    for third, bounds in thirds.items():
        rankings = rank_classes(truth, detections, bounds)
        for label in LESIONS:
            for iou, ranking in zip(coco.IOUS, rankings[label], strict=True):
                found = average_precision(ranking, np.ones((1, len(ranking.lesions))))[0]
                expected = reference.ap(iou, label, area=third)
                assert np.isnan(found) if expected is None else found == pytest.approx(expected, abs=1e-7)


def test_a_group_drawn_twice_counts_twice():
    """Two groups: the lesion of one is hit first, that of the other never."""
    box = {"x": 0, "y": 0, "w": 9, "h": 9}
    box |= {"relative_area": 0.1}
    lesions = pd.DataFrame([box | {"image": image, "label": "benign"} for image in (0, 1)])
    detections = lesions.assign(label=["benign", "malignant"], score=[0.9, 0.8])
    images = pd.DataFrame({"image_id": ["a/1", "b/1"], "group": ["a", "b"]})
    ranking = rank_classes(Truth(images, lesions), detections)["benign"][0]
    found = average_precision(ranking, np.array([[1, 1], [2, 1], [0, 1], [3, 0], [0, 0]], float))
    assert found == pytest.approx([51 / 101, 67 / 101, 0, 1, np.nan], nan_ok=True)


def test_the_area_under_the_pr_curve_is_that_of_scikit_learn(tmp_path):
    split, images, annotations = make_truth()
    entries = make_detections(split, annotations)
    for k, each in enumerate(entries):  # no two scores equal
        each["score"] = (each["score"] + k / 1000) / 2
    files = write_unit(tmp_path, split, images, annotations, entries)
    truth, detections = read(files)
    per_class = evaluate(*files)["per_class"]
    for label in LESIONS:
        boxes = detections[detections["label"] == label].sort_values("score", ascending=False)
        lesions = truth.boxes[truth.boxes["label"] == label].set_index("image")[BOX]  # one an image
        free, right = set(lesions.index), []
        for box in boxes.itertuples():
            hit = (
                box.image in free
                and mask.iou([list(box[2:6])], [lesions.loc[box.image].tolist()], [0]) >= 0.5
            )
            right.append(bool(hit))
            free -= {box.image} if hit else set()
        share = sum(right) / len(lesions)
        assert 0 < share < 1
        expected = average_precision_score(right, boxes["score"]) * share
        assert per_class[label]["auc_pr"] == pytest.approx(expected)


def test_froc_is_the_best_threshold_found_by_trying_all(crowd):
    truth, detections = crowd
    found = froc(truth, detections)
    pairs = overlaps(truth.boxes, detections, 0.5)
    for rate, sensitivity, of_videos in zip(
        RATES, found["lesions"]["sensitivity"], found["videos"]["sensitivity"], strict=True
    ):
        best, best_videos = 0, 0
        for threshold in [*detections["score"].unique(), 2]:
            kept = detections.index[detections["score"] >= threshold]
            false = len(set(kept) - set(pairs["detection"]))
            if false / len(truth.images) <= rate:
                lesions = pairs.loc[pairs["detection"].isin(kept), "lesion"].unique()
                videos = truth.images["video"].to_numpy()[truth.boxes["image"].to_numpy()[lesions]]
                best, best_videos = max(best, len(lesions)), max(best_videos, len(set(videos)))
        assert sensitivity == best / len(truth.boxes)
        assert of_videos == best_videos / found["videos"]["n"]
    assert found["lesions"]["mean"] == pytest.approx(np.mean(found["lesions"]["sensitivity"]))


def entry(image_id, bbox, score, label="benign"):
    return {"image_id": image_id, "label": label, "bbox": bbox, "score": score}


@pytest.fixture
def pair(tmp_path):
    """Two videos of two frames with one lesion each; the second frame of the second shows none."""

    def write(detections, **labels):
        ids, group = ["lin/v/a/1", "lin/v/a/2", "lin/v/b/1", "lin/v/b/2"], ["a", "a", "b", "b"]
        label = labels.get("label", ["benign", "benign", "malignant", "malignant"])
        split = pd.DataFrame({"image_id": ids, "split": "test", "label": label, "group": group})
        images = pd.DataFrame({"image_id": ids, "path": "none.png", "width": 100, "height": 100})
        annotations = pd.DataFrame({"annotation_id": ids[:3], "image_id": ids[:3], "label": "malignant"})
        annotations[BOX] = [10, 10, 40, 40]
        return write_unit(tmp_path, split, images, annotations, detections)

    return write


LESION = [10, 10, 40, 40]


def test_more_boxes_on_one_lesion_are_no_false_positives_and_the_class_does_not_matter(pair):
    detections = [entry("lin/v/a/1", LESION, 0.9, label) for label in LESIONS]
    detections += [entry("lin/v/a/2", [60, 60, 20, 20], 0.8)]
    found = evaluate(*pair(detections))["froc"]
    assert found["false_positives_per_image"] == 1 / 4
    assert found["lesions"]["sensitivity"] == [1 / 3] * 7
    assert found["lesions"]["per_class"]["benign"] == {"n": 2, "sensitivity": [1 / 2] * 7}


def test_a_false_positive_as_sure_as_the_hit_hides_it(pair):
    detections = [entry("lin/v/a/1", LESION, 0.5), entry("lin/v/b/2", LESION, 0.5)]
    assert evaluate(*pair(detections))["froc"]["lesions"]["sensitivity"] == [0] + [1 / 3] * 6


def test_a_video_is_found_by_one_frame_and_counts_only_with_a_lesion(pair):
    found = evaluate(*pair([entry("lin/v/a/2", LESION, 0.4), entry("lin/v/b/1", LESION, 0.2)]))["froc"]
    assert found["videos"]["n"] == 2
    assert found["videos"]["sensitivity"] == [1] * 7
    assert found["lesions"]["sensitivity"] == [2 / 3] * 7
    assert found["videos"]["at_score"] == 1 / 2
    assert found["lesions"]["at_score"] == 1 / 3


def test_the_class_of_a_lesion_is_that_of_the_split(pair):
    found = evaluate(*pair([entry("lin/v/a/1", LESION, 0.9, "benign")]))
    assert (found["per_class"]["benign"]["n_boxes"], found["per_class"]["malignant"]["n_boxes"]) == (2, 1)
    assert found["per_class"]["benign"]["ap50"] == pytest.approx(51 / 101)


def test_no_detection_scores_zero_but_empty_bins_stay_undefined(pair):
    found = evaluate(*pair([]))
    assert set(found["coco"].values()) == {0.0}
    assert [found["intervals"][name] for name in ("ap", "ap50", "ap75")] == [None] * 3  # of two groups
    assert found["froc"]["lesions"]["sensitivity"] == [0] * 7
    assert found["per_class"]["benign"]["auc_pr"] == 0
    small, medium = (found["bins"]["coco"][size] for size in ("small", "medium"))
    assert (small["n"], small["ap"]) == (0, None)
    assert (medium["n"], medium["ap"]) == (3, 0.0)


def test_boxes_on_images_without_a_lesion_are_false_positives(pair):
    hit = entry("lin/v/a/1", LESION, 0.5)
    alone = evaluate(*pair([hit]))["per_class"]["benign"]["ap50"]
    with_false = evaluate(*pair([hit, entry("lin/v/b/2", LESION, 0.9)]))["per_class"]["benign"]["ap50"]
    assert with_false == pytest.approx(alone / 2)


def test_one_class_without_lesions_is_null_and_left_out_of_the_mean(pair):
    files = pair([entry("lin/v/a/1", LESION, 0.9)], label=["benign"] * 4)
    found = evaluate(*files)
    assert found["per_class"]["malignant"]["ap"] is None
    assert found["per_class"]["malignant"]["pr_curve"] is None
    assert found["per_class"]["malignant"]["auc_pr"] is None
    assert found["coco"]["ap50"] == found["per_class"]["benign"]["ap50"] == pytest.approx(34 / 101)
    assert found["froc"]["lesions"]["per_class"]["malignant"] == {"n": 0, "sensitivity": [None] * 7}


@pytest.mark.parametrize("detections", [[], [entry("lin/v/b/2", LESION, 0.9)]])
def test_a_test_split_without_any_lesion_has_no_scores(pair, detections, tmp_path):
    files = pair(detections)
    annotations = pd.read_csv(files[2]).assign(image_id="lin/v/elsewhere/1")
    annotations.to_csv(files[2], index=False)
    found = evaluate(*files)
    assert found["n_boxes"] == 0
    assert set(found["coco"].values()) == set(found["aitod"].values()) == {None}
    assert {found["intervals"][name] for name in ("ap", "ap50", "ap75", "ar100")} == {None}
    assert found["froc"]["lesions"]["sensitivity"] == [None] * 7
    assert found["froc"]["videos"]["mean"] is None
    assert {each["ap"] for bins in found["bins"].values() for each in bins.values()} == {None}
    json.dumps(plain(found), allow_nan=False)


def test_too_few_groups_have_no_interval(tmp_path):
    intervals = evaluate(*write_unit(tmp_path))["intervals"]  # 8 videos
    assert {intervals[name] for name in ("ap", "ap50", "ap75", "ar100")} == {None}
    assert intervals["per_class"]["benign"]["ap"] is intervals["bins"]["relative"]["smallest"]["ap"] is None


def test_resamples_are_those_of_videos_copied_as_often_as_they_were_drawn(tmp_path):
    files = write_unit(tmp_path, *make_truth(videos=24, frames=2))
    found, (truth, detections) = evaluate(*files), read(files)
    drawn = weights(24)
    for row in (0, 7, 2000, 2003):  # all, resamples, and without a video
        tables = copied(truth, detections, drawn[row].astype(int))
        again = coco.evaluate(tables[0].boxes, tables[1], {"area": WHOLE})["area"]
        values = {name: found["resamples"][name].values[row] for name in ("ap", "ap50", "ap75", "ar100")}
        expected = {"ap": again.ap(), "ap50": again.ap(0.5), "ap75": again.ap(0.75), "ar100": again.ar()}
        assert values == pytest.approx(expected, abs=1e-6)
    for name in ("ap", "ap50", "ap75", "ar100"):
        low, high = found["intervals"][name]
        assert low < found["coco"][name] < high
        assert found["resamples"][name].value == pytest.approx(found["coco"][name])


def test_the_order_of_the_predictions_does_not_matter(tmp_path):
    files = write_unit(tmp_path)
    first = evaluate(*files)
    entries = read_json(files[0])
    files[0].write_text(json.dumps(entries[::-1]))
    assert plain(evaluate(*files)) == plain(first)


def test_only_aitods_statistics_look_beyond_a_hundred_boxes_of_an_image(pair):
    detections = [entry("lin/v/a/1", [60, 60, 20, 20], 0.9)] * 150 + [entry("lin/v/a/1", LESION, 0.1)]
    found = evaluate(*pair(detections))
    assert found["per_class"]["benign"]["ap50"] == found["bins"]["coco"]["medium"]["ap"] == 0
    for value in (found["aitod"]["ap"], found["aitod"]["ap50"], found["bins"]["aitod"]["medium"]["ap"]):
        assert value > 0


def test_a_box_without_area_is_a_false_positive(pair):
    found = evaluate(*pair([entry("lin/v/a/1", [20, 20, 0, 0], 0.9)]))
    assert found["coco"]["ap"] == 0
    assert found["froc"]["false_positives_per_image"] == 1 / 4


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (entry("lin/v/a/1", LESION, 0.9, "cyst"), "a category is not benign or malignant"),
        (entry("lin/v/a/1", LESION, float("nan")), r"a score is not in \[0, 1\]"),
        (entry("lin/v/a/1", LESION, "sure"), r"a score is not in \[0, 1\]"),
        (entry("lin/v/a/1", LESION, 1.1), r"a score is not in \[0, 1\]"),
        (entry("lin/v/a/1", [10, 10, -4, 4], 0.9), "a box has a negative size"),
        (entry("lin/v/a/1", [10, 10, float("nan"), 4], 0.9), "a box is not four numbers"),
        (entry("lin/v/a/1", [10, 10, "wide", 4], 0.9), "a box is not four numbers"),
        (entry("lin/v/a/1", [10, 10, 4], 0.9), r"a box is not \[x, y, w, h\]"),
        (entry("lin/v/a/1", 7, 0.9), r"a box is not \[x, y, w, h\]"),
        (entry("lin/v/c/9", LESION, 0.9), r"not an image of the test split.*lin/v/c/9"),
        ({"image_id": "lin/v/a/1", "label": "benign", "bbox": LESION}, "an entry lacks 'score'"),
        ("box", "not a list of detections"),
    ],
)
def test_bad_predictions_are_refused_by_name(pair, bad, message):
    files = pair([])
    files[0].write_text(json.dumps([entry("lin/v/a/1", LESION, 0.8), bad]))
    with pytest.raises(BusflowError, match=message) as caught:
        evaluate(*files)
    assert str(files[0]) in str(caught.value)


@pytest.mark.parametrize("content", ["", "[{", '{"boxes": []}', "null"])
def test_a_broken_predictions_file_is_refused(pair, content):
    files = pair([])
    files[0].write_text(content)
    with pytest.raises(BusflowError, match="not a list of detections"):
        evaluate(*files)


def test_a_missing_predictions_file_names_the_remedy(pair):
    files = pair([])
    files[0].unlink()
    with pytest.raises(BusflowError, match="no such file; run the rule that makes it"):
        evaluate(*files)


@pytest.mark.parametrize(
    ("index", "change", "message"),
    [
        (1, lambda t: t.assign(split="train"), "has no test image"),
        (1, lambda t: t.assign(label="normal"), "has boxes but is not benign or malignant"),
        (2, lambda t: t.assign(w=-3), "a box without a positive size"),
        (2, lambda t: t.assign(h="tall"), "a box without a positive size"),
        (3, lambda t: t.iloc[1:], "lacks the image"),
    ],
)
def test_truth_that_cannot_be_scored_is_refused(pair, index, change, message):
    files = pair([])
    change(pd.read_csv(files[index])).to_csv(files[index], index=False)
    with pytest.raises(BusflowError, match=message):
        evaluate(*files)


def test_evaluation_needs_no_torch():
    code = "import sys, busflow.metrics.detection; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


def test_the_script_writes_what_the_function_returns(tmp_path):
    files = write_unit(tmp_path)
    options = ["--predictions", "--split", "--annotations", "--images"]
    arguments = [str(part) for pair in zip(options, files, strict=True) for part in pair]
    output = str(tmp_path / "metrics.json")
    command = [sys.executable, "scripts/evaluate.py", "--task", "detection", "--output", output]
    command += ["--scores", str(tmp_path / "scores.json")]
    subprocess.run([*command, *arguments], cwd=ROOT, check=True, env={"PYTHONPATH": str(ROOT)})
    expected = evaluate(*files)
    assert read_json(output) == plain(expected)
    for name, estimate in read_metrics(output)["resamples"].items():
        assert estimate.values == pytest.approx(expected["resamples"][name].values, abs=1e-6, nan_ok=True)
        assert (estimate.cases == expected["resamples"][name].cases).all()
    failed = subprocess.run([*command, *arguments[:4]], cwd=ROOT, check=False, capture_output=True, text=True)
    assert failed.returncode == 2
    assert "task detection needs --annotations, --images" in failed.stderr
