"""Extract the features of a task's images by a pretrained network that learns nothing."""

import argparse
import os
from pathlib import Path

from busflow.cli import run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--packed-images", required=True, type=Path)
    parser.add_argument("--network", required=True, help="timm's name of it")
    parser.add_argument("--weights", required=True, type=Path)
    parser.add_argument("--output", required=True, type=Path)
    parser.add_argument("--threads", required=True, type=int)
    parser.add_argument("--gpus", required=True, type=int, help="GPUs of its own; 0: the CPU")
    args = parser.parse_args()
    # Read by torch while it loads, which otherwise compiles classes for TorchScript that nothing here uses.
    os.environ["PYTORCH_JIT"] = "0"
    import torch

    from busflow.engine.gpu_lease import lease

    torch.set_num_threads(args.threads)
    torch.backends.cudnn.allow_tf32 = False  # as predictions have it
    with lease(args.gpus):
        from busflow.engine.features import extract

        extract(args.packed_images, args.network, args.weights, args.output)


if __name__ == "__main__":
    run(main)
