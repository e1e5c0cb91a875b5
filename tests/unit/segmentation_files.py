"""A tiny finished segmentation study on disk: index, images, masks, splits and results, seeded.

The metrics are counted here, plainly, from the definitions; nothing of the study's own scoring is used.
"""

import hashlib
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image
from pycocotools import mask as rle
from scipy.ndimage import binary_erosion, distance_transform_edt

from busflow.files import sha256, write_csv, write_json
from busflow.metrics.resamples import write_metrics
from busflow.metrics.uncertainty import RESAMPLES, Estimate

WIDTH, HEIGHT = 80, 60
SEGMENTERS = {
    "convnext_tiny": "ConvNeXt-Tiny",
    "convnext_small": "ConvNeXt-Small",
    **{f"segformer_b{k}": f"SegFormer-B{k}" for k in range(5)},
}
BUSI = "Al-Dhabyani et al. [27]"
LESIONS = ("benign", "malignant")
CLASSES = ("background", *LESIONS)
COUNTS = {"benign": 9, "malignant": 7, "normal": 4}  # test images


def study_settings(models=tuple(SEGMENTERS), notice=None) -> dict:
    return {
        "study": {"name": "test", "title": "Test", "notice": notice},
        "protocols": {
            "paper": {"label": "Paper protocol", "split": "paper"},
            "grouped": {"label": "Grouped protocol", "split": "grouped"},
        },
        "sources": {"busi": {"label": BUSI, "original_task": "Segmentation"}},
        "models": {"segmentation": {model: {"label": SEGMENTERS[model]} for model in models}},
        "figures": {"examples": {}},
    }


def make_split() -> pd.DataFrame:
    """Test images, two to a group, and one training image."""
    rows = [
        (f"busi/{label}_{i:04d}", "test", label, f"busi/{label}_{i - i % 2:04d}")
        for label, n in COUNTS.items()
        for i in range(n)
    ]
    rows.append(("busi/benign_0099", "train", "benign", "busi/benign_0099"))
    return pd.DataFrame(rows, columns=["image_id", "split", "label", "group"])


def ellipse(x: float, y: float, a: float, b: float) -> np.ndarray:
    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    return ((columns - x) / a) ** 2 + ((rows - y) / b) ** 2 <= 1


def make_masks(split: pd.DataFrame, seed: int = 0) -> dict[str, np.ndarray]:
    """Index masks [60, 80] of the test images: one ellipse of the image's class, none in normals."""
    rng = np.random.default_rng(seed)
    masks = {}
    for row in split[split["split"] == "test"].itertuples():
        shape = ellipse(rng.uniform(25, 55), rng.uniform(20, 40), rng.uniform(4, 20), rng.uniform(4, 15))
        inside = CLASSES.index(row.label) if row.label in LESIONS else 0
        masks[row.image_id] = np.where(shape, inside, 0).astype(np.uint8)
    return masks


def make_predictions(masks: dict[str, np.ndarray], seed: int = 0, off: int = 3) -> dict[str, np.ndarray]:
    """Masks moved by up to ``off`` pixels, some of the wrong class, empty, or where there is no lesion."""
    rng = np.random.default_rng(seed)
    found = {}
    for image_id, truth in masks.items():
        moved = np.roll(truth, rng.integers(-off, off + 1, 2), axis=(0, 1))
        if rng.random() < 0.15:
            moved = np.where(moved, 3 - moved, 0)
        if rng.random() < 0.1:
            moved = np.zeros_like(truth)
        if not truth.any() and rng.random() < 0.5:
            moved = 2 * ellipse(20, 20, 6, 5)
        found[image_id] = moved.astype(np.uint8)
    return found


def encode(predictions: dict[str, np.ndarray]) -> list[dict]:
    """What predict writes: both lesion classes of every image as COCO RLE."""
    entries = []
    for image_id, labels in predictions.items():
        for k, label in enumerate(CLASSES[1:], start=1):
            code = rle.encode(np.asfortranarray(labels == k).astype(np.uint8))
            segmentation = {"size": list(labels.shape), "counts": code["counts"].decode("ascii")}
            entries.append({"image_id": image_id, "label": label, "segmentation": segmentation})
    return entries


def make_metrics(split: pd.DataFrame, masks: dict, predictions: dict, split_sha256: str = "0" * 64) -> dict:
    """The metrics of one unit; the resamples are made up."""
    test = split[split["split"] == "test"].sort_values("image_id")
    truth = np.stack([masks[image_id] for image_id in test["image_id"]])
    found = np.stack([predictions[image_id] for image_id in test["image_id"]])
    images = [
        {
            "image_id": row.image_id,
            "label": row.label,
            "group": row.group,
            "dice": dice(t > 0, f > 0),
            "iou": overlap(t > 0, f > 0),
            "hd95_px": hd95(t > 0, f > 0),
            "relative_area": float((t > 0).mean()),
        }
        for row, t, f in zip(test.itertuples(), truth, found, strict=True)
    ]
    views = {
        "two_class": pooled(truth > 0, found > 0, ("background", "lesion")),
        "three_class": pooled(truth, found, CLASSES),
    }
    normal = [(f > 0) for f, image in zip(found, images, strict=True) if image["label"] == "normal"]
    lesions = [image for image in images if image["label"] in LESIONS]
    of_class = {
        label: [
            dice(t == k, f == k)
            for t, f, image in zip(truth, found, images, strict=True)
            if image["label"] == label
        ]
        for k, label in enumerate(LESIONS, start=1)
    }
    per_image = {
        **{
            name: overlaps(part) | {"n_missed": sum(each["hd95_px"] is None for each in part)}
            for name, part in [
                ("lesion", lesions),
                *((label, [each for each in lesions if each["label"] == label]) for label in LESIONS),
            ]
        },
        "normal": {
            "n": len(normal),
            "false_positive_images": sum(bool(f.any()) for f in normal),
            "false_positive_area": spread([f.mean() for f in normal]),
            "dice": spread([float(not f.any()) for f in normal]),
        },
        "class_dice": {label: spread(values) for label, values in of_class.items()},
    }
    areas = np.array([each["relative_area"] for each in lesions])
    first, second = np.quantile(areas, [1 / 3, 2 / 3]) if len(areas) else (0, 0)
    sizes = {"smallest": (0, first), "middle": (first, second), "largest": (second, 1)}
    pixels = {"small": (0, 32**2), "medium": (32**2, 96**2), "large": (96**2, np.inf)}
    near = {
        "two_class_miou": views["two_class"]["miou"],
        "two_class_lesion_iou": views["two_class"]["per_class"]["lesion"]["iou"],
        "three_class_miou": views["three_class"]["miou"],
        "dice_mean": per_image["lesion"]["dice"]["mean"],
    }
    estimates = {
        name: make_estimate(np.nan if value is None else value, test["group"].nunique())
        for name, value in near.items()
    }
    return {
        "n": len(images),
        "n_groups": int(test["group"].nunique()),
        "n_pixels": int(truth.size),
        "split_sha256": split_sha256,
        "images_sha256": hashlib.sha256("\n".join(test["image_id"]).encode()).hexdigest(),
        "labels": list(CLASSES),
        "lesion_pixel_share": float((truth > 0).mean()),
        "views": views,
        "per_image": per_image,
        "sizes": {
            name: {"bounds": [float(low), float(high)]}
            | overlaps([each for each in lesions if low < each["relative_area"] <= high])
            for name, (low, high) in sizes.items()
        },
        "coco_sizes": {
            name: overlaps([e for e in lesions if low <= e["relative_area"] * WIDTH * HEIGHT < high])
            for name, (low, high) in pixels.items()
        },
        "images": images,
        "intervals": {name: estimate.interval() for name, estimate in estimates.items()},
        "resamples": estimates,
    }


def make_estimate(value: float, groups: int) -> Estimate:
    """Any spread, the same for all units."""
    noise = np.random.default_rng(0).normal(0, 0.01, RESAMPLES + groups)
    return Estimate(value + np.r_[0, noise], np.ones((groups, 1)))


def pooled(truth: np.ndarray, found: np.ndarray, classes: tuple[str, ...]) -> dict:
    """IoU, accuracy and Dice of each class over all pixels, and their means."""
    per_class = {}
    for k, label in enumerate(classes):
        t, f = truth == k, found == k
        both, either, n = int((t & f).sum()), int((t | f).sum()), int(t.sum())
        per_class[label] = {
            "iou": both / either if either else None,
            "acc": both / n if n else None,
            "dice": 2 * both / (both + either) if either else None,
            "n_pixels": n,
            "n_images": int(t.any(axis=(1, 2)).sum()),
        }

    def mean(name: str) -> float:
        return float(np.mean([block[name] for block in per_class.values() if block[name] is not None]))

    right = float((truth == found).mean())
    return {"miou": mean("iou"), "aacc": right, "macc": mean("acc"), "per_class": per_class}


def overlaps(images: list[dict]) -> dict:
    distances = [each["hd95_px"] for each in images if each["hd95_px"] is not None]
    return {
        "n": len(images),
        "dice": spread([each["dice"] for each in images]),
        "iou": spread([each["iou"] for each in images]),
        "hd95_px": spread(distances) | {"median": float(np.median(distances)) if distances else None},
    }


def spread(values: list[float]) -> dict:
    sd = float(np.std(values, ddof=1)) if len(values) > 1 else None
    return {"mean": float(np.mean(values)) if values else None, "sd": sd, "n": len(values)}


def dice(truth: np.ndarray, found: np.ndarray) -> float:
    total = truth.sum() + found.sum()
    return float(2 * (truth & found).sum() / total) if total else 1.0


def overlap(truth: np.ndarray, found: np.ndarray) -> float:
    either = (truth | found).sum()
    return float((truth & found).sum() / either) if either else 1.0


def hd95(truth: np.ndarray, found: np.ndarray) -> float | None:
    if not (truth.any() and found.any()):
        return None
    edges = [each & ~binary_erosion(each) for each in (truth, found)]
    there, back = (distance_transform_edt(~b)[a] for a, b in (edges, edges[::-1]))
    return float(np.percentile(np.concatenate([there, back]), 95))


def make_timing(median_ms: float, device: str = "Test CPU") -> dict:
    latency = {"batch": 1, "n": 9, "mean_ms": median_ms, "p50_ms": median_ms}
    return {
        "device": device,
        "precision": "fp32",
        "threads": 1,
        "image_size": 64,
        "warmup": 1,
        "latency": latency | {"p95_ms": 2 * median_ms, "p99_ms": 3 * median_ms},
        "test_set": {"n": sum(COUNTS.values()), "seconds": 0.02 * median_ms},
    }


def write_study(root: Path, settings: dict, seeds=(0,)) -> dict[str, list[Path] | Path]:
    """Index, images, masks and every unit's predictions, metrics, history and timing; the paths by kind."""
    split, rng = make_split(), np.random.default_rng(0)
    masks = make_masks(split)
    images = split[["image_id"]].assign(source="busi", label=split["label"], width=WIDTH, height=HEIGHT)
    images["path"] = [(root / "raw" / f"{image_id}.png").as_posix() for image_id in images["image_id"]]
    for image_id, path in images[["image_id", "path"]].itertuples(index=False):
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        grey = rng.integers(60, 120, (HEIGHT, WIDTH)) - 40 * (masks.get(image_id, np.zeros(1)) > 0)
        Image.fromarray(grey.astype(np.uint8)).save(path)
    write_csv(root / "index/images.csv", images)
    paths = {kind: [] for kind in ("splits", "predictions", "metrics", "history", "timing")}
    paths |= {"images": root / "index/images.csv", "masks": root / "views/paper/segmentation/masks"}
    for protocol in settings["protocols"]:
        path = root / f"splits/{protocol}/segmentation.csv"
        write_csv(path, split)
        paths["splits"].append(path)
        for image_id, labels in masks.items():
            file = root / f"views/{protocol}/segmentation/masks/{image_id}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(labels).save(file)
        for m, model in enumerate(settings["models"]["segmentation"]):
            for seed in seeds:
                unit = root / f"results/{protocol}/segmentation/{model}/seed{seed}"
                found = make_predictions(masks, 10 * m + seed, off=1 + m)
                write_json(unit / "predictions.json", encode(found))
                write_metrics(unit / "metrics.json", make_metrics(split, masks, found, sha256(path)))
                write_json(unit / "timing.json", make_timing(10.0 * (m + 1)))
                epochs = np.arange(1, 4)
                history = pd.DataFrame({"epoch": epochs, "step": 5 * epochs, "seconds": 2.0 * epochs})
                for name in ("learning_rate", "train_loss", "val_miou", "val_lesion_iou"):
                    history[name] = 1 / epochs
                write_csv(unit / "history.csv", history)
                for kind in ("predictions", "metrics", "history", "timing"):
                    paths[kind].append(unit / f"{kind}.{'csv' if kind == 'history' else 'json'}")
    return paths
