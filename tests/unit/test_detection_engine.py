"""Training one detector: boxes go where pixels go, it learns, it publishes, a power cut leaves no trace."""

import functools
import json

import cv2
import numpy as np
import pandas as pd
import pytest
import torch
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from trainings import assert_same, power_cut
from trainings import train as train_task

from busflow.data.packing import letterbox
from busflow.data.phantoms import phantom
from busflow.data.views import load_view, make_views
from busflow.engine import detection
from busflow.engine.augmentation import DRAWS, move
from busflow.engine.boxes import BoxAugmentation, move_boxes
from busflow.engine.checkpoints import load_weights
from busflow.engine.training import parameter_groups
from busflow.errors import BusflowError
from busflow.labels import LESIONS
from busflow.models import detectors

SIZE = 64
SETTINGS = {
    "detector": "cascade_rcnn",
    "backbone": "convnext_atto",
    "neck": "fpn",
    "assigner": "max_iou",
    "drop_path": 0.1,
    "anchor_scale": 4,
    "roi_samples": 16,
    "train_proposals": 30,
    "test_proposals": 30,
    "image_size": SIZE,
    "epochs": 2,
    "batch_size": 2,
    "micro_batch": 1,
    "optimizer": "adamw",
    "learning_rate": 5e-4,
    "reference_batch": 2,
    "warmup_epochs": 0.5,
    "weight_decay": 0.05,
    "backbone_rate": 1.0,
    "layer_decay": 0.9,
    "clip_grad": 10.0,
    "precision": "auto",
    "compile": False,
    "channels_last": False,
    "augmentation": 1.0,
}
TIMING = {"batch": 4, "warmup": 2, "iterations": 3}
WIDTH, HEIGHT = 96, 72


def picture(k: int) -> tuple[np.ndarray, list[int]]:
    """Dark noise with a bright box; malignant ones are taller than wide."""
    rng = np.random.default_rng(k)
    w, h = (36, 22) if k % 2 == 0 else (22, 36)
    x, y = (int(rng.integers(0, side)) for side in (WIDTH - w, HEIGHT - h))
    image = rng.integers(0, 60, (HEIGHT, WIDTH)).astype(np.uint8)
    image[y : y + h, x : x + w] += 150
    return image, [x, y, w, h]


def write_inputs(folder, images: list, boxes: list, labels: list, split: list, size: int) -> dict:
    """A study of these images; an image whose box is None has none."""
    ids = [f"lin/{k:02d}" for k in range(len(split))]
    hashes = [f"{k:064x}" for k in range(len(split))]
    np.save(folder / "images.npy", np.stack([letterbox(image, size) for image in images]))
    pd.DataFrame({"row": range(len(split)), "pixel_sha256": hashes}).to_csv(
        folder / "packed.csv", index=False
    )
    height, width = images[0].shape
    index = pd.DataFrame({"image_id": ids, "width": width, "height": height, "pixel_sha256": hashes})
    index.to_csv(folder / "images.csv", index=False)
    annotations = pd.DataFrame(
        [
            dict(
                zip(
                    ("image_id", "annotation_id", "label", "x", "y", "w", "h"),
                    (i, i, label, *box),
                    strict=True,
                )
            )
            for i, label, box in zip(ids, labels, boxes, strict=True)
            if box is not None
        ]
    )
    table = pd.DataFrame({"image_id": ids, "split": split, "label": labels, "group": ids})
    make_views(table, index, annotations, folder / "views")
    return {
        "images": folder / "images.csv",
        "packed_images": folder / "images.npy",
        "packed_index": folder / "packed.csv",
        **{name: folder / "views" / f"{name}.json" for name in ("train", "val", "test")},
    }


@pytest.fixture
def inputs(tmp_path) -> dict:
    """Six training, two validation and three test images; the last of each split has no box."""
    images, boxes = zip(*(picture(k) for k in range(11)), strict=True)
    boxes = [None if k in (5, 7, 10) else box for k, box in enumerate(boxes)]
    split = ["train"] * 6 + ["val"] * 2 + ["test"] * 3
    return write_inputs(tmp_path, images, boxes, [LESIONS[k % 2] for k in range(11)], split, SIZE)


def shrink_heads(monkeypatch, width: int = 32) -> None:
    """Box heads of so few channels, a study's have 1024; all else is as in a study."""
    whole = detectors.detector_config

    def small(*arguments):
        config = whole(*arguments)
        for head in config.roi_head.bbox_head:
            head.fc_out_channels = width
        return config

    monkeypatch.setattr(detectors, "detector_config", small)


@pytest.fixture
def small_heads(monkeypatch):
    shrink_heads(monkeypatch)


def train(inputs: dict, tmp_path, output: str, workers: int = 0, **settings) -> None:
    train_task(detection, inputs, SETTINGS | settings, tmp_path, output, workers=workers)


def brightest(image: np.ndarray) -> list[float]:
    """The box around the bright pixels as left, top, right, bottom."""
    x, y, w, h = cv2.boundingRect((image > 105).astype(np.uint8))
    return [x, y, x + w, y + h]


def test_boxes_lie_where_the_packed_image_shows_them(inputs):
    dataset = detection.read(inputs, "train")
    batch = dataset.__getitems__([3, 0])
    assert batch["samples"].tolist() == [3, 0] and batch["images"].dtype == torch.uint8
    for image, boxes in zip(batch["images"], batch["boxes"], strict=True):
        assert boxes.numpy()[0] == pytest.approx(brightest(image[0].numpy()), abs=1)
    assert [labels.tolist() for labels in batch["labels"]] == [[1], [0]]
    assert dataset.__getitems__([5])["boxes"][0].shape == (0, 4)


def test_results_are_in_pixels_of_the_original_image(inputs):
    dataset = detection.read(inputs, "test")
    batch = dataset.__getitems__([1])
    found = {"boxes": batch["boxes"][0], "labels": batch["labels"][0], "scores": torch.tensor([0.75])}
    assert dataset.results(1, found) == [
        {
            "image_id": "lin/09",
            "label": "malignant",
            "bbox": pytest.approx(picture(9)[1], abs=2e-3),
            "score": 0.75,
        }
    ]
    everything = {
        "boxes": torch.tensor([[0.0, 0, SIZE, SIZE]]),
        "labels": torch.tensor([0]),
        "scores": torch.ones(1),
    }
    assert dataset.results(0, everything)[0]["bbox"] == [0, 0, WIDTH, HEIGHT]


@pytest.mark.parametrize("seed", range(5))
def test_boxes_move_with_the_image(seed):
    draw = torch.from_numpy(np.random.default_rng(seed).uniform(-1, 1, DRAWS)).float()
    draw[1] = 0
    image = torch.zeros(1, 1, 256, 256)
    image[..., 90:150, 70:180] = 1
    moved = move(image, draw[None, :5])[0, 0].numpy() * 210
    boxes = move_boxes(torch.tensor([[70.0, 90, 180, 150]]), draw, 256)
    assert boxes[0].numpy() == pytest.approx(brightest(moved), abs=1)


def test_a_box_that_leaves_the_image_is_left_out_with_its_label():
    augmentation = BoxAugmentation(seed=0, samples=1)
    augmentation.draws[:] = 0
    augmentation.draws[0, 3] = 1  # 10 px to the left
    boxes = [torch.tensor([[2.0, 50, 9, 60], [10.0, 50, 50, 60], [60.0, 0, 90, 9]])]
    _, moved, labels = augmentation(
        torch.rand(1, 1, 100, 100), boxes, [torch.tensor([0, 1, 0])], torch.tensor([0])
    )
    torch.testing.assert_close(moved[0], torch.tensor([[0.0, 50, 40, 60], [50.0, 0, 80, 9]]))
    assert labels[0].tolist() == [1, 0]


@pytest.mark.usefixtures("small_heads")
def test_a_detector_publishes_and_predicts(inputs, tmp_path):
    train(inputs, tmp_path, "out")
    out = tmp_path / "out"
    history = pd.read_csv(out / "history.csv")
    assert list(history) == ["epoch", "step", "seconds", "learning_rate", "train_loss", "val_ap", "val_ap50"]
    assert history["step"].tolist() == [6, 12] and history["train_loss"].is_monotonic_decreasing
    assert load_weights(out / "weights.pth")["meta"]["settings"] == SETTINGS | {"seed": 0}
    record = json.loads((out / "run.json").read_text())
    assert set(record["inputs"]) == set(inputs) and "calibration" not in record

    detection.predict(inputs, out / "weights.pth", TIMING, out)
    for found in json.loads((out / "predictions.json").read_text()):
        x, y, w, h = found["bbox"]
        assert found["image_id"] in {"lin/08", "lin/09", "lin/10"} and found["label"] in LESIONS
        assert 0 <= x <= x + w <= WIDTH and 0 <= y <= y + h <= HEIGHT and 0 < found["score"] <= 1
    timing = json.loads((out / "timing.json").read_text())
    assert timing["test_set"]["n"] == timing["latency"]["n"] == 3
    assert timing["test_set"]["seconds"] == pytest.approx(3e-3 * timing["latency"]["mean_ms"])


@pytest.mark.usefixtures("small_heads")
def test_a_detector_that_finds_nothing_predicts_an_empty_list(inputs, tmp_path, monkeypatch):
    train(inputs, tmp_path, "out", epochs=1)
    load = detection.load

    def blind(weights):
        model, meta = load(weights)
        model.network.roi_head.test_cfg.score_thr = 1.1
        return model, meta

    monkeypatch.setattr(detection, "load", blind)
    detection.predict(inputs, tmp_path / "out/weights.pth", TIMING, tmp_path / "out")
    assert json.loads((tmp_path / "out/predictions.json").read_text()) == []
    assert detection.average_precision(load_view(inputs["test"]), []) == {"ap": 0, "ap50": 0}


@pytest.mark.parametrize(
    "settings", [{}, {"assigner": "rfla", "receptive_fields": "resnet50", "optimizer": "sgd"}]
)
@pytest.mark.usefixtures("small_heads")
def test_an_interrupted_training_ends_with_the_same_bits(inputs, tmp_path, monkeypatch, settings):
    train(inputs, tmp_path, "whole", **settings)

    cut = functools.partial(train_task, detection, inputs, SETTINGS | settings, tmp_path, "cut", interval=0)
    power_cut(monkeypatch, 10, cut)
    assert not (tmp_path / "cut").exists()
    torch.manual_seed(1234)  # what a new process happens to start with must not matter
    cut()
    assert_same(tmp_path / "whole", tmp_path / "cut")


@pytest.mark.usefixtures("small_heads")
def test_a_detector_whose_features_are_compiled_learns_the_same(inputs, tmp_path, traced):
    train(inputs, tmp_path, "plain", epochs=1)
    train(inputs, tmp_path, "compiled", epochs=1, compile=True)
    assert "extract_feat" in traced
    plain, compiled = (pd.read_csv(tmp_path / name / "history.csv") for name in ("plain", "compiled"))
    assert compiled["train_loss"].to_numpy() == pytest.approx(plain["train_loss"].to_numpy(), rel=1e-3)


@pytest.mark.usefixtures("small_heads")
def test_a_loss_that_is_no_number_stops_the_training(inputs, tmp_path):
    with pytest.raises(
        BusflowError,
        match=r"loss is nan in epoch 1, in the batch of \w+/.*lower learning_rate",
    ):
        train(inputs, tmp_path, "out", learning_rate=1e30)
    assert not (tmp_path / "out").exists()


@pytest.mark.usefixtures("small_heads")
def test_the_learning_rate_falls_to_a_tenth_at_each_milestone(inputs, tmp_path):
    train(inputs, tmp_path, "out", epochs=3, milestones=[1, 2], warmup_epochs=0, layer_decay=0.5)
    rates = pd.read_csv(tmp_path / "out/history.csv")["learning_rate"]
    assert rates.tolist() == pytest.approx([5e-5, 5e-6, 5e-6])  # after each epoch


def test_average_precision_is_pycocotools(inputs):
    view = load_view(inputs["train"])
    rng = np.random.default_rng(0)
    results = [
        {
            "image_id": f"lin/{k:02d}",
            "label": LESIONS[int(rng.integers(2))],
            "bbox": (np.array(picture(k)[1]) + rng.normal(0, 2, 4)).tolist(),
            "score": float(rng.uniform()),
        }
        for k in np.repeat(range(6), 8)
    ]
    truth = COCO()
    truth.dataset = view
    truth.createIndex()
    found = [
        {
            **each,
            "image_id": int(each["image_id"][4:]) + 1,
            "category_id": LESIONS.index(each["label"]) + 1,
        }
        for each in results
    ]
    evaluation = COCOeval(truth, truth.loadRes(found), "bbox")
    for step in (evaluation.evaluate, evaluation.accumulate, evaluation.summarize):
        step()
    expected = {"ap": evaluation.stats[0], "ap50": evaluation.stats[1]}
    assert detection.average_precision(view, results) == pytest.approx(expected, abs=1e-12)
    assert 0 < expected["ap"] < expected["ap50"]


def test_an_image_that_the_index_lacks_is_named(inputs, tmp_path):
    pd.read_csv(inputs["images"]).iloc[1:].to_csv(inputs["images"], index=False)
    with pytest.raises(BusflowError, match=r"train\.json names lin/00, which .*images\.csv lacks"):
        train(inputs, tmp_path, "out")


def test_every_trainable_parameter_is_in_one_group_and_only_weights_decay(tmp_path):
    settings, weights = SETTINGS | {"detector": "detr"}, tmp_path / "resnet50.pth"
    torch.save(detectors.build_network(settings).backbone.state_dict(), weights)
    network = detectors.build_network(settings, weights)  # some of its layers are frozen
    groups = parameter_groups(network, 1e-3, 0.05, lambda name: 0.1 if name.startswith("backbone") else 1.0)
    members = [parameter for group in groups for parameter in group["params"]]
    trainable = {id(p): name for name, p in network.named_parameters() if p.requires_grad}
    assert sorted(id(p) for p in members) == sorted(trainable)
    for group in groups:
        names = [trainable[id(p)] for p in group["params"]]
        assert {name.startswith("backbone") for name in names} == {group["lr"] == pytest.approx(1e-4)}
        assert {p.ndim > 1 for p in group["params"]} == {group["weight_decay"] > 0}


@pytest.mark.slow
def test_a_cascade_learns_four_phantoms_by_heart(tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    labels = ["benign", "benign", "malignant", "malignant"]
    phantoms = [phantom(rng, label, (180, 220)) for label in labels]
    images = [each.image for each in phantoms]
    boxes = [cv2.boundingRect(each.mask.astype(np.uint8)) for each in phantoms]
    # The same four in every split, and in training again and again, so that there are few epochs.
    again = 30
    inputs = write_inputs(
        tmp_path,
        images * (again + 2),
        boxes * (again + 2),
        labels * (again + 2),
        np.repeat(["train", "val", "test"], [4 * again, 4, 4]).tolist(),
        SIZE,
    )
    shrink_heads(monkeypatch, 128)
    monkeypatch.setattr(detection, "BoxAugmentation", lambda seed, samples, strength: None)
    train(inputs, tmp_path, "out", batch_size=4, micro_batch=4, reference_batch=4, drop_path=0.0)
    history = pd.read_csv(tmp_path / "out/history.csv")
    assert history["val_ap50"].max() > 0.9
    detection.predict(inputs, tmp_path / "out/weights.pth", TIMING, tmp_path / "out")
    results = json.loads((tmp_path / "out/predictions.json").read_text())
    assert detection.average_precision(load_view(inputs["test"]), results)["ap50"] > 0.9
