"""A table as a page of the report: one HTML file, offline, to sort, search and filter by DataTables."""

import base64
import re
from importlib.resources import files
from pathlib import Path
from typing import NamedTuple

import jinja2
import pandas as pd

from busflow.errors import BusflowError
from busflow.files import write_text
from busflow.tables.table import PRINTED, Table

# The columns that name a row, by which readers look for one.
NAMING = ("Model", "Detector", "Network", "Subset", "Source")
FILTERED = ("Protocol", *NAMING, "Against", "View", "Class", "Verdict")
LONG = 60  # characters; columns with longer cells are folded
NUMBER = re.compile(r"[<>≤≥ ]*([+-]?[\d,]*\.?\d+)([MG]?)(?=$|[ %])")
MISSING = re.compile(r"–?|n/a.*|best")
UNITS = {"": 1, "M": 1e6, "G": 1e9}
TEMPLATE = files("busflow.tables") / "template"


class Column(NamedTuple):
    """``order``: what a cell sorts by, where the column holds numbers."""

    title: str
    cells: list[str]
    order: list[float | None] | None
    names_row: bool
    filtered: bool
    long: bool

    @property
    def look(self) -> str:
        """Its classes in the style sheet."""
        looks = {
            "name": self.names_row,
            "number": self.order,
            "verdict": self.title == "Verdict",
            "long": self.long,
            "paper": PRINTED in self.title,
        }
        return " ".join(name for name, holds in looks.items() if holds)


def write_page(table: Table, html: Path, csv: Path, notice: str | None) -> None:
    """Write the table as a page; ``csv`` is its data, which the page hands out.

    The page loads nothing. All text is escaped, and the same table gives the same bytes.
    """
    page = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)
    template = page.from_string((TEMPLATE / "page.html").read_text(encoding="utf-8"))
    parts = {name: (TEMPLATE / f"page.{name}").read_text(encoding="utf-8") for name in ("css", "js")}
    write_text(
        html,
        template.render(
            title=table.title,
            notice=notice,
            notes=table.notes,
            columns=columns(table.shown),
            links=table.links,
            csv_name=csv.name,
            csv=_base64(csv.read_bytes()),
            library=_base64((TEMPLATE / "datatables.min.js.gz").read_bytes()),
            licence=(TEMPLATE / "datatables-license.txt").read_text(encoding="utf-8"),
            **parts,
        ),
    )


def columns(shown: pd.DataFrame) -> list[Column]:
    """How each column of a table's text is shown."""
    names_row = next((title for title in shown if title in NAMING), shown.columns[0])
    return [
        Column(
            title,
            cells := shown[title].to_list(),
            numbers(cells),
            title == names_row,
            title in FILTERED,
            max(map(len, cells), default=0) > LONG,
        )
        for title in shown
    ]


def numbers(cells: list[str]) -> list[float | None] | None:
    """The number that each cell begins with, None where it has none; None if the column holds other text."""
    found = [NUMBER.match(cell.strip("*")) for cell in cells]
    if not any(found) or not all(
        number or MISSING.fullmatch(cell) for number, cell in zip(found, cells, strict=True)
    ):
        return None
    return [each and float(each[1].replace(",", "")) * UNITS[each[2]] for each in found]


def link_pages(report: Path) -> None:
    """Let the pages within a report of Snakemake open each other's tables and figures.

    They stand in frames and can but ask for it; this adds the few lines to the report that hear them.
    Raises BusflowError when the file is no whole report.
    """
    before, end, after = report.read_text(encoding="utf-8").rpartition("</body>")
    if not end:
        raise BusflowError(f"{report} is not a whole HTML file: delete it and make it again")
    script = (TEMPLATE / "report.js").read_text(encoding="utf-8")
    write_text(report, f"{before}<script>\n{script}</script>\n{end}{after}")


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")
