"""Tables as people keep them, CSV or XLSX, read as text."""

import csv
import zipfile
from pathlib import Path

import pandas as pd

from busflow.errors import BusflowError

SEPARATORS = ",;\t|"


class Sheet:
    """A table with its first row as header: cells are text without blanks around, empty where nothing stands.

    Attributes:
        rows: one dict per row, by column; ``numbers`` are the rows as a spreadsheet counts them.

    Raises:
        BusflowError: it is no table, not UTF-8, or has a row with more cells than the header.
    """

    def __init__(self, path: Path, sheet: str | int = 0) -> None:
        self.path = path
        try:
            table = self._read_excel(sheet) if path.suffix.lower() == ".xlsx" else self._read_csv()
        except UnicodeDecodeError as error:
            raise BusflowError(f"{path} is not in UTF-8: save it as 'CSV UTF-8' or as .xlsx") from error
        except (ValueError, KeyError, csv.Error, zipfile.BadZipFile, OSError) as error:
            raise BusflowError(
                f"{path} is no table that can be read: {' '.join(str(error).split())}"
            ) from error
        names = [str(name).strip() for name in table.columns]
        cells = table.fillna("").astype(str).map(str.strip)
        filled = cells.ne("").any(axis=1).to_numpy()
        self.columns = names
        self.numbers = [number + 2 for number in range(len(cells)) if filled[number]]
        self.rows = [
            dict(zip(names, row, strict=True)) for row in cells[filled].itertuples(index=False, name=None)
        ]
        if not self.rows:
            raise BusflowError(f"{path} has no row below its header")

    def column(self, name: str, key: str) -> str:
        """A column's name as the table writes it, whatever the case; ``key`` is where the config asks for
        it."""
        for candidates in (self.columns, [column.casefold() for column in self.columns]):
            wanted = name if candidates is self.columns else name.strip().casefold()
            if candidates.count(wanted) == 1:
                return self.columns[candidates.index(wanted)]
        has = "has two columns" if self.columns.count(name) > 1 else "has no column"
        raise BusflowError(
            f"{self.path} {has} {name!r}, which {key} asks for; it has {', '.join(self.columns)}"
        )

    def _read_excel(self, sheet: str | int) -> pd.DataFrame:
        table = pd.read_excel(self.path, sheet_name=sheet, dtype=str, header=None, keep_default_na=False)
        if table.empty:
            raise ValueError("the sheet is empty")
        return pd.DataFrame(table.iloc[1:].to_numpy(), columns=table.iloc[0].to_list())

    def _read_csv(self) -> pd.DataFrame:
        with self.path.open(encoding="utf-8-sig", newline="") as file:
            header = file.readline()
            separator = max(SEPARATORS, key=header.count)
            file.seek(0)
            rows = list(csv.reader(file, delimiter=separator, strict=True))
        if not rows:
            raise ValueError("it is empty")
        width = len(rows[0])
        for number, row in enumerate(rows, start=1):
            if len(row) > width:
                raise ValueError(f"row {number} has {len(row)} cells, the header {width}")
        return pd.DataFrame([row + [""] * (width - len(row)) for row in rows[1:]], columns=rows[0])
