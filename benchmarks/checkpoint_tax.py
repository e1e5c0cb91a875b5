"""What saved states cost a training, and what a kill costs it.

checkpoint tax: time of a step with states / without, at the default interval of 300 s. Each state's seconds
are the difference of two trainings, one that saves after every step and one that never does. Target: <= 1.02.
resume tax: of a training killed with SIGKILL and started again, the time beyond that of one left alone, per
second of work lost since the last state: starting again, and loading. Target: <= 1.2 for the loss to expect,
half an interval.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd

INTERVAL = 300  # seconds, the default of compute.checkpoint_interval
NEVER = 10**9
IMAGES = 64
SETTINGS = {
    "epochs": 1,
    "batch_size": 8,
    "micro_batch": 8,
    "learning_rate": 1e-4,
    "reference_batch": 8,
    "warmup_epochs": 0.5,
    "weight_decay": 0.05,
    "label_smoothing": 0.1,
    "network": {},
    "augmentation": 1.0,
    "precision": "auto",
    "compile": False,
    "channels_last": False,
    "balance_classes": False,
}


def write_inputs(folder: Path, size: int) -> list[str]:
    """A study of noise, as options of the training script."""
    files = {name: folder / name for name in ("images.csv", "images.npy", "packed.csv", "split.csv")}
    hashes = [f"{k:064x}" for k in range(IMAGES)]
    table = pd.DataFrame({"image_id": [f"busi/{k}" for k in range(IMAGES)], "pixel_sha256": hashes})
    table["label"] = np.resize(["benign", "malignant", "normal"], IMAGES)
    table["split"] = np.where(np.arange(IMAGES) < IMAGES - 8, "train", "val")
    np.save(files["images.npy"], np.random.default_rng(0).integers(0, 256, (IMAGES, size, size), np.uint8))
    table[["image_id", "pixel_sha256"]].assign(source="busi", width=size, height=size).to_csv(
        files["images.csv"], index=False
    )
    table[["pixel_sha256"]].assign(row=range(IMAGES)).to_csv(files["packed.csv"], index=False)
    table[["image_id", "split", "label"]].assign(group="none").to_csv(files["split.csv"], index=False)
    options = {"images": "images.csv", "packed-images": "images.npy", "packed-index": "packed.csv"}
    return [f"--{role}={files[name]}" for role, name in {**options, "split": "split.csv"}.items()]


def command(
    folder: Path, inputs: list[str], network: str, size: int, epochs: int, interval: int
) -> list[str]:
    settings = SETTINGS | {"timm": network, "image_size": size, "epochs": epochs}
    return [
        *(sys.executable, "scripts/train.py", "--task=classification", "--seed=0", "--threads=1", "--gpus=0"),
        *(
            "--origin={}",
            "--workers=0",
            f"--settings={json.dumps(settings)}",
            *inputs,
            f"--checkpoint-interval={interval}",
        ),
        *(f"--state={folder / 'state'}", f"--output={folder / 'out'}"),
    ]


def seconds_of_steps(inputs: list[str], network: str, size: int, interval: int) -> tuple[float, int]:
    """Seconds of a training's epochs, start not counted, and its number of steps."""
    with tempfile.TemporaryDirectory() as folder:
        run = command(Path(folder), inputs, network, size, 2, interval)
        subprocess.run(run, check=True, capture_output=True)
        history = pd.read_csv(Path(folder) / "out/history.csv")
    return history["seconds"].iloc[-1], history["step"].iloc[-1]


def seconds_of_a_kill(inputs: list[str], network: str, size: int, epochs: int, lost: float) -> float:
    """Seconds that a kill costs beside the work since the last state."""
    with tempfile.TemporaryDirectory() as folder:
        alone, cut = Path(folder) / "alone", Path(folder) / "cut"
        start = time.perf_counter()
        subprocess.run(command(alone, inputs, network, size, epochs, NEVER), check=True, capture_output=True)
        untouched = time.perf_counter() - start
        start = time.perf_counter()
        run = command(cut, inputs, network, size, epochs, round(untouched / 3))
        first = subprocess.Popen(run, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while not list(cut.glob("state/*/state-*.pth")):
            time.sleep(0.01)
        time.sleep(lost)
        first.kill()
        first.wait()
        subprocess.run(run, check=True, capture_output=True)
        return time.perf_counter() - start - untouched - lost


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--networks", nargs="+", default=["convnext_atto", "convnext_base"])
    parser.add_argument("--size", type=int, default=64, help="side of the images in pixels")
    parser.add_argument("--epochs", type=int, default=12, help="of the training that is killed")
    parser.add_argument("--lost", type=float, default=5.0, help="seconds from a state to the kill")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        inputs = write_inputs(Path(folder), args.size)
        for network in args.networks:
            without, steps = seconds_of_steps(inputs, network, args.size, NEVER)
            saving, _ = seconds_of_steps(inputs, network, args.size, 0)
            state = max(saving - without, 0) / steps
            print(
                f"{network}: step {without / steps:.2f} s, state {state:.2f} s; "
                f"checkpoint tax {1 + state / INTERVAL:.4f} (target <= 1.02)"
            )
        restart = seconds_of_a_kill(inputs, args.networks[0], args.size, args.epochs, args.lost)
    print(
        f"{args.networks[0]}: a kill costs {restart:.1f} s beside the work lost; resume tax "
        f"{1 + restart / (INTERVAL / 2):.2f} (target <= 1.2)"
    )


if __name__ == "__main__":
    main()
