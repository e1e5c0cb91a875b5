"""A tiny finished detection study on disk: index, images, splits and the results of detectors, seeded."""

from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from busflow.files import write_csv, write_json

BOX = ["x", "y", "w", "h"]
WIDTH, HEIGHT = 160, 120
DETECTORS = {
    "convnext_tiny": "ConvNeXt-Tiny",
    "convnext_small": "ConvNeXt-Small",
    "swin_base": "Swin-Base",
    "detr_r50": "DETR-ResNet50",
    "convnext_small_rfla": "ConvNeXt-Small w/ RFLA",
    "swin_base_rfla": "Swin-Base w/ RFLA",
    "swin_base_detectors_rfla": "Swin-Base w/ DetectoRS & RFLA",
}
LIN = "Lin et al. [26]"


def study_settings(models=tuple(DETECTORS), notice=None, examples=None) -> dict:
    return {
        "study": {"name": "test", "title": "Test", "notice": notice},
        "protocols": {
            "paper": {"label": "Paper protocol", "split": "paper"},
            "grouped": {"label": "Grouped protocol", "split": "grouped"},
        },
        "sources": {"lin": {"label": LIN, "original_task": "Object detection"}},
        "models": {"detection": {model: {"label": DETECTORS[model]} for model in models}},
        "figures": {"examples": {}, "detection_examples": examples or {}},
    }


def make_truth(videos: int = 8, frames: int = 4) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """Split (all test, but for one training video), images and annotations; one lesion a frame."""
    rng = np.random.default_rng(0)
    rows, boxes = [], []
    for video in range(videos + 1):
        label = ("benign", "malignant")[video % 2]
        folder = f"lin/{label}/x{video:03d}"
        w, h = rng.uniform(20, 110), rng.uniform(14, 80)
        x, y = rng.uniform(0, WIDTH - w), rng.uniform(0, HEIGHT - h)
        for frame in range(frames):
            image_id = f"{folder}/{frame:06d}"
            rows.append((image_id, "train" if video == videos else "test", label, folder))
            boxes.append((f"{image_id}#1", image_id, label, round(x), round(y), round(w), round(h)))
    split = pd.DataFrame(rows, columns=["image_id", "split", "label", "group"])
    annotations = pd.DataFrame(boxes, columns=["annotation_id", "image_id", "label", *BOX])
    images = split[["image_id"]].assign(path="none.png", width=WIDTH, height=HEIGHT)
    return split, images, annotations


def make_detections(
    split: pd.DataFrame, annotations: pd.DataFrame, seed: int = 0, jitter: float = 5
) -> list[dict]:
    """Boxes near the lesions of the test images, sometimes of the wrong class, and others anywhere."""
    rng = np.random.default_rng(seed)
    found = []
    for row in annotations.merge(split, on="image_id", suffixes=("_upstream", "")).itertuples():
        if row.split != "test":
            continue
        for k in range(rng.integers(0, 3)):
            near = np.array([row.x, row.y, row.w, row.h]) + rng.normal(0, jitter, 4)
            label = row.label if rng.random() < 0.8 else {"benign": "malignant"}.get(row.label, "benign")
            found.append((row.image_id, label, near, rng.uniform(0.3, 1) / (k + 1)))
        for _ in range(rng.integers(0, 4)):
            away = rng.uniform((0, 0, 5, 5), (WIDTH - 30, HEIGHT - 30, 80, 60))
            found.append((row.image_id, rng.choice(["benign", "malignant"]), away, rng.uniform(0, 0.7)))
    return [
        {"image_id": i, "label": str(label), "bbox": np.maximum(box, 1).round(2).tolist(), "score": float(s)}
        for i, label, box, s in found
    ]


def write_unit(folder: Path, split=None, images=None, annotations=None, detections=None) -> list[Path]:
    """Write what evaluate reads; return the paths in its order."""
    default = make_truth()
    split, images, annotations = (
        each if each is not None else other
        for each, other in zip((split, images, annotations), default, strict=True)
    )
    write_csv(folder / "split.csv", split)
    write_csv(folder / "images.csv", images)
    write_csv(folder / "annotations.csv", annotations)
    write_json(
        folder / "predictions.json", make_detections(split, annotations) if detections is None else detections
    )
    return [folder / name for name in ("predictions.json", "split.csv", "annotations.csv", "images.csv")]


def write_study(root: Path, settings: dict, seeds=(0,)) -> dict[str, list[Path]]:
    """Splits, index, images, and predictions, metrics and timing of every unit; return the paths by kind."""
    from busflow.metrics.detection import evaluate
    from busflow.metrics.resamples import write_metrics

    split, images, annotations = make_truth(videos=22, frames=2)
    rng = np.random.default_rng(0)
    images["path"] = [(root / "raw" / f"{i}.png").as_posix() for i in range(len(images))]
    (root / "raw").mkdir(parents=True)
    for path in images["path"]:
        Image.fromarray(rng.integers(0, 120, (HEIGHT, WIDTH), dtype=np.uint8)).save(path)
    write_csv(root / "index/images.csv", images)
    write_csv(root / "index/annotations.csv", annotations)
    paths = {kind: [] for kind in ("splits", "predictions", "metrics", "timing")}
    paths |= {"images": root / "index/images.csv", "annotations": root / "index/annotations.csv"}
    for protocol in settings["protocols"]:
        split_path = root / f"splits/{protocol}/detection.csv"
        write_csv(split_path, split)
        paths["splits"].append(split_path)
        for m, model in enumerate(settings["models"]["detection"]):
            for seed in seeds:
                unit = root / f"results/{protocol}/detection/{model}/seed{seed}"
                write_json(
                    unit / "predictions.json", make_detections(split, annotations, 10 * m + seed, 3 + m)
                )
                metrics = evaluate(
                    unit / "predictions.json", split_path, paths["annotations"], paths["images"]
                )
                write_metrics(unit / "metrics.json", metrics)
                write_json(unit / "timing.json", make_timing(20.0 * (m + 1)))
                for kind in ("predictions", "metrics", "timing"):
                    paths[kind].append(unit / f"{kind}.json")
    return paths


def make_timing(median_ms: float, device: str = "Test CPU") -> dict:
    latency = {"batch": 1, "n": 9, "mean_ms": median_ms, "p50_ms": median_ms}
    return {
        "device": device,
        "precision": "fp32",
        "threads": 1,
        "image_size": 96,
        "warmup": 1,
        "latency": latency | {"p95_ms": 2 * median_ms, "p99_ms": 3 * median_ms},
        "test_set": {"n": 32, "seconds": 0.032 * median_ms},
    }
