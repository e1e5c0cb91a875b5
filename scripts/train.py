"""Train one model; resumes if it was interrupted."""

import argparse
import os
import sys
from pathlib import Path

from busflow.cli import add_task, inputs_of, run, settings


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    add_task(parser, "train")
    parser.add_argument("--settings", required=True, type=settings, help="of model and training, JSON")
    parser.add_argument("--seed", required=True, type=int)
    parser.add_argument(
        "--origin", required=True, type=settings, help="what the weights say of where they come from, JSON"
    )
    parser.add_argument("--pretrained", type=Path, help="pretrained weights; none: from scratch")
    parser.add_argument("--state", required=True, type=Path, help="folder for what a resume needs")
    parser.add_argument("--output", required=True, type=Path, help="folder for weights, history, run record")
    parser.add_argument("--threads", required=True, type=int)
    parser.add_argument("--gpus", required=True, type=int, help="of its own, a process each; 0: the CPU")
    parser.add_argument("--workers", required=True, type=int, help="processes that load batches; 0: none")
    parser.add_argument(
        "--checkpoint-interval", required=True, type=float, help="seconds from one saved state to the next"
    )
    args = parser.parse_args()
    inputs = inputs_of(args, "train", parser)
    if args.pretrained:
        inputs["pretrained"] = args.pretrained
    # Read by torch while it loads, which otherwise compiles classes for TorchScript that nothing here uses.
    os.environ["PYTORCH_JIT"] = "0"
    # Imported here: torch takes seconds, which no mistake in the arguments need wait for.
    import torch

    from busflow.engine.gpu_lease import lease
    from busflow.engine.loading import load_task

    torch.set_num_threads(args.threads)
    compute = {"workers": args.workers, "checkpoint_interval": args.checkpoint_interval}
    with lease(args.gpus):
        if args.gpus > 1 and "LOCAL_RANK" not in os.environ:
            from torch.distributed.run import main as torchrun  # which only several GPUs need

            torchrun(["--standalone", f"--nproc-per-node={args.gpus}", *sys.argv])
            return
        # Imported here: mmengine settles on a device while it loads.
        from busflow.engine.training import train

        task = load_task(args.task)
        train(task, inputs, args.settings, args.seed, args.origin, compute, args.state, args.output)


if __name__ == "__main__":
    run(main)
