"""Show the failures of a task on a page: the worst images and more, each drawn."""

import argparse
from pathlib import Path

from busflow.cli import run, settings
from busflow.data.packing import PackedImages
from busflow.failures.errors import Files
from busflow.figures.gallery import write_gallery


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--failures", required=True, type=Path, help="results/failures/<task>.csv")
    parser.add_argument(
        "--predictions", required=True, type=Path, nargs="+", help="of every unit of one protocol"
    )
    parser.add_argument("--split", required=True, type=Path, help="of that protocol")
    parser.add_argument("--images", required=True, type=Path, help="data/index/images.csv")
    parser.add_argument("--annotations", required=True, type=Path, help="data/index/annotations.csv")
    parser.add_argument("--masks", type=Path, help="segmentation: of that protocol")
    parser.add_argument("--packed-images", required=True, type=Path)
    parser.add_argument("--packed-index", required=True, type=Path)
    parser.add_argument("--label-errors", type=Path, help="classification: results/failures/label_errors.csv")
    parser.add_argument(
        "--settings", required=True, type=settings, help="JSON: study, protocols, sources, models"
    )
    parser.add_argument("--html", required=True, type=Path)
    args = parser.parse_args()
    known = Files(args.images, args.annotations, args.masks)
    packed = PackedImages(args.packed_images, args.packed_index)
    write_gallery(
        args.html,
        args.failures,
        args.predictions,
        args.split,
        known,
        packed,
        args.settings,
        args.label_errors,
    )


if __name__ == "__main__":
    run(main)
