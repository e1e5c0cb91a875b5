"""The page of a table: what it shows, that text stays text, and the same bytes for the same table."""

import base64
import gzip
import hashlib
import re
from html.parser import HTMLParser

import pandas as pd
import pytest

from busflow.audit import verdicts
from busflow.errors import BusflowError
from busflow.tables.page import TEMPLATE, link_pages, numbers, write_page
from busflow.tables.table import Table, write

TRICKY = "</script><b onclick='x()'>\"A & B\"</b>"


class Texts(HTMLParser):
    """The text of a page outside its scripts and styles, and the elements that it has."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.texts, self.elements, self.inside = [], [], None
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        self.inside = tag
        self.elements.append((tag, dict(attributes)))

    def handle_data(self, data):
        if self.inside not in ("script", "style") and data.strip():
            self.texts.append(data.strip())


def make_table(**changed) -> Table:
    shown = pd.DataFrame(
        {
            "Protocol": ["Paper protocol", "Grouped protocol"],
            "Model": ["Atto", "Nano"],
            "Accuracy": ["**92.86 [75.0, 100.0]**", "n/a (n=0)"],
            "Why": ["short", "long words " * 20],
            "Verdict": [verdicts.REPRODUCED, verdicts.NOT_TESTABLE],
        }
    )
    table = Table("Table 9. A table.", pd.DataFrame({"a": [1.5, 2]}), shown, ["n = 2 images.", "A note."])
    return table._replace(**changed)


@pytest.fixture
def page(tmp_path):
    def make(table: Table, notice: str | None = "DEMO: no meaning") -> str:
        write(table, tmp_path / "t.csv", tmp_path / "t.md", notice)
        write_page(table, tmp_path / "t.html", tmp_path / "t.csv", notice)
        return (tmp_path / "t.html").read_text(encoding="utf-8")

    return make


def test_a_page_shows_title_notice_cells_and_notes(page):
    texts = Texts(page(make_table())).texts
    for text in (
        "Table 9. A table.",
        "DEMO: no meaning",
        "92.86 [75.0, 100.0]",
        "Grouped protocol",
        "A note.",
    ):
        assert text in texts
    assert "DEMO: no meaning" not in Texts(page(make_table(), notice=None)).texts


def test_text_of_the_config_stays_text(page):
    shown = pd.DataFrame({"Model": [TRICKY], TRICKY: [TRICKY], "Verdict": [TRICKY]})
    found = Texts(page(make_table(title=TRICKY, shown=shown, notes=[TRICKY], links=(TRICKY,)), notice=TRICKY))
    assert found.texts.count(TRICKY) == 8  # title (twice), notice, heading, three cells, note
    assert "b" not in {tag for tag, _ in found.elements}
    assert not any("onclick" in attributes for _, attributes in found.elements)


def test_the_same_table_gives_the_same_bytes(page):
    assert page(make_table()) == page(make_table())


def test_a_page_names_nothing_to_load(page):
    elements = Texts(page(make_table(links=("tables/table1.html", "")))).elements
    assert not any("src" in attributes or tag == "link" for tag, attributes in elements)
    addresses = [attributes["href"] for tag, attributes in elements if tag == "a"]
    assert addresses[0] == "../tables/table1.html" and addresses[1].startswith("data:text/csv")
    assert len(addresses) == 2


def test_a_page_hands_out_the_bytes_of_the_csv(page, tmp_path):
    data = re.search(
        r'download="t\.csv" href="data:text/csv;charset=utf-8;base64,([^"]*)"', page(make_table())
    )
    assert base64.b64decode(data[1]) == (tmp_path / "t.csv").read_bytes()


@pytest.mark.parametrize(
    ("cells", "expected"),
    [
        (["1,234", "–", "**2.50 [2.0, 3.0]**"], [1234, None, 2.5]),
        (["551.16M", "1.37G"], [551.16e6, 1.37e9]),
        (["< 0.001", "best", "0.310"], [0.001, None, 0.31]),
        (["+0.031 [+0.010, +0.052]", "-1,000"], [0.031, -1000]),
        (["n/a (n=0)", "7 of 9", "", "167.7 ± 32.9, median 165.1 (n = 7)"], [None, 7, None, 167.7]),
        (["–", "n/a"], None),
        (["455c0318323e"], None),  # a hash
        (["5.2, Table 6", "Table 1"], None),
        (["2 classes of images", "three"], None),
    ],
)
def test_columns_of_numbers_sort_by_the_number_that_a_cell_begins_with(cells, expected):
    assert numbers(cells) == expected


def test_every_verdict_has_a_colour():
    style = (TEMPLATE / "page.css").read_text()
    words = [verdicts.REPRODUCED, verdicts.WITHIN, verdicts.CONTRADICTED]
    for verdict in (*words, verdicts.UNDEFINED, verdicts.NOT_TESTABLE):
        assert f'[data-verdict="{verdict}"] {{' in style


def test_the_library_is_the_published_one_and_its_licence_is_in_the_page(page):
    # npm: datatables.net 3.1.5, js/dataTables.min.js
    published = "38017a5586acd9c6eb6bbfe8b6938e1a25bdc717c5acfcb07e0c9d663282c59d"
    made = page(make_table())
    library = re.search(r'<script id="datatables"[^>]*>([^<]*)</script>', made)[1]
    assert hashlib.sha256(gzip.decompress(base64.b64decode(library))).hexdigest() == published
    assert "Copyright SpryMedia Limited" in made and "The above copyright notice" in made


def test_half_a_report_is_refused_and_left_as_it_is(tmp_path):
    report = tmp_path / "report.html"
    report.write_text("<html><body>cut o")
    with pytest.raises(BusflowError, match=r"report\.html is not a whole HTML file: .*make it again"):
        link_pages(report)
    assert report.read_text() == "<html><body>cut o"
