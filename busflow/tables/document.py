"""A document of a few kinds of blocks, as Markdown and as a page of the report.

All text is plain, whoever wrote it: what Markdown or HTML would take for markup is escaped here, once.
"""

import re
from importlib.resources import files
from pathlib import Path
from typing import NamedTuple

import jinja2
import yaml
from markdown_it import MarkdownIt

from busflow.files import write_text

MARKUP = re.compile(r"[\\`*_{}\[\]<>#|&~$^]")
# What begins a list or a rule where a line begins.
BEGINNING = re.compile(r"^(\d*)([-+=.)])")
TEMPLATE = files("busflow.tables") / "template"


class Rows(NamedTuple):
    """A table: ``cells`` hold a list of texts per row."""

    headings: list[str]
    cells: list[list[str]]


# A paragraph, a list or a table.
Block = str | list[str] | Rows


class Document(NamedTuple):
    """``head``: data for model hubs, which stand in front as YAML; ``sections``: blocks by heading."""

    title: str
    notice: str | None
    sections: dict[str, list[Block]]
    head: dict | None = None


def write(document: Document, md: Path, html: Path) -> None:
    """Write both forms. The page loads nothing, and the same document gives the same bytes."""
    head = document.head and yaml.safe_dump(document.head, sort_keys=False, allow_unicode=True, width=100)
    body = markdown(document)
    write_text(md, (f"---\n{head}---\n\n" if head else "") + body)
    page = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)
    template = page.from_string((TEMPLATE / "document.html").read_text(encoding="utf-8"))
    style = "\n".join(
        sheet.read_text(encoding="utf-8") for sheet in (TEMPLATE / "page.css", TEMPLATE / "document.css")
    )
    reader = MarkdownIt("commonmark", {"html": False}).enable("table")
    write_text(html, template.render(title=document.title, css=style, body=reader.render(body), head=head))


def markdown(document: Document) -> str:
    """The document without its head."""
    parts = [f"# {plain(document.title)}"]
    if document.notice:
        parts.append(f"> {_line(document.notice)}")
    for heading, blocks in document.sections.items():
        parts += [f"## {plain(heading)}", *map(_block, blocks)]
    return "\n\n".join(parts) + "\n"


def plain(text: str) -> str:
    """Text on one line that Markdown shows as it is, within a line."""
    return MARKUP.sub(r"\\\g<0>", " ".join(text.split()))


def _line(text: str) -> str:
    """The same at the beginning of a line."""
    return BEGINNING.sub(r"\1\\\2", plain(text))


def _block(block: Block) -> str:
    if isinstance(block, str):
        return _line(block)
    if isinstance(block, Rows):
        rule = ["---"] * len(block.headings)
        rows = [map(plain, block.headings), rule, *(map(plain, cells) for cells in block.cells)]
        return "\n".join(f"| {' | '.join(row)} |" for row in rows)
    return "\n".join(f"* {_line(item)}" for item in block)
