"""How long the evaluation of a detector takes, as a ratio to pycocotools on the same boxes.

Synthetic predictions of about the size of the Lin et al. test set: one lesion and a hundred boxes an image,
a few of them near the lesion. Both sides read the same arrays and give the same twelve statistics of COCO,
in this process, one after the other, in seconds of CPU time; the greatest difference is printed, too. Beside
them stands what all metrics of a unit of study take, reading the files included.
"""

import argparse
import contextlib
import io
import json
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from busflow.files import write_csv, write_json
from busflow.labels import LESIONS
from busflow.metrics import coco
from busflow.metrics.detection import BINS, evaluate
from busflow.metrics.detection_inputs import BOX, read_detections, read_truth

WIDTH, HEIGHT = 640, 480
NEAR = 5  # of an image's boxes


def write_files(folder: Path, images: int, boxes: int) -> list[Path]:
    """A test split of videos of a hundred frames, and predictions for it."""
    rng = np.random.default_rng(0)
    ids = [f"lin/video{i // 100:03}/{i % 100:06}" for i in range(images)]
    label = rng.choice(LESIONS, images)
    group = [image_id.rpartition("/")[0] for image_id in ids]
    split = pd.DataFrame({"image_id": ids, "split": "test", "label": label, "group": group})
    size = rng.uniform(20, 240, (images, 2))
    truth = np.c_[rng.uniform(0, (WIDTH, HEIGHT) - size), size].round()
    annotations = pd.DataFrame(truth, columns=BOX).assign(image_id=ids, annotation_id=ids)
    far = rng.uniform((0, 0, 10, 10), (WIDTH - 200, HEIGHT - 200, 200, 200), (images, boxes, 4))
    far[:, :NEAR] = truth[:, None] + rng.normal(0, 12, (images, NEAR, 4))
    far[..., 2:] = np.maximum(far[..., 2:], 1)
    score = rng.random((images, boxes)) * np.r_[np.ones(NEAR), np.full(boxes - NEAR, 0.8)]
    predicted = rng.choice(LESIONS, (images, boxes))
    write_csv(folder / "split.csv", split)
    write_csv(folder / "annotations.csv", annotations)
    write_csv(folder / "images.csv", split[["image_id"]].assign(path="", width=WIDTH, height=HEIGHT))
    entries = [
        {"image_id": ids[i], "label": str(predicted[i, j]), "bbox": far[i, j].tolist(), "score": score[i, j]}
        for i, j in np.ndindex(images, boxes)
    ]
    write_json(folder / "predictions.json", entries)
    return [folder / name for name in ("predictions.json", "split.csv", "annotations.csv", "images.csv")]


def by_pycocotools(truth: pd.DataFrame, detections: pd.DataFrame) -> np.ndarray:
    """Its twelve statistics."""
    category = {name: k for k, name in enumerate(LESIONS, start=1)}
    annotations = truth[["area"]].assign(
        id=truth.index + 1,
        image_id=truth["image"],
        category_id=truth["label"].map(category),
        bbox=truth[BOX].to_numpy().tolist(),
        iscrowd=0,
    )
    reference = COCO()
    reference.dataset = {
        "images": [{"id": image} for image in sorted(truth["image"])],
        "categories": [{"id": k, "name": name} for name, k in category.items()],
        "annotations": annotations.to_dict("records"),
    }
    with contextlib.redirect_stdout(io.StringIO()):
        reference.createIndex()
        rows = detections.assign(category=detections["label"].map(category))
        predicted = reference.loadRes(rows[["image", *BOX, "score", "category"]].to_numpy(float))
        evaluation = COCOeval(reference, predicted, "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return evaluation.stats


def by_busflow(truth: pd.DataFrame, detections: pd.DataFrame) -> np.ndarray:
    """The same twelve."""
    ranges = {coco.ALL: (0, coco.UNBOUNDED)} | BINS["coco"]
    found = coco.evaluate(truth, detections, {"area": ranges})["area"]
    sizes = ("small", "medium", "large")
    values = [found.ap(), found.ap(0.5), found.ap(0.75), *(found.ap(area=size) for size in sizes)]
    values += [*(found.ar(limit=n) for n in (1, 10, 100)), *(found.ar(area=size) for size in sizes)]
    return np.array([-1 if value is None else value for value in values])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=3500)
    parser.add_argument("--boxes", type=int, default=100, help="predicted boxes of an image")
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    seconds = {"pycocotools": [], "busflow": [], "everything": []}
    with tempfile.TemporaryDirectory() as scratch:
        files = write_files(Path(scratch), arguments.images, arguments.boxes)
        truth = read_truth(*files[1:])
        boxes = truth.boxes, read_detections(files[0], truth)
        for _ in range(arguments.rounds):
            results = []
            for name, call in {"pycocotools": by_pycocotools, "busflow": by_busflow}.items():
                start = time.process_time()
                results.append(call(*boxes))
                seconds[name].append(time.process_time() - start)
            start = time.process_time()
            evaluate(*files)
            seconds["everything"].append(time.process_time() - start)
    median = {name: statistics.median(values) for name, values in seconds.items()}
    report = {
        "images": arguments.images,
        "predicted_boxes": len(boxes[1]),
        "cpu_seconds": {name: round(value, 2) for name, value in median.items()},
        "ratio": round(median["busflow"] / median["pycocotools"], 3),
        "ratio_of_everything": round(median["everything"] / median["pycocotools"], 3),
        "greatest_difference": float(np.abs(results[0] - results[1]).max()),
    }
    print(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
