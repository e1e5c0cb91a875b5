"""What predicting new images costs beyond the network, and what another runtime makes of the network.

predict / bare: seconds of ``busflow predict``, from JPEG files to masks, run lengths and summary, against the
bare network on ready tensors, image by image in turn, so that the machine's speed cancels out. Reading and
writing have the second core. Target: <= 1.1.
onnxruntime / torch: seconds of an exported graph against the same graph in torch, on one core; images in,
answers out.
"""

import argparse
import contextlib
import io
import logging
import statistics
import tempfile
import time
from pathlib import Path

import cv2
import numpy as np
import onnxruntime
import torch

from busflow.data.masks import CLASSES
from busflow.engine.checkpoints import save_weights
from busflow.engine.meta import PREPARATION
from busflow.inference import export, members, predict
from busflow.labels import LABELS
from busflow.models import classifier, segmenters

CPU = torch.device("cpu")
SIDE = {"classification": 224, "segmentation": 512}
SETTINGS = {
    "classification": {"timm": "convnext_tiny", "network": {}},
    "segmentation": {
        "segmenter": "segformer",
        "backbone": "b0",
        "drop_path": 0.0,
        "auxiliary_weight": 0.4,
        "balance_classes": False,
    },
}
CALIBRATION = {
    "temperature": 1.0,
    "n": 1,
    "n_malignant": 0,
    "nll": {"before": 1.0, "after": 1.0},
    "thresholds": {"0.90": None, "0.95": None},
}
ORIGIN = {
    "study": "benchmark",
    "notice": None,
    "protocol": "none",
    "model": "any",
    "seed": 0,
}


def write_weights(folder: Path, task: str) -> Path:
    settings = SETTINGS[task]
    if task == "classification":
        network, classes = classifier.build_network(settings["timm"]), LABELS
    else:
        network, classes = segmenters.build_network(settings), CLASSES
        network.init_weights()
    meta = {
        "task": task,
        "settings": settings | {"image_size": SIDE[task]},
        "classes": list(classes),
        "preparation": PREPARATION,
        "images": {"brightness": [0, 255], "contrast": [0, 128], "aspect": [0.2, 5]},
        "origin": ORIGIN | {"sources": []},
        "epoch": 1,
        **({"calibration": CALIBRATION} if task == "classification" else {}),
    }
    save_weights(folder / f"{task}.pth", network.state_dict(), meta)
    return folder / f"{task}.pth"


def write_images(folder: Path, count: int) -> None:
    folder.mkdir()
    rng = np.random.default_rng(0)
    for k in range(count):
        speckle = cv2.GaussianBlur(rng.rayleigh(60, (470, 560)).astype(np.float32), (5, 3), 0)
        cv2.imwrite(str(folder / f"{k:04d}.jpg"), speckle.clip(0, 255).astype(np.uint8))


def bare_seconds(weights: Path, images: int) -> float:
    """Of the network alone, one ready tensor at a time."""
    _, (member,) = members.load_members([weights], CPU)
    ready = torch.zeros(1, 3, member.side, member.side)
    with torch.inference_mode():
        member.model(ready)
        start = time.perf_counter()
        for _ in range(images):
            member.model(ready)
        return time.perf_counter() - start


def predict_seconds(weights: Path, images: Path, output: Path) -> float:
    """Of the whole command, less its start: loading the weights, and starting the process that reads."""
    one = next(images.iterdir())
    seconds = []
    for name, place in (("one", one), ("all", images)):
        start = time.perf_counter()
        with contextlib.redirect_stderr(io.StringIO()):
            predict.predict([weights], [str(place)], output / name, CPU, 1)
        seconds.append(time.perf_counter() - start)
    return seconds[1] - seconds[0]


def runtime_ratio(folder: Path, task: str, rounds: int) -> float:
    """Median of onnxruntime's seconds over torch's, for one image at a time."""
    weights, path = folder / f"{task}.pth", folder / f"{task}.onnx"
    export.export(weights, path)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(path, options)
    graph = export.graph_of(task, members.load_members([weights], CPU)[1][0])
    image = np.random.default_rng(0).integers(0, 256, (1, 1, 470, 560), dtype=np.uint8)
    ratios = []
    with torch.inference_mode():
        for _ in range(rounds):
            times = []
            for call in (
                lambda: session.run(None, {"images": image}),
                lambda: graph(torch.from_numpy(image)),
            ):
                start = time.perf_counter()
                call()
                times.append(time.perf_counter() - start)
            ratios.append(times[0] / times[1])
    return statistics.median(ratios[1:])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    torch.set_num_threads(1)
    logging.disable(logging.INFO)  # mmengine tells of every weight that it draws
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        weights = {task: write_weights(folder, task) for task in SETTINGS}
        write_images(folder / "images", args.images)
        ratios = []
        for k in range(args.rounds):
            bare = bare_seconds(weights["segmentation"], args.images)
            whole = predict_seconds(weights["segmentation"], folder / "images", folder / f"out{k}")
            ratios.append(whole / bare)
            print(f"  SegFormer-B0, {args.images} images: bare {bare:.1f} s, predict {whole:.1f} s")
        print(f"predict / bare: {statistics.median(ratios):.2f}")
        for task in SETTINGS:
            print(f"onnxruntime / torch, {task}: {runtime_ratio(folder, task, 11):.2f}")


if __name__ == "__main__":
    main()
