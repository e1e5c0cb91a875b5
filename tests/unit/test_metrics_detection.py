"""Detection metrics against pycocotools, scikit-learn and brute force, and the refusal of bad input."""

import contextlib
import io
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

ROOT = Path(__file__).parents[2]
EXACT = {"rel": 0, "abs": 1e-12}
WHOLE = {coco.ALL: (0, coco.UNBOUNDED)}


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
    assert assign(overlaps(lesions, boxes, 0.5), 0.5).tolist() == [0, 1]
    assert assign(overlaps(lesions, boxes.assign(x=[26, 50]), 0.5), 0.5).tolist() == [0]


def test_average_precision_of_the_ranking_is_that_of_coco_for_the_whole_and_for_any_groups(crowd):
    truth, detections = crowd
    rankings = rank_classes(truth, detections)
    groups = np.unique(truth.images["group"])
    for weights in (np.ones(len(groups)), np.arange(len(groups)) % 2, np.arange(len(groups)) > 1):
        kept = np.flatnonzero(truth.images["group"].isin(groups[weights > 0]))
        parts = [table[table["image"].isin(kept)] for table in (truth.boxes, detections)]
        reference = coco.evaluate(*parts, {"area": WHOLE})["area"]
        for label in LESIONS:
            for iou, ranking in zip(coco.IOUS, rankings[label], strict=True):
                found = average_precision(ranking, np.asarray(weights, float)[None])[0]
                expected = reference.ap(iou, label)
                assert np.isnan(found) if expected is None else found == pytest.approx(expected, **EXACT)


def test_a_group_drawn_twice_counts_twice():
    """Two groups: the lesion of one is hit first, that of the other never."""
    box = {"x": 0, "y": 0, "w": 9, "h": 9}
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
    assert found["intervals"] == {"ap": [0, 0], "ap50": [0, 0], "ap75": [0, 0]}
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
    assert set(found["intervals"].values()) == {None}
    assert found["froc"]["lesions"]["sensitivity"] == [None] * 7
    assert found["froc"]["videos"]["mean"] is None
    assert {each["ap"] for bins in found["bins"].values() for each in bins.values()} == {None}
    json.dumps(found, allow_nan=False)


def test_a_single_group_has_no_interval(tmp_path):
    split, images, annotations = make_truth()
    files = write_unit(tmp_path, split.assign(group="one"), images, annotations)
    assert set(evaluate(*files)["intervals"].values()) == {None}


def test_the_interval_contains_the_estimate_and_is_that_of_resampled_videos(tmp_path):
    """Resamples are written out: a group's images are there as often as it was drawn."""
    files = write_unit(tmp_path)
    found, (truth, detections) = evaluate(*files), read(files)
    group = truth.images["group"]
    values, rng = [], np.random.default_rng(1)
    for _ in range(200):
        boxes, predicted = [], []
        for copy, drawn in enumerate(rng.choice(group.unique(), group.nunique())):
            for parts, table in ((boxes, truth.boxes), (predicted, detections)):
                part = table[(group == drawn).to_numpy()[table["image"]]]
                parts.append(part.assign(image=part["image"] + copy * len(group)))
        tables = pd.concat(boxes), pd.concat(predicted)
        resampled = coco.evaluate(*tables, {"area": WHOLE})["area"]
        values.append([resampled.ap(), resampled.ap(0.5), resampled.ap(0.75)])
    ends = np.quantile(values, [0.025, 0.975], axis=0).T
    for name, expected in zip(("ap", "ap50", "ap75"), ends, strict=True):
        low, high = found["intervals"][name]
        assert low < found["coco"][name] < high
        assert [low, high] == pytest.approx(expected, abs=0.04)


def test_the_order_of_the_predictions_does_not_matter(tmp_path):
    files = write_unit(tmp_path)
    first = evaluate(*files)
    entries = read_json(files[0])
    files[0].write_text(json.dumps(entries[::-1]))
    assert evaluate(*files) == first


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
    assert read_json(output) == evaluate(*files)
    failed = subprocess.run([*command, *arguments[:4]], cwd=ROOT, check=False, capture_output=True, text=True)
    assert failed.returncode == 2
    assert "task detection needs --annotations, --images" in failed.stderr
