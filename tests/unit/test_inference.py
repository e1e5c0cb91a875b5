"""Trained models on anyone's images: the study's numbers, the field's formats, and no traceback."""

import io
import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
import test_detection_engine
import test_segmentation_engine
import test_training
import torch
from inference_files import CALIBRATION, meta_of, save_untrained
from PIL import Image
from pycocotools import mask as rle
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from test_images import chunk, encoded, hollow_png

from busflow.data.packing import letterbox
from busflow.engine import classification, detection, segmentation
from busflow.engine.checkpoints import save_weights
from busflow.errors import BusflowError
from busflow.inference import detection as fusing
from busflow.inference.pictures import find_pictures
from busflow.inference.predict import predict
from busflow.labels import CLASS_COLOURS, LABELS, LESIONS

CPU = torch.device("cpu")
SIDE = 64


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> dict[str, Path]:
    """Of each task one member, and another for an ensemble."""
    folder = tmp_path_factory.mktemp("weights")
    return {
        f"{task}{seed}": save_untrained(folder / f"{task}{seed}.pth", task, SIDE, seed)
        for task in ("classification", "segmentation", "detection")
        for seed in (0, 1)
    }


def speckle(seed: int, height: int = 60, width: int = 80) -> np.ndarray:
    return np.random.default_rng(seed).integers(20, 200, (height, width)).astype(np.uint8)


@pytest.fixture
def folder(tmp_path) -> Path:
    """Three images of different sizes."""
    (tmp_path / "images").mkdir()
    for k, size in enumerate([(60, 80), (90, 64), (64, 64)]):
        Image.fromarray(speckle(k, *size)).save(tmp_path / f"images/{k}.png")
    return tmp_path / "images"


def run(weights: list[Path], images: list, output: Path, batch: int = 1, **asked) -> pd.DataFrame:
    assert predict(weights, [str(each) for each in images], output, CPU, batch, **asked) == 0
    return pd.read_csv(output / "summary.csv", keep_default_na=False)


def results(output: Path) -> list[dict]:
    return json.loads((output / "predictions.json").read_text())


def write_all(images: dict[str, np.ndarray], folder: Path) -> None:
    folder.mkdir()
    for name, image in images.items():
        Image.fromarray(image).save(folder / f"{name.replace('/', '_')}.png")


def test_classifiers_predict_what_the_study_predicts(tmp_path, weights):
    inputs = test_training.write_inputs(tmp_path)
    classification.predict(
        inputs, weights["classification0"], {"batch": 5, "warmup": 1, "iterations": 1}, tmp_path
    )
    expected = pd.read_csv(tmp_path / "predictions.csv")
    packed = np.load(tmp_path / "images.npy")
    table = pd.read_csv(inputs["images"])
    rows = dict(zip(table["image_id"], range(len(table)), strict=True))
    # The study's images have the size of the packed ones here, which is the model's.
    same_size = save_untrained(tmp_path / "small.pth", "classification", packed.shape[1], seed=0)
    write_all({image_id: packed[rows[image_id]] for image_id in expected["image_id"]}, tmp_path / "files")
    run([same_size], [tmp_path / "files"], tmp_path / "out")
    found = pd.read_csv(tmp_path / "out/predictions.csv")
    assert found["image"].tolist() == [f"files/{i.replace('/', '_')}.png" for i in expected["image_id"]]
    for column in (f"p_{label}" for label in LABELS):
        assert found[column].tolist() == pytest.approx(expected[column].tolist(), abs=1e-6)
    assert found["prediction"].tolist() == expected["prediction"].tolist()


def test_detectors_predict_what_the_study_predicts(tmp_path, weights):
    images, boxes = zip(*(test_detection_engine.picture(k) for k in range(6)), strict=True)
    split = ["train", "val", *["test"] * 4]
    labels = [LESIONS[k % 2] for k in range(6)]
    inputs = test_detection_engine.write_inputs(tmp_path, images, boxes, labels, split, SIDE)
    detection.predict(inputs, weights["detection0"], {"warmup": 0}, tmp_path)
    expected = json.loads((tmp_path / "predictions.json").read_text())
    write_all({f"lin/{k:02d}": images[k] for k in range(2, 6)}, tmp_path / "files")
    run([weights["detection0"]], [tmp_path / "files"], tmp_path / "out")
    found = results(tmp_path / "out")
    assert len(found) == len(expected) > 0
    for one, other in zip(found, expected, strict=True):
        assert f"lin/{one['image_id'] + 1:02d}" == other["image_id"]
        assert LESIONS[one["category_id"] - 1] == other["label"]
        assert one["bbox"] == pytest.approx(other["bbox"], abs=1e-6)
        assert one["score"] == pytest.approx(other["score"], abs=1e-6)


def test_segmenters_predict_what_the_study_predicts(tmp_path, weights):
    images, masks, labels = zip(*(test_segmentation_engine.picture(k) for k in range(6)), strict=True)
    split = ["train", "val", *["test"] * 4]
    inputs = test_segmentation_engine.write_inputs(tmp_path, images, masks, labels, split, SIDE)
    del inputs["masks"]
    segmentation.predict(inputs, weights["segmentation0"], {"warmup": 0}, tmp_path)
    expected = json.loads((tmp_path / "predictions.json").read_text())
    ids = pd.read_csv(inputs["split"]).query("split == 'test'")["image_id"].tolist()
    write_all(dict(zip(ids, images[2:], strict=True)), tmp_path / "files")
    run([weights["segmentation0"]], [tmp_path / "files"], tmp_path / "out")
    for image_id in ids:
        found = np.array(Image.open(tmp_path / f"out/masks/files/{image_id.replace('/', '_')}.png"))
        for each in (each for each in expected if each["image_id"] == image_id):
            k = LESIONS.index(each["label"]) + 1
            assert (rle.decode(each["segmentation"]).astype(bool) == (found == k)).all()
        assert found.any()


def test_an_ensemble_of_classifiers_gives_mean_probabilities_and_the_largest_difference(
    tmp_path, folder, weights
):
    pair = [weights["classification0"], weights["classification1"]]
    columns = [f"p_{label}" for label in LABELS]
    one, other = (run([each], [folder], tmp_path / each.stem)[columns] for each in pair)
    both = run(pair, [folder], tmp_path / "both")
    np.testing.assert_allclose(both[columns], (one + other) / 2, atol=1e-8)
    assert both["disagreement"].tolist() == pytest.approx((one - other).abs().max(axis=1).tolist(), abs=1e-5)
    assert "disagreement" not in run(pair[:1], [folder], tmp_path / "single")


def test_an_ensemble_of_detectors_fuses_boxes_that_overlap():
    one = (np.array([[10.0, 10, 50, 50], [70, 70, 90, 90]]), np.array([0.8, 0.4]), np.array([1, 0]))
    other = (np.array([[14.0, 10, 54, 50], [5, 5, 5, 40]]), np.array([0.6, 0.9]), np.array([1, 0]))
    found = fusing._fused((one, other))
    boxes = {int(label): (box, score) for box, score, label in zip(*found[:3], strict=True)}
    # Solovyev et al. 2021: corners weighted by score, the mean score, by the share of members that agree.
    assert boxes[1][0].tolist() == pytest.approx(
        [(10 * 0.8 + 14 * 0.6) / 1.4, 10, (50 * 0.8 + 54 * 0.6) / 1.4, 50]
    )
    assert boxes[1][1] == pytest.approx(0.7)
    assert boxes[0][1] == pytest.approx(0.4 / 2)  # seen by one of two; and a box without area is none
    assert found.disagreement == pytest.approx(0.9 - 0.4)


def test_an_ensemble_of_segmenters_averages_logits(tmp_path, folder, weights):
    pair = [weights["segmentation0"], weights["segmentation1"]]
    table = run(pair, [folder], tmp_path / "both")
    models = [segmentation.load(each)[0] for each in pair]
    singles = []
    for each in pair:
        run([each], [folder], tmp_path / each.stem)
        singles.append(np.array(Image.open(tmp_path / each.stem / "masks/images/0.png")) > 0)
    grey = speckle(0)
    packed = torch.from_numpy(letterbox(grey, SIDE))[None, None]
    with torch.inference_mode():
        logits = [m(**m.data_preprocessor({"images": packed}))[0, :, 8:56] for m in models]
    sized = [torch.nn.functional.interpolate(each[None], (60, 80), mode="bilinear")[0] for each in logits]
    expected = (sum(sized) / 2).argmax(0).numpy()
    found = np.array(Image.open(tmp_path / "both/masks/images/0.png"))
    assert (found == expected).mean() > 0.999
    dice = 2 * (singles[0] & singles[1]).sum() / (singles[0].sum() + singles[1].sum())
    assert table["disagreement"][0] == pytest.approx(1 - dice, abs=1e-6)


def test_members_may_take_images_of_different_sizes(tmp_path, folder, weights):
    other = save_untrained(tmp_path / "other.pth", "segmentation", 96, seed=1)
    table = run([weights["segmentation0"], other], [folder], tmp_path / "out", batch=2)
    assert len(table) == 3 and Image.open(tmp_path / "out/masks/images/1.png").size == (64, 90)


@pytest.mark.parametrize("task", ["detection", "segmentation"])
def test_results_are_those_that_pycocotools_takes(tmp_path, folder, weights, task):
    table = run([weights[f"{task}0"]], [folder], tmp_path / "out")
    content = json.loads((tmp_path / "out/images.json").read_text())
    assert content["info"]["description"].startswith("research use only")
    truth = COCO()
    truth.dataset = content | {
        "annotations": [
            {
                "id": k + 1,
                "image_id": k + 1,
                "category_id": 1,
                "bbox": [5, 5, 20, 20],
                "area": 400,
                "iscrowd": 0,
            }
            | {"segmentation": [[5, 5, 25, 5, 25, 25, 5, 25]]}
            for k in range(3)
        ]
    }
    truth.createIndex()
    found = truth.loadRes(str(tmp_path / "out/predictions.json"))
    evaluation = COCOeval(truth, found, "bbox" if task == "detection" else "segm")
    evaluation.evaluate()
    evaluation.accumulate()
    assert [image["file_name"] for image in content["images"]] == table["image"].tolist()
    sizes = [(image["width"], image["height"]) for image in content["images"]]
    assert sizes == [(80, 60), (64, 90), (64, 64)]


def test_masks_and_run_lengths_say_the_same_and_what_they_are_for(tmp_path, folder, weights):
    table = run([weights["segmentation0"]], [folder], tmp_path / "out")
    for each in results(tmp_path / "out"):
        path = tmp_path / "out/masks/images" / f"{each['image_id'] - 1}.png"
        with Image.open(path) as picture:
            assert picture.text["Comment"].startswith("research use only")
            mask = np.array(picture)
        assert (rle.decode(each["segmentation"]).astype(bool) == (mask == each["category_id"])).all()
        label = LESIONS[each["category_id"] - 1]
        assert table[f"{label}_pixels"][each["image_id"] - 1] == (mask == each["category_id"]).sum()
        assert 0 < each["score"] <= 1 and each["notice"].startswith("research use only")


def test_a_studys_notice_stands_in_every_output(tmp_path, folder):
    origin = meta_of("classification", SIDE)["origin"] | {"notice": "DEMO: phantoms"}
    path = save_untrained(tmp_path / "demo.pth", "classification", SIDE, origin=origin)
    table = run([path], [folder], tmp_path / "out", overlay=True)
    words = "research use only; DEMO: phantoms"
    assert set(table["notice"]) == {words} == set(pd.read_csv(tmp_path / "out/predictions.csv")["notice"])
    record = json.loads((tmp_path / "out/prediction.json").read_text())
    assert record["notice"] == words and record["weights"][0]["origin"] == origin


def test_the_record_names_weights_images_and_what_computed(tmp_path, folder, weights):
    run([weights["classification0"]], [folder], tmp_path / "out", batch=2)
    record = json.loads((tmp_path / "out/prediction.json").read_text())
    sums = subprocess.run(
        ["sha256sum", *sorted(folder.iterdir())], capture_output=True, text=True, check=True
    )
    assert [each["sha256"] for each in record["images"]] == [
        line.split()[0] for line in sums.stdout.splitlines()
    ]
    assert record["task"] == "classification" and record["options"]["batch"] == 2
    assert record["packages"]["torch"] == torch.__version__ and record["seconds"] > 0 and record["device"]


def test_a_threshold_decides_who_is_malignant_what_is_shown_and_where_lesion_begins(
    tmp_path, folder, weights
):
    calm = run([weights["classification0"]], [folder], tmp_path / "a", threshold=1.0)
    assert "malignant" not in set(calm["prediction"])
    assert set(run([weights["classification0"]], [folder], tmp_path / "b", threshold=0.0)["prediction"]) == {
        "malignant"
    }
    few, all_boxes = (
        run([weights["detection0"]], [folder], tmp_path / name, threshold=threshold)
        for name, threshold in (("c", 1.0), ("d", 0.0))
    )
    assert few["boxes"].tolist() == [0, 0, 0] and set(few["prediction"]) == {"no lesion"}
    assert all_boxes["boxes"].sum() == len(results(tmp_path / "d")) == len(results(tmp_path / "c"))
    assert (
        run([weights["segmentation0"]], [folder], tmp_path / "e", threshold=0.0)["lesion_share"].tolist()
        == [1] * 3
    )


def test_calibrated_probabilities_and_operating_points_are_those_of_the_file(tmp_path, folder, weights):
    columns = [f"p_{label}" for label in LABELS]
    plain = run([weights["classification0"]], [folder], tmp_path / "plain")
    table = run([weights["classification0"]], [folder], tmp_path / "out", calibrated=True)
    powers = plain[columns] ** (1 / CALIBRATION["temperature"])
    np.testing.assert_allclose(table[columns], powers.div(powers.sum(axis=1), axis=0), atol=1e-6)
    threshold = float(np.median(table["p_malignant"]))
    fitted = CALIBRATION | {"n_malignant": 2, "thresholds": {"0.90": threshold, "0.95": 0.0}}
    path = save_untrained(tmp_path / "fitted.pth", "classification", SIDE, calibration=fitted)
    table = run([path], [folder], tmp_path / "fitted", calibrated=True)
    assert table["malignant_at_0.90"].tolist() == (table["p_malignant"] >= threshold).tolist()
    assert table["malignant_at_0.95"].all() and not table["malignant_at_0.90"].all()
    both = run([path, weights["classification1"]], [folder], tmp_path / "both", calibrated=True)
    assert not any(column.startswith("malignant_at") for column in both)  # fitted of each alone


def test_overlays_show_boxes_in_the_colour_of_their_label(tmp_path, weights):
    (tmp_path / "images").mkdir()
    Image.fromarray(speckle(0, 300, 400)).save(tmp_path / "images/a.jpg")
    run([weights["detection0"]], [tmp_path / "images"], tmp_path / "out", threshold=0.0, overlay=True)
    picture = Image.open(tmp_path / "out/overlays/images/a.png")
    assert picture.width == 400 and picture.height > 300  # words stand below, not on the image
    best = max(results(tmp_path / "out"), key=lambda each: each["score"])
    x, y, w, h = best["bbox"]
    colour = tuple(bytes.fromhex(CLASS_COLOURS[LESIONS[best["category_id"] - 1]][1:]))
    assert picture.getpixel((min(399, round(x + w)), round(y + h / 2))) == colour


def hostile() -> dict[str, bytes]:
    """Files that are no image to predict, by name, and what is said of each."""
    whole = encoded(speckle(5))
    flipped = bytearray(whole)
    flipped[len(flipped) // 2] ^= 1
    frames = io.BytesIO()
    Image.fromarray(speckle(1)).save(
        frames, "TIFF", save_all=True, append_images=[Image.fromarray(speckle(2))]
    )
    return {
        "empty.png": b"",
        "text.png": b"hello",
        "cut.png": whole[: len(whole) // 2],
        "flipped.png": bytes(flipped),
        "suffix.jpg": whole,
        "tiny.png": encoded(speckle(0)[:4, :4]),
        "bomb.png": hollow_png(100_000, 100_000),
        "cmyk.jpg": encoded(Image.new("CMYK", (40, 40)), "JPEG"),
        "frames.tif": frames.getvalue(),
        "no.dcm": b"\0" * 200 + chunk(b"DICM", b""),
    }


def test_broken_images_are_a_line_each_and_the_rest_goes_on(tmp_path, folder, weights):
    for name, data in hostile().items():
        (folder / name).write_bytes(data)
    (folder / "gone.png").symlink_to(tmp_path / "nowhere")
    command = [sys.executable, "-m", "busflow", "predict", weights["classification0"], folder]
    done = subprocess.run(
        [*command, "--output", tmp_path / "out", "--overlay"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1 and "Traceback" not in done.stderr
    problems = pd.read_csv(tmp_path / "out/problems.csv")
    assert set(problems["image"]) == {f"images/{name}" for name in (*hostile(), "gone.png")}
    assert problems["problem"].str.len().min() > 10 and not problems["problem"].str.contains("\n").any()
    said = f"error: {len(problems)} images were not predicted; {tmp_path / 'out/problems.csv'} says why"
    assert done.stderr.strip().endswith(said)
    assert len(pd.read_csv(tmp_path / "out/summary.csv")) == 3
    assert sorted(path.name for path in (tmp_path / "out/overlays/images").iterdir()) == [
        "0.png",
        "1.png",
        "2.png",
    ]


def test_what_is_no_ultrasound_is_predicted_and_flagged(tmp_path, weights):
    (tmp_path / "images").mkdir()
    rng = np.random.default_rng(0)
    marked = np.repeat(speckle(0, 240, 320)[..., None], 3, axis=2)
    marked[:10, :10] = 255, 0, 0
    photo = cv2.resize(rng.integers(0, 256, (6, 8, 3)).astype(np.uint8), (320, 240))
    for name, image in {
        "constant": np.full((60, 80), 90, np.uint8),
        "photo": photo,
        "strip": speckle(0, 40, 400),
        "usual": speckle(0),
        "marked": marked,
    }.items():
        Image.fromarray(image.astype(np.uint8)).save(tmp_path / f"images/{name}.png")
    table = run([weights["classification0"]], [tmp_path / "images"], tmp_path / "out")
    said = dict(zip(table["image"].str[7:-4], table["flags"], strict=True))
    assert said["constant"].startswith("no ultrasound image: it has 1 grey levels")
    assert said["photo"].startswith("colour photograph?") and said["strip"].startswith("width : height 10.00")
    assert said["usual"] == said["marked"] == ""  # coloured marks of the scanner are no photograph


def test_images_are_found_in_files_folders_archives_and_by_pattern(tmp_path, folder):
    (folder / "deep/er").mkdir(parents=True)
    (folder / "deep/er/4.JPG").write_bytes(encoded(speckle(4), "JPEG"))
    (folder / "notes.txt").write_text("no image")
    with zipfile.ZipFile(tmp_path / "more.zip", "w") as archive:
        archive.writestr("a/5.png", encoded(speckle(5)))
        archive.writestr("a/readme.md", "no image")
    (tmp_path / "scratch").mkdir()
    places = [folder, tmp_path / "more.zip", folder / "0.png", folder / "**/[12].png"]
    found = [each.name for each in find_pictures([str(each) for each in places], tmp_path / "scratch")]
    names = ["images/0.png", "images/1.png", "images/2.png", "images/deep/er/4.JPG"]
    assert found == [*names, "more.zip/a/5.png", "0.png", "1.png", "2.png"]


def test_what_names_no_image_is_told(tmp_path, folder):
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad/a.csv").write_text("")
    (tmp_path / "bad.zip").write_bytes(b"PK no zip")
    (folder / "0.jpg").write_bytes(encoded(speckle(0), "JPEG"))
    for place, message in {
        tmp_path / "none.png": "does not exist",
        tmp_path / "*.gif": "does not exist",
        tmp_path / "bad": "bad holds no image",
        tmp_path / "bad.zip": "bad.zip is damaged",
        folder: "would both be called images/0",
    }.items():
        with pytest.raises(BusflowError, match=message):
            find_pictures([str(place)], tmp_path)


def test_a_name_that_is_no_text_reaches_the_outputs(tmp_path, weights):
    (tmp_path / "images").mkdir()
    odd = os.fsdecode(os.fsencode(tmp_path / "images") + b"/\xff \n,\x1b.png")
    Path(odd).write_bytes(encoded(speckle(0)))
    table = run([weights["segmentation0"]], [tmp_path / "images"], tmp_path / "out", overlay=True)
    assert table["image"].tolist() == ["images/\\xff \n,\x1b.png"]
    assert (tmp_path / "out/masks/images/\\xff \n,\x1b.png").exists()


@pytest.mark.parametrize("foreign", ["filled", "two tasks", "twice", "old", "none", "calibrated"])
def test_what_cannot_be_done_is_told_before_anything_is_written(tmp_path, folder, weights, foreign):
    one, output, asked = weights["segmentation0"], tmp_path / "out", {}
    (tmp_path / "filled").mkdir()
    (tmp_path / "filled/a").touch()
    save_weights(tmp_path / "old.pth", {}, {"timm": "convnext_atto"})
    paths, message = {
        "filled": ([one], "is not an empty folder"),
        "two tasks": ([one, weights["detection0"]], "is of the task segmentation and .* of detection"),
        "twice": ([one, one], "is given twice"),
        "old": ([tmp_path / "old.pth"], "is of an earlier version of busflow"),
        "none": ([tmp_path / "none.pth"], "does not exist"),
        "calibrated": ([one], "only classifiers are calibrated"),
    }[foreign]
    if foreign == "filled":
        output = tmp_path / "filled"
    if foreign == "calibrated":
        asked = {"calibrated": True}
    with pytest.raises(BusflowError, match=message):
        predict(paths, [str(folder)], output, CPU, 1, **asked)
    assert not (tmp_path / "out").exists() and len(list((tmp_path / "filled").iterdir())) == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["a.png", "b.png"], "at least one file of weights"),
        (["a.pth", "b.pth"], "at least one file of weights"),
        (["a.pth", "b.png", "--device", "cuda"], "torch finds no GPU"),
        (["a.pth", "b.png", "--threshold", "2"], "argument --threshold"),
        (["a.pth", "b.png", "--batch", "0"], "argument --batch"),
    ],
)
@pytest.mark.skipif(torch.cuda.is_available(), reason="one of them is about a machine without a GPU")
def test_a_mistake_in_the_arguments_is_one_line(tmp_path, arguments, message):
    done = subprocess.run(
        [sys.executable, "-m", "busflow", "predict", *arguments, "--output", tmp_path / "out"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode and message in done.stderr and "Traceback" not in done.stderr
