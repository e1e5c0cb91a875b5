"""Predict the test split with one trained model, and time it."""

import argparse
import os
from pathlib import Path

from busflow.cli import add_task, inputs_of, run, settings


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    add_task(parser, "predict")
    parser.add_argument("--settings", required=True, type=settings, help="of the prediction, JSON")
    parser.add_argument("--weights", required=True, type=Path)
    parser.add_argument("--output", required=True, type=Path, help="folder for predictions and timing")
    parser.add_argument("--threads", required=True, type=int)
    parser.add_argument("--gpus", required=True, type=int, help="GPUs of its own; 0: the CPU")
    args = parser.parse_args()
    inputs = inputs_of(args, "predict", parser)
    # Read by torch while it loads, which otherwise compiles classes for TorchScript that nothing here uses.
    os.environ["PYTORCH_JIT"] = "0"
    # Imported here: torch takes seconds, which no mistake in the arguments need wait for.
    import torch

    from busflow.engine.gpu_lease import lease
    from busflow.engine.loading import load_task

    torch.set_num_threads(args.threads)
    torch.backends.cudnn.allow_tf32 = False  # timing.json says fp32
    with lease(args.gpus):
        # Imported here: mmengine settles on a device while it loads.
        task = load_task(args.task)
        task.predict(inputs, args.weights, args.settings, args.output)


if __name__ == "__main__":
    run(main)
