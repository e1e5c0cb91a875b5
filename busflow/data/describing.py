"""What all described datasets have in common: labels, units, rules for masks, and words on both."""

import logging
import re
from collections import Counter, defaultdict
from pathlib import Path

from busflow.data.layout import Layout, MaskRule
from busflow.data.naming import Pattern, Template
from busflow.errors import BusflowError
from busflow.labels import LESIONS

NO_UNIT = (  # begins as one of the layout's REMARKS, and so does the line on several labels
    "no unit: each image counts as independent of all others, though some may show one patient; "
    "say what tells them apart (unit)"
)
TEMPLATES = ("image", "mask")
BY_FOLDER = "{label}/**"

log = logging.getLogger(__name__)


class Unit:
    """What an image is independent by: a pattern on its name, or the name of a value that comes with it."""

    def __init__(self, spec: dict, key: str) -> None:
        self.text, self.series, self.pattern = spec.get("unit"), spec.get("series"), None
        if self.text and "(?P<" in self.text:
            self.pattern = Pattern(self.text, f"{key}.unit", "unit")
        if self.series and not self.text:
            raise BusflowError(f"{key}.series counts numbers of {key}.unit, which is not there: add it")

    @property
    def column(self) -> str | None:
        """The value that tells it, where no pattern does."""
        return None if self.pattern else self.text

    def of(self, name: str, value: str | None = None) -> str | None:
        """The unit of the image ``name`` (a path below the root), or None: nothing tells."""
        if self.text is None and value is None:
            return name.removesuffix(Path(name).suffix)
        found = self.pattern.groups(name).get("unit", "") if self.pattern else (value or "").strip()
        if self.series and found:
            if not re.fullmatch("[1-9][0-9]{0,15}", found):
                return None
            first = (int(found) - 1) // self.series * self.series + 1
            folder, slash, last = name.removesuffix(Path(name).suffix).rpartition("/")
            before = last.removesuffix(found) if last.endswith(found) else ""
            return f"{folder}{slash}{before}{first}-{before}{first + self.series - 1}"
        return found or None


def mask_rule(spec: dict) -> MaskRule | None:
    """The rule for a dataset's masks, or None: they are one grey level on black."""
    colours = {
        label: tuple(int(colour[k : k + 2], 16) for k in (1, 3, 5))
        for label, colour in spec.get("colours", {}).items()
    }
    threshold = spec.get("threshold")
    return MaskRule(colours, threshold) if colours or threshold else None


def listed(value: object) -> list:
    """A value that may stand alone, as a list."""
    return [] if value is None else value if isinstance(value, list) else [value]


def described(layout: Layout, unit: Unit, place: Path) -> Layout:
    """The layout with a line on each unit with benign and malignant images, and one when nothing tells the
    units.

    Raises:
        BusflowError: it has no image at all.
    """
    if not layout.images:
        first = next(iter(layout.left_out + layout.problems), None)
        why = f" (for one, {first[0]}: {first[1]})" if first else ""
        raise BusflowError(f"{place} gives no image that can be used{why}: check reader and the data")
    if unit.text is None:
        log.warning("%s: %s", place, NO_UNIT)
        layout.problems.append((place, NO_UNIT))
    labels = defaultdict(Counter)
    for image in layout.images:
        labels[image.unit][image.label] += 1
    for name, counts in labels.items():
        if {*LESIONS} <= {*counts}:  # that a patient has normal images too is no surprise
            both = ", ".join(f"{count} {label}" for label, count in sorted(counts.items()))
            layout.problems.append(
                (place, f"several labels: unit {name} has {both} images; all are kept, on one side")
            )
    return layout


def check_reader(key: str, reader: object) -> None:
    """See that a dataset's description can be followed, before any file is there.

    Args:
        key: where it stands in the config, ``sources.<id>.reader``.
        reader: the name of a reader, or a description that the schema has let through.

    Raises:
        BusflowError: a pattern or template is broken, or two keys exclude or need each other.
    """
    if isinstance(reader, str):
        return
    kind, spec = next(iter(reader.items()))
    key = f"{key}.{kind}"
    unit = Unit(spec, key)
    if spec.get("label") and "(?P<" in spec["label"]:
        Pattern(spec["label"], f"{key}.label", "label")
    if spec.get("pattern"):
        Pattern(spec["pattern"], f"{key}.pattern")
    for name in TEMPLATES:
        for text in listed(spec.get(name)):
            if kind != "table" or "{" in text:
                Template(text, f"{key}.{name}")
    if (spec.get("colours") or spec.get("threshold")) and (kind == "coco" or not spec.get("mask")):
        raise BusflowError(f"{key} has colours or a threshold for masks, but no {key}.mask that names any")
    if kind == "table":
        _check_table(key, spec)
    elif kind != "coco":
        _check_names(key, {"image": BY_FOLDER, **spec}, unit)


def _check_table(key: str, spec: dict) -> None:
    if sum(name in spec for name in ("mask", "box", "corners")) > 1:
        raise BusflowError(f"{key} has two of mask, box, corners: keep one (boxes are drawn around masks)")
    if not spec.get("label") and not spec.get("colours"):
        raise BusflowError(
            f"{key} needs label, a column or a pattern; only colours of masks can stand for it"
        )


def _check_names(key: str, spec: dict, unit: Unit) -> None:
    fields = Template(spec["image"], key).fields
    if unit.column and unit.column not in fields:
        raise BusflowError(
            f"{key}.unit is {unit.text!r}: expected a pattern with (?P<unit>...), or a field of image"
        )
    if "label" not in fields and not spec.get("label") and not spec.get("colours"):
        raise BusflowError(
            f"{key} does not say the label: put {{label}} into image, or a pattern into {key}.label"
        )
