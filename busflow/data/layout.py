"""What readers say of a dataset, before any image is opened."""

from dataclasses import dataclass, field
from pathlib import Path

from busflow.data.coco_vid import Box, Outline

QUARANTINE_COLUMNS = ["source", "path", "image_id", "reason", "scope"]
REMARKS = ("no unit", "several labels")  # how lines begin that leave nothing out
WITH_IMAGE = "left out with its image"  # the reason of a mask, before that of its image


@dataclass(frozen=True)
class MaskRule:
    """How a dataset's masks are read, where a lesion is more than one grey level on black.

    ``colours`` are red, green and blue (0..255) by label; without any, what is light is lesion. ``threshold``
    (1..255): a channel of at least this counts as 255, one below as 0, before all else; None: as it is.
    """

    colours: dict[str, tuple[int, int, int]] = field(default_factory=dict)
    threshold: int | None = None


@dataclass
class ImageFile:
    """An image and what its dataset says of it.

    ``label`` is empty when the colours of its masks tell. ``unit`` names what is independent of all else (a
    video, a series, a patient, the image itself) by a path below the layout's root, or a text.
    ``listed_size`` is the width and height that the list of the boxes gives, unchecked; None when it gives
    none. ``masks`` is None when the dataset has no masks; where it has, ``boxes`` are not needed.
    """

    path: Path
    label: str
    unit: str
    upstream_split: str = ""
    boxes: list[Box] = field(default_factory=list)
    listed_size: tuple[object, object] | None = None
    masks: list[Path | Outline] | None = None


@dataclass
class Layout:
    """A dataset's files. Image ids are paths below ``root``; ``problems`` are (path, reason).

    ``left_out`` are images that the reader itself had to leave out, as (path, reason).
    """

    root: Path
    images: list[ImageFile] = field(default_factory=list)
    problems: list[tuple[Path, str]] = field(default_factory=list)
    left_out: list[tuple[Path, str]] = field(default_factory=list)
    mask_rule: MaskRule | None = None
