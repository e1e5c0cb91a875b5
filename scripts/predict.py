"""Predict the test split with one trained model, and time it."""

import argparse
from pathlib import Path

import torch

from busflow.cli import run, settings


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--task", required=True, choices=["classification"])
    parser.add_argument("--settings", required=True, type=settings, help="of the prediction, JSON")
    parser.add_argument("--weights", required=True, type=Path)
    parser.add_argument("--images", required=True, type=Path, help="index of images")
    parser.add_argument("--split", required=True, type=Path)
    parser.add_argument("--packed-images", required=True, type=Path)
    parser.add_argument("--packed-index", required=True, type=Path)
    parser.add_argument("--output", required=True, type=Path, help="folder for predictions and timing")
    parser.add_argument("--threads", required=True, type=int)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    from busflow.engine import classification

    inputs = {name: getattr(args, name) for name in ("images", "split", "packed_images", "packed_index")}
    classification.predict(inputs, args.weights, args.settings, args.output)


if __name__ == "__main__":
    run(main)
