"""Draw one figure, as SVG and as PNG."""

import argparse
from pathlib import Path

from busflow.cli import add_files, files_of, function_of, run, settings
from busflow.figures import style


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "figure", type=function_of("figures"), help="function of busflow/figures, such as detection:froc"
    )
    parser.add_argument(
        "--settings", required=True, type=settings, help="JSON: study, protocols, sources, models, figures"
    )
    parser.add_argument("--svg", required=True, type=Path)
    parser.add_argument("--png", required=True, type=Path)
    add_files(parser, parser.parse_known_args()[0].figure)
    args = parser.parse_args()
    style.theme()
    figure = args.figure(*files_of(args, args.figure), args.settings)
    style.save(figure, [args.svg, args.png], args.settings["study"]["notice"])


if __name__ == "__main__":
    run(main)
