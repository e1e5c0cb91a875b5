"""Draw one figure, as SVG and as PNG."""

import argparse
from pathlib import Path
from pkgutil import resolve_name

from busflow.cli import run, settings
from busflow.figures import style

PREDICTED_BOXES = {"predictions": "many", "split": "one", "annotations": "one", "images": "one"}
PREDICTED_MASKS = {"predictions": "many", "metrics": "many", "masks": "one", "images": "one"}
# figure: (function of the library, its inputs: one file or many)
FIGURES = {
    "fig2": ("figures.data:fig2", {"images": "one"}),
    "leakage": ("figures.data:leakage", {"leakage": "many"}),
    "fig3": ("figures.classification:fig3", {"metrics": "many"}),
    "curves": ("figures.training:curves", {"history": "many"}),
    "roc": ("figures.classification:roc", {"predictions": "many"}),
    "summary": ("figures.classification:summary", {"table": "one"}),
    "timing": ("figures.timing:timing", {"timing": "many"}),
    "fig4": ("figures.boxes:predicted_boxes", PREDICTED_BOXES),
    "fig5": ("figures.boxes:predicted_boxes", PREDICTED_BOXES),
    "fig6": ("figures.timing:prediction_time", {"timing": "many"}),
    "pr_curves": ("figures.detection:pr_curves", {"metrics": "many"}),
    "froc": ("figures.detection:froc", {"metrics": "many"}),
    "lesion_size": ("figures.detection:lesion_size", {"metrics": "many"}),
    "fig7": ("figures.masks:predicted_masks", PREDICTED_MASKS),
    "segmentation_timing": ("figures.timing:prediction_time", {"timing": "many"}),
    "segmentation_dice": ("figures.segmentation:segmentation_dice", {"metrics": "many"}),
    "segmentation_sizes": ("figures.segmentation:segmentation_sizes", {"metrics": "many"}),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    commands = parser.add_subparsers(dest="figure", required=True)
    for name, (_, inputs) in FIGURES.items():
        command = commands.add_parser(name)
        for option, number in inputs.items():
            nargs = "+" if number == "many" else None
            command.add_argument(f"--{option}", required=True, type=Path, nargs=nargs)
        command.add_argument(
            "--settings",
            required=True,
            type=settings,
            help="JSON: study, protocols, sources, models, figures",
        )
        command.add_argument("--svg", required=True, type=Path)
        command.add_argument("--png", required=True, type=Path)
    arguments = parser.parse_args()
    style.theme()
    function, inputs = FIGURES[arguments.figure]
    draw = resolve_name(f"busflow.{function}")  # no other figure's imports, which take longer than it
    figure = draw(*(getattr(arguments, option) for option in inputs), arguments.settings)
    style.save(figure, [arguments.svg, arguments.png], arguments.settings["study"]["notice"])


if __name__ == "__main__":
    run(main)
