"""Train one model; resumes if it was interrupted."""

import argparse
from pathlib import Path

import torch

from busflow.cli import run, settings


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--task", required=True, choices=["classification"])
    parser.add_argument("--settings", required=True, type=settings, help="of model and training, JSON")
    parser.add_argument("--seed", required=True, type=int)
    parser.add_argument("--images", required=True, type=Path, help="index of images")
    parser.add_argument("--split", required=True, type=Path)
    parser.add_argument("--packed-images", required=True, type=Path)
    parser.add_argument("--packed-index", required=True, type=Path)
    parser.add_argument("--pretrained", type=Path, help="pretrained weights; none: from scratch")
    parser.add_argument("--state", required=True, type=Path, help="folder for what a resume needs")
    parser.add_argument("--output", required=True, type=Path, help="folder for weights, history, run record")
    parser.add_argument("--threads", required=True, type=int)
    parser.add_argument("--workers", required=True, type=int, help="processes that load batches; 0: none")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    from busflow.engine import classification

    inputs = {name: getattr(args, name) for name in ("images", "split", "packed_images", "packed_index")}
    if args.pretrained:
        inputs["pretrained"] = args.pretrained
    classification.train(inputs, args.settings, args.seed, args.workers, args.state, args.output)


if __name__ == "__main__":
    run(main)
