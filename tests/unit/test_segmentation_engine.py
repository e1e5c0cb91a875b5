"""Training one segmenter: masks go where pixels go, it learns, it publishes, a power cut leaves no trace."""

import functools
import json

import cv2
import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from pycocotools import mask as coco
from torchmetrics.functional.classification import multiclass_jaccard_index
from trainings import assert_same, power_cut
from trainings import train as train_task

from busflow.data.packing import letterbox
from busflow.data.phantoms import phantom
from busflow.engine import provenance, segmentation
from busflow.engine.augmentation import DRAWS
from busflow.engine.checkpoints import load_weights
from busflow.engine.masks import MaskAugmentation, read_masks, unletterbox
from busflow.errors import BusflowError
from busflow.labels import LESIONS
from busflow.models import segmenters

SIZE = 64
SETTINGS = {
    "segmenter": "segformer",
    "backbone": "b0",
    "drop_path": 0.1,
    "auxiliary_weight": 0.4,
    "balance_classes": True,
    "image_size": SIZE,
    "epochs": 2,
    "batch_size": 2,
    "micro_batch": 1,
    "learning_rate": 6e-5,
    "reference_batch": 2,
    "warmup_epochs": 0.5,
    "weight_decay": 0.01,
    "layer_decay": 1.0,
    "head_rate": 10.0,
    "poly_power": 1.0,
    "clip_grad": 10.0,
    "precision": "auto",
    "compile": False,
    "channels_last": False,
    "augmentation": 1.0,
}
TIMING = {"batch": 4, "warmup": 2, "iterations": 3}
WIDTH, HEIGHT = 97, 71
LABELS = (*LESIONS, "normal")


def picture(k: int) -> tuple[np.ndarray, np.ndarray, str]:
    """Dark noise with a bright ellipse and its index mask; malignant ones are upright, normals have none."""
    rng = np.random.default_rng(k)
    label = LABELS[k % 3]
    image = rng.integers(1, 60, (HEIGHT, WIDTH)).astype(np.uint8)
    mask = np.zeros_like(image)
    if label != "normal":
        axes = (16, 10) if label == "benign" else (10, 16)
        centre = [int(rng.integers(20, side - 20)) for side in (WIDTH, HEIGHT)]
        cv2.ellipse(mask, centre, axes, 0, 0, 360, LABELS.index(label) + 1, thickness=-1)
        image[mask > 0] += 150
    return image, mask, label


def write_inputs(folder, images: list, masks: list, labels: list, split: list, size: int) -> dict:
    """A study of these images."""
    ids = [f"busi/{label} ({k})" for k, label in enumerate(labels)]
    hashes = [f"{k:064x}" for k in range(len(split))]
    np.save(folder / "images.npy", np.stack([letterbox(image, size) for image in images]))
    pd.DataFrame({"row": range(len(split)), "pixel_sha256": hashes}).to_csv(
        folder / "packed.csv", index=False
    )
    sizes = np.array([image.shape for image in images])
    pd.DataFrame(
        {"image_id": ids, "width": sizes[:, 1], "height": sizes[:, 0], "pixel_sha256": hashes}
    ).to_csv(folder / "images.csv", index=False)
    pd.DataFrame({"image_id": ids, "split": split, "label": labels, "group": ids}).to_csv(
        folder / "split.csv", index=False
    )
    for image_id, mask in zip(ids, masks, strict=True):
        path = folder / "masks" / f"{image_id}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(mask).save(path)
    return {
        "images": folder / "images.csv",
        "split": folder / "split.csv",
        "packed_images": folder / "images.npy",
        "packed_index": folder / "packed.csv",
        "masks": folder / "masks",
    }


@pytest.fixture
def inputs(tmp_path) -> dict:
    """Six training, three validation and three test images: of each label as many."""
    images, masks, labels = zip(*(picture(k) for k in range(12)), strict=True)
    split = ["train"] * 6 + ["val"] * 3 + ["test"] * 3
    return write_inputs(tmp_path, images, masks, labels, split, SIZE)


def train(inputs: dict, tmp_path, output: str, workers: int = 0, **settings) -> None:
    train_task(segmentation, inputs, SETTINGS | settings, tmp_path, output, workers=workers)


def predict(inputs: dict, folder) -> list[dict]:
    seen = {name: path for name, path in inputs.items() if name != "masks"}
    segmentation.predict(seen, folder / "weights.pth", TIMING, folder)
    return json.loads((folder / "predictions.json").read_text())


def lesion_iou(found: list[dict], truths: dict[str, np.ndarray]) -> float:
    """Pixel-pooled IoU of lesion against background, decoded by pycocotools."""
    predicted = {image_id: np.zeros(mask.shape, bool) for image_id, mask in truths.items()}
    for each in found:
        predicted[each["image_id"]] |= coco.decode(each["segmentation"]).astype(bool)
    pairs = [(predicted[image_id], mask > 0) for image_id, mask in truths.items()]
    return sum((p & t).sum() for p, t in pairs) / sum((p | t).sum() for p, t in pairs)


def test_masks_lie_where_the_packed_image_shows_them(inputs):
    dataset = segmentation.read(inputs, "train")
    split = pd.read_csv(inputs["split"]).query("split == 'train'")
    batch = dataset.__getitems__([4, 0, 2])
    assert batch["samples"].tolist() == [4, 0, 2] and batch["masks"].dtype == torch.uint8
    assert split["label"].tolist() == list(LABELS) * 2
    for image, mask, k in zip(batch["images"], batch["masks"], (2, 1, None), strict=True):
        padding = (image == 0).all(dim=2, keepdim=True).expand_as(image)
        assert ((mask == 255) == padding).all() and padding.any()
        assert set(mask.unique().tolist()) - {0, 255} == ({k} if k else set())
        bright, lesion = image > 105, (mask > 0) & ~padding
        assert (bright & lesion).sum() >= 0.9 * (bright | lesion).sum()


@pytest.mark.parametrize("shape", [(71, 97), (203, 155), (128, 128), (40, 61)])
def test_a_prediction_of_the_truth_comes_back_in_pixels_of_the_original(tmp_path, shape):
    height, width = shape
    mask = np.zeros(shape, np.uint8)
    cv2.ellipse(mask, (width // 3, height // 2), (width // 5, height // 4), 20, 0, 360, 2, thickness=-1)
    Image.fromarray(mask).save(tmp_path / "odd.png")
    table = pd.DataFrame({"image_id": ["odd"], "width": [str(width)], "height": [str(height)]})
    (packed,) = read_masks(tmp_path, table, side=128)
    truth = torch.nn.functional.one_hot(torch.from_numpy(packed).long().clamp(max=3), 4)
    logits = truth[..., :3].permute(2, 0, 1).float()
    back = unletterbox(logits, width, height).argmax(dim=0).numpy()
    benign, malignant = segmentation.outlines("odd", back)
    assert [each["label"] for each in (benign, malignant)] == list(LESIONS)
    assert malignant["segmentation"]["size"] == [height, width]
    assert coco.area(benign["segmentation"]) == 0
    found = coco.decode(malignant["segmentation"]) > 0
    assert (found & (mask == 2)).sum() / (found | (mask == 2)).sum() > 0.95


@pytest.mark.parametrize("seed", range(5))
def test_masks_move_with_the_image(seed):
    augmentation = MaskAugmentation(seed, samples=3)
    augmentation.draws[:, 5:] = 0
    masks = torch.zeros(3, 1, 128, 128)
    masks[..., 40:90, 30:100] = torch.tensor([1.0, 2.0, 0.0]).view(3, 1, 1, 1)
    masks[..., 116:, :] = 255
    images = torch.where(masks == 255, 1.0, masks / 4 + 0.25)
    moved, moved_masks = augmentation(images, masks.byte(), torch.arange(3))
    assert set(moved_masks.unique().tolist()) == {0, 1, 2, 255}
    outside = moved < 0.125
    assert (moved_masks[outside] == 255).float().mean() > 0.99
    expected = torch.where(moved > 0.875, 255, ((moved - 0.25) * 4).round().clamp(0, 2))
    inner = ~outside
    assert (moved_masks[inner] == expected[inner]).float().mean() > 0.97
    assert not torch.equal(moved_masks, masks)


def test_at_no_strength_masks_are_mirrored_or_left():
    masks = torch.randint(0, 3, (8, 1, 32, 32), generator=torch.Generator().manual_seed(0)).byte()
    _, moved = MaskAugmentation(0, 8, strength=0)(masks.float(), masks, torch.arange(8))
    alike = [
        (torch.equal(after.byte(), before), torch.equal(after.byte(), before.flip(2)))
        for before, after in zip(masks, moved, strict=True)
    ]
    assert all(left != mirrored for left, mirrored in alike)
    assert 0 < sum(left for left, _ in alike) < 8


def test_every_draw_that_moves_the_image_moves_the_mask():
    masks = torch.randint(0, 3, (4, 1, 32, 32), generator=torch.Generator().manual_seed(0)).byte()
    before = MaskAugmentation(0, 4)
    for k in range(DRAWS):
        changed = MaskAugmentation(0, 4)
        changed.draws[:, k] = -changed.draws[:, k] + 0.01
        results = [each(masks.float() / 2, masks, torch.arange(4))[1] for each in (before, changed)]
        assert torch.equal(*results) == (k >= 5)


@pytest.mark.parametrize("seed", range(3))
def test_scores_are_torchmetrics(seed):
    generator = torch.Generator().manual_seed(seed)
    truth = torch.randint(0, 3, (4, 32, 32), generator=generator)
    truth[:, :5] = 255
    predicted = torch.randint(0, 3, truth.shape, generator=generator)
    counts = sum(segmentation.confusion(*each) for each in zip(truth, predicted, strict=True))
    found = segmentation.scores(counts.double().numpy())
    three = multiclass_jaccard_index(predicted, truth, 3, average="macro", ignore_index=255)
    lesion = torch.where(truth == 255, 255, truth.clamp(max=1))
    two = multiclass_jaccard_index(predicted.clamp(max=1), lesion, 2, average="none", ignore_index=255)
    assert found == pytest.approx({"miou": three.item(), "lesion_iou": two[1].item()}, abs=1e-6)


def test_a_class_neither_there_nor_predicted_has_no_score():
    counts = np.diag([90.0, 10, 0])
    assert segmentation.scores(counts) == {"miou": 1, "lesion_iou": 1}
    nothing = segmentation.scores(np.diag([90.0, 0, 0]))
    assert nothing["miou"] == 1 and np.isnan(nothing["lesion_iou"])
    missed = np.zeros((3, 3))
    missed[:, 0] = 80, 15, 5
    assert segmentation.scores(missed) == pytest.approx({"miou": 0.8 / 3, "lesion_iou": 0})


def test_a_segmenter_publishes_and_predicts(inputs, tmp_path):
    train(inputs, tmp_path, "out")
    out = tmp_path / "out"
    history = pd.read_csv(out / "history.csv")
    measured = ["epoch", "step", "seconds", "learning_rate", "train_loss", "val_miou", "val_lesion_iou"]
    assert list(history) == measured and history["step"].tolist() == [6, 12]
    assert history[measured[-2:]].ge(0).all(axis=None) and history[measured[-2:]].le(1).all(axis=None)
    meta = load_weights(out / "weights.pth")["meta"]
    assert meta["settings"] == SETTINGS | {"seed": 0}
    assert meta["classes"] == ["background", "benign", "malignant"]
    assert meta["epoch"] == history["val_miou"].idxmax() + 1
    record = json.loads((out / "run.json").read_text())
    assert set(record["inputs"]) == set(inputs) and "calibration" not in record

    found = predict(inputs, out)
    ids = ["busi/benign (9)", "busi/malignant (10)", "busi/normal (11)"]
    assert [(each["image_id"], each["label"]) for each in found] == [(i, k) for i in ids for k in LESIONS]
    for benign, malignant in zip(found[::2], found[1::2], strict=True):
        masks = [coco.decode(each["segmentation"]) for each in (benign, malignant)]
        assert masks[0].shape == (HEIGHT, WIDTH) and not (masks[0] & masks[1]).any()
    timing = json.loads((out / "timing.json").read_text())
    assert timing["test_set"]["n"] == timing["latency"]["n"] == 3 and timing["image_size"] == SIZE
    assert timing["test_set"]["seconds"] == pytest.approx(3e-3 * timing["latency"]["mean_ms"])


def test_a_segmenter_that_sees_no_lesion_predicts_empty_masks_of_every_image(inputs, tmp_path, monkeypatch):
    train(inputs, tmp_path, "out", epochs=1)
    load = segmentation.load

    def blind(weights):
        model, meta = load(weights)
        model.network.decode_head.conv_seg.bias.data = torch.tensor([1e3, 0, 0])
        return model, meta

    monkeypatch.setattr(segmentation, "load", blind)
    found = predict(inputs, tmp_path / "out")
    assert len(found) == 6
    for each in found:
        assert each["segmentation"]["size"] == [HEIGHT, WIDTH] and coco.area(each["segmentation"]) == 0


@pytest.fixture
def small_upernet(monkeypatch) -> dict:
    """Settings of a UPerNet, whose heads are made a hundredth of the size; all else is as in a study."""
    whole = segmenters.segmenter_config

    def small(*arguments):
        config = whole(*arguments)
        for name in {"decode_head", "auxiliary_head"} & config.keys():
            config[name].channels = 32
        return config

    monkeypatch.setattr(segmenters, "segmenter_config", small)
    return {"segmenter": "upernet", "backbone": "convnext_atto", "layer_decay": 0.9, "head_rate": 1.0}


def test_a_segmenter_whose_features_are_compiled_learns_the_same(inputs, tmp_path, traced):
    train(inputs, tmp_path, "plain", epochs=1)
    train(inputs, tmp_path, "compiled", epochs=1, compile=True)
    assert "extract_feat" in traced
    plain, compiled = (pd.read_csv(tmp_path / name / "history.csv") for name in ("plain", "compiled"))
    assert compiled["train_loss"].to_numpy() == pytest.approx(plain["train_loss"].to_numpy(), rel=1e-3)


@pytest.mark.parametrize(("segmenter", "step"), [("segformer", 7), ("upernet", 4)])
def test_an_interrupted_training_ends_with_the_same_bits(
    inputs, tmp_path, monkeypatch, small_upernet, segmenter, step
):
    settings = small_upernet | {"micro_batch": 2} if segmenter == "upernet" else {}
    train(inputs, tmp_path, "whole", **settings)

    cut = functools.partial(
        train_task, segmentation, inputs, SETTINGS | settings, tmp_path, "cut", interval=0
    )
    power_cut(monkeypatch, step, cut)
    assert not (tmp_path / "cut").exists()
    torch.manual_seed(1234)  # what a new process happens to start with must not matter
    cut()
    assert_same(tmp_path / "whole", tmp_path / "cut")


def test_the_number_of_workers_changes_nothing(inputs, tmp_path):
    train(inputs, tmp_path, "alone", epochs=1)
    train(inputs, tmp_path, "helped", workers=1, epochs=1)
    assert (tmp_path / "alone/weights.pth").read_bytes() == (tmp_path / "helped/weights.pth").read_bytes()


def test_another_mask_is_another_run(inputs):
    before = provenance.identity({}, provenance.describe_inputs(inputs))
    (inputs["masks"] / ".left_by_a_workflow_engine").touch()
    assert provenance.identity({}, provenance.describe_inputs(inputs)) == before
    Image.new("L", (WIDTH, HEIGHT)).save(inputs["masks"] / "busi/benign (0).png")
    assert provenance.identity({}, provenance.describe_inputs(inputs)) != before


def test_the_learning_rate_falls_with_the_power_of_the_steps_left(inputs, tmp_path):
    train(inputs, tmp_path, "out", epochs=3, warmup_epochs=0, poly_power=2.0)
    rates = pd.read_csv(tmp_path / "out/history.csv")["learning_rate"]
    # After each epoch, of the head, which has ten times the backbone's.
    assert rates.tolist() == pytest.approx([6e-4 * (left / 3) ** 2 for left in (2, 1, 0)])


def test_heads_learn_faster_and_early_stages_slower_than_the_backbones_end():
    own = {
        "segmenter": "upernet",
        "backbone": "convnext_atto",
        "layer_decay": 0.5,
        "head_rate": 3.0,
        "seed": 0,
    }
    setup = segmentation.prepare([None] * 6, [], SETTINGS | own | {"seed": 0, "micro_batch": 2})
    rates = {id(p): group["lr"] for group in setup.optimizer.param_groups for p in group["params"]}
    named = {name: rates[id(p)] / 6e-5 for name, p in setup.model.network.named_parameters()}
    # Five layers, of which the stages are the first four.
    assert named["backbone.network.stem_0.weight"] == pytest.approx(0.5**6)
    assert named["backbone.network.stages_3.blocks.0.norm.bias"] == pytest.approx(0.5**2)
    assert named["decode_head.conv_seg.weight"] == named["auxiliary_head.conv_seg.bias"] == pytest.approx(3)


def test_a_loss_that_is_no_number_stops_the_training(inputs, tmp_path):
    with pytest.raises(
        BusflowError,
        match=r"loss is nan in epoch 1, in the batch of \w+/.*lower learning_rate",
    ):
        train(inputs, tmp_path, "out", learning_rate=1e30)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda path: path.unlink(), r"malignant \(4\)\.png is no intact index mask"),
        (
            lambda path: path.write_bytes(path.read_bytes()[:60]),
            r"malignant \(4\)\.png is no intact index mask",
        ),
        (
            lambda path: Image.new("L", (HEIGHT, WIDTH)).save(path),
            r"mask of busi/malignant \(4\) in .*masks is 71 × 97 px, the image 97 × 71; run",
        ),
    ],
    ids=["missing", "cut short", "other size"],
)
def test_an_unusable_mask_is_named(inputs, tmp_path, spoil, message):
    spoil(inputs["masks"] / "busi/malignant (4).png")
    with pytest.raises(BusflowError, match=message):
        train(inputs, tmp_path, "out")
    assert not (tmp_path / "out").exists()


def test_a_class_that_a_split_lacks_is_no_obstacle(inputs, tmp_path):
    table = pd.read_csv(inputs["split"]).query("label != 'malignant'")
    table.query("split != 'val' or label != 'benign'").to_csv(inputs["split"], index=False)
    train(inputs, tmp_path, "out", epochs=1)
    assert len(predict(inputs, tmp_path / "out")) == 2 * 2


@pytest.mark.parametrize("name", ["train", "val", "test"])
def test_a_split_without_images_is_refused(inputs, tmp_path, name):
    train(inputs, tmp_path, "out", epochs=1)
    table = pd.read_csv(inputs["split"])
    table[table["split"] != name].to_csv(inputs["split"], index=False)
    with pytest.raises(BusflowError, match=rf"split\.csv has no image in its {name} split"):
        predict(inputs, tmp_path / "out") if name == "test" else train(inputs, tmp_path, "out")


def test_an_image_that_the_index_lacks_is_named(inputs, tmp_path):
    pd.read_csv(inputs["images"]).iloc[1:].to_csv(inputs["images"], index=False)
    with pytest.raises(BusflowError, match=r"split\.csv names busi/benign \(0\), which .*images\.csv lacks"):
        train(inputs, tmp_path, "out")


def test_a_upernet_refuses_single_images(inputs, tmp_path, small_upernet):
    with pytest.raises(BusflowError, match="batch_size 2 with micro_batch 1 puts one there at a time"):
        train(inputs, tmp_path, "out", **small_upernet)


@pytest.mark.slow
def test_a_segformer_learns_four_phantoms_by_heart(tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    labels = ["benign", "benign", "malignant", "malignant"]
    phantoms = [phantom(rng, label, (180, 221)) for label in labels]
    images = [each.image for each in phantoms]
    masks = [
        each.mask.astype(np.uint8) * (LESIONS.index(label) + 1)
        for each, label in zip(phantoms, labels, strict=True)
    ]
    # The same four in every split, and in training again and again, so that there are few epochs.
    again = 25
    inputs = write_inputs(
        tmp_path,
        images * (again + 2),
        masks * (again + 2),
        labels * (again + 2),
        np.repeat(["train", "val", "test"], [4 * again, 4, 4]).tolist(),
        SIZE,
    )
    monkeypatch.setattr(segmentation, "MaskAugmentation", lambda seed, samples, strength: None)
    settings = {"epochs": 4, "batch_size": 4, "micro_batch": 4, "reference_batch": 4, "drop_path": 0.0}
    train(inputs, tmp_path, "out", learning_rate=5e-4, **settings)
    found = predict(inputs, tmp_path / "out")
    ids = pd.read_csv(inputs["split"]).query("split == 'test'")["image_id"]
    assert lesion_iou(found, dict(zip(ids, masks, strict=True))) > 0.8
