"""busflow: trained models on new images, and for other programs. For research use only, no medical device."""

import argparse
import os
from pathlib import Path

from busflow.cli import run
from busflow.errors import BusflowError

WEIGHTS = ".pth"  # what files of weights end in, and no image


def main() -> None:
    """The command ``busflow``."""
    run(_main)


def _main() -> None:
    parser = argparse.ArgumentParser(prog="busflow", description=__doc__)
    verbs = parser.add_subparsers(required=True, metavar="VERB")
    _add_predict(verbs)
    _add_export(verbs)
    args = parser.parse_args()
    # Read by torch while it loads, which otherwise compiles classes for TorchScript that nothing here uses.
    os.environ["PYTORCH_JIT"] = "0"
    args.verb(args)


def _add_predict(verbs) -> None:
    about = "Predict images with one trained model, or with several as an ensemble. Research use only."
    parser = verbs.add_parser("predict", help="findings in images of anyone's", description=about)
    parser.set_defaults(verb=_predict)
    parser.add_argument("weights", nargs="+", metavar="WEIGHTS", help="weights.pth of one task")
    parser.add_argument("images", nargs="+", metavar="IMAGES", help="files, folders, archives, patterns")
    parser.add_argument("--output", required=True, type=Path, help="folder to make")
    parser.add_argument("--overlay", action="store_true", help="draw what was found")
    parser.add_argument("--device", choices=["cpu", "cuda"], help="default: a GPU if there is one")
    parser.add_argument("--batch", type=_count, help="images at a time; default: 16 on a GPU, 1 on a CPU")
    parser.add_argument(
        "--threshold",
        type=_probability,
        help="from which an image is malignant, a box is shown (default 0.3), or a pixel is lesion",
    )
    parser.add_argument(
        "--calibrated", action="store_true", help="classifiers: calibrated probabilities and operating points"
    )


def _predict(args: argparse.Namespace) -> None:
    # Imported here: torch takes seconds, which no mistake in the arguments need wait for.
    import torch

    from busflow.inference.predict import predict

    files = [*args.weights, *args.images]
    weights = [Path(file) for file in files if file.endswith(WEIGHTS)]
    images = [file for file in files if not file.endswith(WEIGHTS)]
    if not weights or not images:
        raise BusflowError(f"name at least one file of weights (*{WEIGHTS}) and one image, folder or archive")
    device = args.device or ("cuda" if torch.cuda.is_available() else "cpu")
    if device == "cuda" and not torch.cuda.is_available():
        raise BusflowError("--device cuda: torch finds no GPU here; leave the option out, or give cpu")
    torch.backends.cudnn.allow_tf32 = False  # as a study predicts
    batch = args.batch or (16 if device == "cuda" else 1)
    asked = {"threshold": args.threshold, "calibrated": args.calibrated, "overlay": args.overlay}
    if problems := predict(weights, images, args.output, torch.device(device), batch, **asked):
        raise BusflowError(f"{problems} images were not predicted; {args.output / 'problems.csv'} says why")


def _add_export(verbs) -> None:
    about = "Write a model as an ONNX graph that takes images as they are. Research use only."
    parser = verbs.add_parser("export", help="a model for other programs", description=about)
    parser.set_defaults(verb=_export)
    parser.add_argument("weights", type=Path, metavar="WEIGHTS", help="a weights.pth")
    parser.add_argument("--onnx", required=True, type=Path, metavar="FILE", help="to write")


def _export(args: argparse.Namespace) -> None:
    from busflow.inference.export import export

    export(args.weights, args.onnx)


def _count(text: str) -> int:
    if (value := int(text)) < 1:
        raise ValueError
    return value


def _probability(text: str) -> float:
    if not 0 <= (value := float(text)) <= 1:
        raise ValueError
    return value


if __name__ == "__main__":
    main()
