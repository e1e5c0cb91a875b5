"""Draw one figure, as SVG and as PNG."""

import argparse
from pathlib import Path

from busflow.cli import run, settings
from busflow.report import figures_classification, figures_data, figures_timing, style

# figure: (function, its input option, whether that takes many files)
FIGURES = {
    "fig2": (figures_data.fig2, "images", False),
    "leakage": (figures_data.leakage, "leakage", True),
    "fig3": (figures_classification.fig3, "metrics", True),
    "curves": (figures_classification.curves, "history", True),
    "roc": (figures_classification.roc, "predictions", True),
    "summary": (figures_classification.summary, "table", False),
    "timing": (figures_timing.timing, "timing", True),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    commands = parser.add_subparsers(dest="figure", required=True)
    for name, (draw, option, many) in FIGURES.items():
        command = commands.add_parser(name, help=draw.__doc__.splitlines()[0])
        command.add_argument(
            f"--{option}", dest="input", required=True, type=Path, nargs="+" if many else None
        )
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
    figure = FIGURES[arguments.figure][0](arguments.input, arguments.settings)
    style.save(figure, [arguments.svg, arguments.png], arguments.settings["study"]["notice"])


if __name__ == "__main__":
    run(main)
