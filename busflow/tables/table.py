"""A table twice: clean data (CSV) and a page to read (Markdown)."""

from pathlib import Path
from typing import NamedTuple

import pandas as pd

from busflow.files import sha256, write_csv, write_text
from busflow.protocols import PAPER

PRINTED = "(paper"  # in the heading of each column of printed values
PAPER_COLUMN = "A column “(paper)” repeats the value that the paper prints, as printed."


class Table(NamedTuple):
    """``data`` goes to the CSV; ``shown`` (text, ready formatted), ``title`` and ``notes`` to the page.

    ``links``: of each row the page or figure that it is about, as a path below the study's results; or none.
    """

    title: str
    data: pd.DataFrame
    shown: pd.DataFrame
    notes: list[str]
    links: tuple[str, ...] = ()


def write(table: Table, csv: Path, md: Path, notice: str | None) -> None:
    """Write both forms; the study's notice stands above the table when there is one."""
    write_csv(csv, table.data)
    body = table.shown.to_markdown(index=False, disable_numparse=True, colalign=alignment(table.shown))
    parts = [
        f"**{table.title}**",
        f"> {notice}" if notice else "",
        body,
        "\n".join(f"* {n}" for n in table.notes),
    ]
    write_text(md, "\n\n".join(part for part in parts if part) + "\n")


def alignment(shown: pd.DataFrame) -> list[str]:
    """Numbers to the right, words to the left."""
    return ["right" if shown[column].str.contains(r"^\W*\d|^–?$|^n/a").all() else "left" for column in shown]


def beside_paper(table: Table, settings: dict) -> Table:
    """The printed values only in rows of protocols that follow the paper; none when no protocol does.

    Printed values are the columns of ``data`` that end in ``_paper`` or ``_corrected``, and those of
    ``shown`` with ``PRINTED`` in their heading.
    """
    entries = settings["protocols"]
    follows = table.data["protocol"].map(lambda name: entries.get(name, {}).get("split") == PAPER)
    data, shown = table.data.copy(), table.shown.copy()
    columns = [name for name in data if name.endswith(("_paper", "_corrected"))]
    headings = [name for name in shown if PRINTED in name]
    if not follows.any():
        notes = [note for note in table.notes if not note.startswith(PAPER_COLUMN)]
        return table._replace(
            data=data.drop(columns=columns), shown=shown.drop(columns=headings), notes=notes
        )
    for name in columns:
        whole = pd.api.types.is_integer_dtype(data[name])
        data[name] = (data[name].astype("Int64") if whole else data[name]).where(follows)
    for name in headings:
        shown[name] = shown[name].where(follows | (shown[name] == ""), "–")
    return table._replace(data=data, shown=shown)


def split_notes(paths: dict[str, Path], settings: dict, counts: dict[str, str]) -> list[str]:
    """One note per protocol: what was counted, and the first 12 digits of the split's SHA-256."""
    return [
        f"{settings['protocols'][protocol]['label']}: {counts[protocol]}; split {sha256(path)[:12]}."
        for protocol, path in paths.items()
    ]


def number(value: float | None, decimals: int = 0) -> str:
    """``12,345`` or ``1,234.50``; a dash where nothing was printed or counted."""
    return "–" if value is None or pd.isna(value) else f"{value:,.{decimals}f}"


def percent(value: float | None, n: int | None = None) -> str:
    """A share as per cent with two digits; an undefined one as ``n/a`` with its n."""
    if value is None or pd.isna(value):
        return "n/a" if n is None else f"n/a (n={n:.0f})"
    return f"{100 * value:.2f}"


def bold_best(shown: pd.Series, values: pd.Series) -> pd.Series:
    """Mark the greatest of the computed values: all of them when several tie, none when all are equal."""
    best = (values == values.max()) & (values.nunique() > 1)
    return shown.where(~best, "**" + shown + "**")
