"""The reader of datasets that COCO files describe, by boxes or outlines: ``coco``."""

from pathlib import Path

from busflow import files
from busflow.data.coco_vid import FrameList, read_frame_list
from busflow.data.describing import Unit, described
from busflow.data.layout import ImageFile, Layout
from busflow.data.naming import Labels, Pattern, files_below, is_image
from busflow.errors import BusflowError
from busflow.labels import LABELS

ALONE = ""  # the split of a file that stands for no split


def read_coco(raw: Path, spec: dict, key: str, find) -> Layout:
    """Images that COCO files list, with their boxes, or with masks where these have a ``segmentation``.

    Args:
        raw: folder of the unpacked archive.
        spec: the config's ``sources.<id>.reader.coco``. With ``label``, a pattern on the name, every image
            below the folder counts, listed or not; without, the categories of an image's annotations tell
            its label.
        key: where that stands, for messages.
        find: gives the one folder at or below ``raw`` that holds a file.

    Raises:
        BusflowError: a file is missing or damaged, or there is no image.
    """
    listings = spec["file"] if isinstance(spec["file"], dict) else {ALONE: spec["file"]}
    place = {split: find(raw, name) / name for split, name in listings.items()}
    root = place[next(iter(place))].parents[listings[next(iter(listings))].count("/")]
    root = root / spec.get("images", ".")
    labels, unit = Labels(spec.get("labels", {})), Unit(spec, key)
    word = Pattern(spec["label"], f"{key}.label", "label") if spec.get("label") else None
    layout = Layout(root)
    ignored = [*spec.get("ignore", []), *listings.values(), *(path.name for path in place.values())]
    unread = {name for name in files_below(root, ignored) if is_image(name)}
    images: dict[str, ImageFile | None] = {}
    for split, path in place.items():
        listed = read_frame_list(path, LABELS, labels.of)
        layout.problems += [(_place(root, name) or path, reason) for name, reason in listed.problems]
        outlined = any(listed.outlines.values())
        for name in listed.boxes:
            if _place(root, name) is None:
                reason = f"impossible path: {path.name} lists {name!r}, which leads elsewhere"
                layout.problems.append((path, reason))
            elif name in images:
                reason = f"listed twice: {path.name} repeats an image of another file"
                layout.problems.append((root / name, reason))
            else:
                label = _label(name, listed, word, labels, spec.get("unannotated"))
                own = unit.of(name, str(listed.records[name].get(unit.column, "")))
                if name not in unread:
                    label = BusflowError(f"missing image: {path.name} lists it, but it is not there")
                images[name] = _enter(layout, name, label, own)
                if images[name]:
                    images[name].upstream_split, images[name].boxes = split, listed.boxes[name]
                    images[name].listed_size = listed.sizes.get(name)
                    images[name].masks = listed.outlines[name] if outlined else None
    for name in sorted(unread - {*images}):
        if word is None:
            layout.problems.append((root / name, "not listed: no COCO file names it"))
        else:
            _enter(layout, name, _label_by(word, labels, name), unit.of(name))
    return described(layout, unit, root)


def _enter(layout: Layout, name: str, label: str | BusflowError, unit: str | None) -> ImageFile | None:
    """Put an image into the layout, or say why it is left out."""
    if not isinstance(label, BusflowError) and unit is not None:
        layout.images.append(ImageFile(layout.root / name, label, unit))
        return layout.images[-1]
    unknown = "unknown unit: neither its COCO file nor its name tells it"
    layout.left_out.append((layout.root / name, str(label) if isinstance(label, BusflowError) else unknown))
    return None


def _place(root: Path, name: str) -> Path | None:
    try:
        return files.below(root, name) if name else None
    except BusflowError:
        return None


def _label(
    name: str, listed: FrameList, word: Pattern | None, labels: Labels, bare: str | None
) -> str | BusflowError:
    """An image's label, or why it has none."""
    if word:
        return _label_by(word, labels, name)
    found = sorted({box.label for box in listed.boxes[name]})
    if len(found) > 1:
        return BusflowError(f"two labels: its annotations are {' and '.join(found)}")
    if not found and bare is None:
        return BusflowError(
            "no label: it has no annotation that counts; say what that means (unannotated: normal)"
        )
    return found[0] if found else bare


def _label_by(word: Pattern, labels: Labels, name: str) -> str | BusflowError:
    found = word.groups(name).get("label", "")
    return labels.of(found) or BusflowError(Labels.reason(found))
