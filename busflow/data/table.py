"""The reader of datasets that a table describes: ``table``."""

import re
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path

from busflow import files
from busflow.data.coco_vid import Box
from busflow.data.describing import Unit, described, listed, mask_rule
from busflow.data.layout import WITH_IMAGE, ImageFile, Layout
from busflow.data.naming import Labels, Pattern, Template, files_below, is_image
from busflow.data.sheets import Sheet
from busflow.errors import BusflowError
from busflow.labels import SPLITS

NUMBER = re.compile(r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?")


@dataclass
class _Entry:
    """What all rows on one image say."""

    rows: list[int] = field(default_factory=list)
    labels: dict[str, int] = field(default_factory=dict)  # word, and the row that has it
    units: dict[str, int] = field(default_factory=dict)
    splits: dict[str, int] = field(default_factory=dict)
    boxes: list[tuple] = field(default_factory=list)
    masks: list[str] = field(default_factory=list)


def read_table(raw: Path, spec: dict, key: str, find) -> Layout:
    """Images that the rows of a table name; several rows on one image are its several lesions.

    Args:
        raw: folder of the unpacked archive; paths in the table begin at the table.
        spec: the config's ``sources.<id>.reader.table``.
        key: where that stands, for messages.
        find: gives the one folder at or below ``raw`` that holds a file.

    Raises:
        BusflowError: the table is missing or broken, lacks a column, or names no image that is there.
    """
    root = find(raw, spec["file"])
    reader = _Reader(root, spec, key)
    for number, row in zip(reader.sheet.numbers, reader.sheet.rows, strict=True):
        reader.take(number, row)
    for name, entry in reader.entries.items():
        reader.settle(name, entry)
    reader.tell_of_the_rest()
    return described(reader.layout, reader.unit, root / spec["file"])


class _Reader:
    """The table, the files below its folder, and the layout that comes of them."""

    def __init__(self, root: Path, spec: dict, key: str) -> None:
        self.spec, self.key, self.root, self.place = spec, key, root, root / spec["file"]
        self.sheet = Sheet(self.place, spec.get("sheet", 0))
        self.layout = Layout(root, mask_rule=mask_rule(spec))
        self.names = set(files_below(root, spec.get("ignore", [])))
        self.labels, self.unit = Labels(spec.get("labels", {})), Unit(spec, key)
        self.splits = {str(word).casefold(): split for word, split in spec.get("splits", {}).items()}
        self.extra = Pattern(spec["pattern"], f"{key}.pattern") if spec.get("pattern") else None
        self.word = None
        if "(?P<" in spec.get("label", ""):
            self.word = Pattern(spec["label"], f"{key}.label", "label")
        self.used: set[str] = {spec["file"]}
        self.entries: dict[str, _Entry] = defaultdict(_Entry)

    def cell(self, row: dict[str, str], name: str, which: str) -> str:
        return row[self.sheet.column(which, f"{self.key}.{name}")]

    def paths(self, row: dict[str, str], name: str, which: str, extra: dict[str, str]) -> list[str]:
        """What a column, or a template of columns, names; several where a separator stands between them."""
        template = Template(which, f"{self.key}.{name}") if "{" in which else None
        between = re.escape(self.spec.get("separator", "&"))
        values = {
            part: [extra[part]]
            if part in extra
            else re.split(rf"\s*{between}\s*", self.cell(row, name, part))
            for part in (template.fields if template else [which])
        }
        if not all(all(parts) for parts in values.values()):
            return []
        if template is None:
            return values[which]
        several = range(max(map(len, values.values()), default=1))
        return [
            template.fill({part: words[min(k, len(words) - 1)] for part, words in values.items()})
            for k in several
        ]

    def take(self, number: int, row: dict[str, str]) -> None:
        """Enter a row, or say why not."""
        named = self.paths(row, "image", self.spec["image"], {})
        if len(named) != 1:
            return self.problem("", f"no image: row {number} of {self.place.name} names {len(named)} files")
        name = named[0]
        if fault := self.fault(name):
            return self.problem(
                "", f"impossible path: row {number} of {self.place.name} names {name!r}, which {fault}"
            )
        extra = self.extra.groups(name) if self.extra else {}
        entry = self.entries[name]
        entry.rows.append(number)
        if self.word:
            entry.labels.setdefault(self.word.groups(name).get("label", ""), number)
        elif self.spec.get("label"):
            entry.labels.setdefault(self.cell(row, "label", self.spec["label"]), number)
        if self.unit.column:
            entry.units.setdefault(self.cell(row, "unit", self.unit.column), number)
        if self.spec.get("split"):
            entry.splits.setdefault(self.cell(row, "split", self.spec["split"]), number)
        before = len(entry.masks) + len(entry.boxes)
        self.take_masks(name, number, row, entry, extra)
        self.take_box(name, number, row, entry)
        if len(entry.rows) > 1 and before == len(entry.masks) + len(entry.boxes):
            self.problem(
                name, f"listed twice: rows {entry.rows[0]} and {number} of {self.place.name} name it"
            )

    def take_masks(self, name: str, number: int, row: dict, entry: _Entry, extra: dict) -> None:
        for which in listed(self.spec.get("mask")):
            named = self.paths(row, "mask", which, extra)
            for mask in named:
                if fault := self.fault(mask):
                    self.problem(
                        name, f"impossible path: row {number} names the mask {mask!r}, which {fault}"
                    )
                elif mask not in self.names:
                    if "{" not in which or len(named) > 1:  # a template may fit only some of the images
                        self.problem(name, f"missing mask: row {number} names {mask}, which is not there")
                elif mask not in entry.masks:
                    entry.masks.append(mask)

    def take_box(self, name: str, number: int, row: dict, entry: _Entry) -> None:
        kind = "corners" if "corners" in self.spec else "box"
        text = " ".join(self.cell(row, kind, which) for which in listed(self.spec.get(kind)))
        numbers = tuple(float(each) for each in NUMBER.findall(text))
        if not text.strip():
            return
        if len(numbers) != 4:
            self.problem(
                name, f"broken box: row {number} of {self.place.name} has {text!r}, not four numbers"
            )
            return
        if kind == "corners":
            numbers = (*numbers[:2], numbers[2] - numbers[0], numbers[3] - numbers[1])
        if numbers in [box for box, _ in entry.boxes]:
            return
        entry.boxes.append((numbers, f"row {number} of {self.place.name}"))

    def settle(self, name: str, entry: _Entry) -> None:
        """The image of all rows that name it, or why it is left out."""
        self.used |= {name, *entry.masks}
        label, unit = self.one_label(entry), self.unit.of(name, next(iter(entry.units), None))
        if name not in self.names:
            reason = f"missing image: row {entry.rows[0]} of {self.place.name} names it, but it is not there"
        elif isinstance(label, BusflowError):
            reason = str(label)
        elif len(entry.units) > 1:
            reason = f"two units: {self.told(entry.units)}"
        elif unit is None:
            reason = f"unknown unit: row {entry.rows[0]} of {self.place.name} and the name do not tell it"
        else:
            masks = [self.root / mask for mask in entry.masks] if "mask" in self.spec else None
            boxes = [Box(label, numbers, words) for numbers, words in entry.boxes]
            split = self.split_of(name, entry)
            self.layout.images.append(ImageFile(self.root / name, label, unit, split, boxes, None, masks))
            return
        self.layout.left_out.append((self.root / name, reason))
        with_it = [(self.root / mask, f"{WITH_IMAGE}: {reason}") for mask in entry.masks]
        self.layout.problems += with_it

    def one_label(self, entry: _Entry) -> str | BusflowError:
        """The label that all rows on an image agree on, or what is wrong with them."""
        if not entry.labels:
            return ""  # the colours of its masks tell
        known = {word: self.labels.of(word) for word in entry.labels}
        for word, label in known.items():
            if label is None:
                return BusflowError(f"{Labels.reason(word)} (row {entry.labels[word]} of {self.place.name})")
        if len({*known.values()}) > 1:
            return BusflowError(f"two labels: {self.told(entry.labels)}")
        return next(iter(known.values()))

    def split_of(self, name: str, entry: _Entry) -> str:
        words = [word for word in entry.splits if word]
        split = self.splits.get(words[0].casefold(), words[0].casefold()) if words else ""
        if len(words) > 1:
            self.problem(name, f"two splits: {self.told(entry.splits)}; it counts as in none")
        elif split and split not in SPLITS:
            self.problem(
                name,
                f"unknown split: {words[0]!r} is none of {', '.join(SPLITS)}, and splits does not map it",
            )
        else:
            return split
        return ""

    def told(self, words: dict[str, int]) -> str:
        return f"{self.place.name} says " + ", ".join(f"{word!r} in row {row}" for word, row in words.items())

    def fault(self, name: str) -> str:
        """Why a path of the table cannot be followed; empty: it can."""
        try:
            files.below(self.root, name)
        except BusflowError as error:
            return str(error).rpartition(": it ")[2]
        return "" if name == Path(name).as_posix() else "has needless dots or slashes"

    def problem(self, name: str, reason: str) -> None:
        self.layout.problems.append((self.root / name if name in self.names else self.place, reason))

    def tell_of_the_rest(self) -> None:
        """Nothing below the folder is passed over in silence."""
        for name in sorted(self.names - self.used):
            what = "not listed" if is_image(name) else "unexpected file"
            self.layout.problems.append((self.root / name, f"{what}: no row of {self.place.name} names it"))
