"""A tiny finished study on disk: index, splits and the results of some classifiers, seeded."""

from pathlib import Path

import numpy as np
import pandas as pd

from busflow.files import write_csv, write_json
from busflow.metrics.classification import evaluate
from busflow.metrics.resamples import write_metrics

LABELS = ["benign", "malignant", "normal"]
LIN, BUSI, RODRIGUES = "Lin et al. [26]", "Al-Dhabyani et al. [27]", "Rodrigues et al. [28]"
# (source, label, groups, images per group)
CONTENT = [
    ("lin", "benign", 12, 6),
    ("lin", "malignant", 14, 6),
    ("busi", "benign", 30, 1),
    ("busi", "malignant", 20, 1),
    ("busi", "normal", 24, 2),
    ("rodrigues", "benign", 6, 5),
    ("rodrigues", "malignant", 6, 5),
]


def study_settings(models=("convnext_atto", "convnext_nano", "convnext_small"), notice=None) -> dict:
    return {
        "study": {"name": "test", "title": "Test", "notice": notice},
        "protocols": {
            "paper": {"label": "Paper protocol", "split": "paper"},
            "grouped": {"label": "Grouped protocol", "split": "grouped"},
        },
        "sources": {
            "lin": {"label": LIN, "original_task": "Object detection"},
            "busi": {"label": BUSI, "original_task": "Segmentation"},
            "rodrigues": {"label": RODRIGUES, "original_task": "Not applicable"},
        },
        "models": {
            "classification": {
                m: {"label": "ConvNeXt-" + m.removeprefix("convnext_").capitalize()} for m in models
            }
        },
        "figures": {"examples": {}},
    }


def make_images() -> pd.DataFrame:
    rows = []
    for source, label, groups, size in CONTENT:
        for group in range(groups):
            folder = f"{source}/{label}/x{group:03d}"
            rows += [(f"{folder}/{i:06d}", source, label, folder) for i in range(size)]
    images = pd.DataFrame(rows, columns=["image_id", "source", "label", "group"])
    return images.sort_values("image_id", ignore_index=True)


def make_split(images: pd.DataFrame, by: str, seed: int = 0) -> pd.DataFrame:
    """A half of the images or of the groups to test, a quarter to val, at random."""
    rng = np.random.default_rng(seed)
    split = images[["image_id", "label", "group"]].copy()
    for _, part in split.groupby("label"):
        units = rng.permutation(part[by].unique())
        third = max(1, len(units) // 2)
        subset = dict.fromkeys(units, "train") | dict.fromkeys(units[:third], "test")
        subset |= dict.fromkeys(units[third : third + max(1, third // 2)], "val")
        split.loc[part.index, "split"] = part[by].map(subset)
    return split[["image_id", "split", "label", "group"]]


def make_predictions(
    split: pd.DataFrame, seed: int = 0, skill: float = 1.5, never: str | None = None
) -> pd.DataFrame:
    """Predictions of the test images; ``never`` is a class that is not predicted."""
    test = split[split["split"] == "test"]
    logits = np.random.default_rng(seed).normal(size=(len(test), 3))
    logits[np.arange(len(test)), [LABELS.index(label) for label in test["label"]]] += skill
    if never:
        logits[:, LABELS.index(never)] -= 50
    p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    return pd.DataFrame(
        {
            "image_id": test["image_id"],
            "source": test["image_id"].str.split("/").str[0],
            "label": test["label"],
            "prediction": np.array(LABELS)[p.argmax(axis=1)],
            **{f"p_{label}": p[:, k] for k, label in enumerate(LABELS)},
        }
    )


def make_calibration(temperature: float = 1.5, threshold: float | None = 0.4) -> dict:
    return {
        "temperature": temperature,
        "n": 40,
        "n_malignant": 0 if threshold is None else 20,
        "nll": {"before": 0.9, "after": 0.8},
        "thresholds": {"0.90": threshold, "0.95": threshold and threshold / 2},
    }


def write_study(root: Path, settings: dict, seeds=(0,)) -> dict[str, list[Path]]:
    """Write index, splits, run records, predictions, metrics, histories, timings and leakage.

    Returns the paths by kind.
    """
    images = make_images()
    write_csv(root / "index/images.csv", images.assign(path="none.png"))
    lin = images[images["source"] == "lin"]
    boxes = pd.DataFrame({"annotation_id": range(len(lin)), "image_id": lin["image_id"]})
    write_csv(root / "index/annotations.csv", pd.concat([boxes, boxes.iloc[:3]]))
    kinds = (
        "classification",
        "detection",
        "segmentation",
        "predictions",
        "metrics",
        "history",
        "timing",
        "leakage",
    )
    paths = {kind: [] for kind in kinds}
    for protocol in settings["protocols"]:
        by = "image_id" if protocol == "paper" else "group"
        parts = {
            "classification": images,
            "detection": lin,
            "segmentation": images[images["source"] == "busi"],
        }
        for task, part in parts.items():
            path = root / f"splits/{protocol}/{task}.csv"
            write_csv(path, make_split(part, by))
            paths[task].append(path)
        split = pd.read_csv(root / f"splits/{protocol}/classification.csv")
        for m, model in enumerate(settings["models"]["classification"]):
            for seed in seeds:
                unit = root / f"results/{protocol}/classification/{model}/seed{seed}"
                never = "normal" if model == "convnext_atto" else None
                write_csv(unit / "predictions.csv", make_predictions(split, 10 * m + seed, 1 + m / 2, never))
                write_json(unit / "run.json", {"calibration": make_calibration(1.5 + seed)})
                inputs = (root / f"splits/{protocol}/classification.csv", unit / "run.json")
                write_metrics(unit / "metrics.json", evaluate(unit / "predictions.csv", *inputs))
                epochs = np.arange(1, 4)
                columns = ("train_loss", "val_nll", "val_accuracy", "val_macro_f1")
                write_csv(
                    unit / "history.csv", pd.DataFrame({"epoch": epochs} | dict.fromkeys(columns, 1 / epochs))
                )
                write_json(unit / "timing.json", make_timing(10.0 * (m + 1)))
                for kind, name in {
                    "predictions": "csv",
                    "metrics": "json",
                    "history": "csv",
                    "timing": "json",
                }.items():
                    paths[kind].append(unit / f"{kind}.{name}")
        share = 0.9 if protocol == "paper" else 0.0
        measures = {"n_train": 9, "n_test": 9, "exact_duplicate": share / 3, "near_duplicate": share / 2}
        measures |= {"same_group": share, "nearest_neighbour_accuracy": 0.7, "majority_accuracy": 0.5}
        path = root / f"leakage/{protocol}_classification.json"
        write_json(path, measures | {"sources": {"lin": measures, "busi": dict.fromkeys(measures, None)}})
        paths["leakage"].append(path)
    return paths


def make_timing(median_ms: float, device: str = "Test CPU") -> dict:
    return {
        "device": device,
        "precision": "fp32",
        "threads": 1,
        "image_size": 64,
        "warmup": 1,
        "latency": {
            "batch": 1,
            "n": 9,
            "mean_ms": median_ms,
            "p50_ms": median_ms,
            "p95_ms": 2 * median_ms,
            "p99_ms": 3 * median_ms,
        },
        "throughput": {"batch": 8, "n": 9, "images_per_s": 1000 / median_ms},
        "test_set": {"n": 9, "seconds": 1.0},
    }


def write_facts(path: Path, settings: dict) -> Path:
    """Network facts: the true ones of Atto, Nano and Small."""
    counts = {
        "convnext_atto": (3695040, 3375043, 549976320),
        "convnext_nano": (15593840, 14954883, 2453000000),
        "convnext_small": (50223688, 49456995, 8683000000),
    }
    facts = {
        model: {
            "label": entry["label"],
            "batch_size": 16,
            "params_1000": counts[model][0],
            "params_3": counts[model][1],
            "macs": counts[model][2],
            "size_bytes_3": 4 * counts[model][1],
        }
        for model, entry in settings["models"]["classification"].items()
    }
    write_json(path, facts)
    return path
