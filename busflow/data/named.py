"""Readers of datasets whose folders and file names say everything: ``folders`` and ``pairs``."""

from collections import defaultdict
from pathlib import Path

from busflow.data.describing import BY_FOLDER, Unit, described, listed, mask_rule
from busflow.data.layout import ImageFile, Layout
from busflow.data.naming import Labels, Pattern, Template, files_below
from busflow.errors import BusflowError


def read_named(raw: Path, spec: dict, key: str) -> Layout:
    """Images by the template ``image``, masks by the templates ``mask`` that share its fields.

    Args:
        raw: folder of the unpacked archive. The dataset begins in it, or in a folder that lies alone in it.
        spec: the config's ``sources.<id>.reader.folders`` or ``.pairs``.
        key: where that stands, for messages.

    Raises:
        BusflowError: no file fits.
    """
    image = Template(spec.get("image", BY_FOLDER), f"{key}.image")
    masks = [Template(text, f"{key}.mask") for text in listed(spec.get("mask"))]
    if "unit" in image.fields:
        spec = {"unit": "unit", **spec}
    unit, labels = Unit(spec, key), Labels(spec.get("labels", {}))
    word = Pattern(spec["label"], f"{key}.label", "label") if spec.get("label") else None
    by_colour = word is None and "label" not in image.fields

    def word_of(name: str, fields: dict[str, str]) -> str:
        return word.groups(name).get("label", "") if word else fields["label"]

    root, found = _root(raw, spec.get("ignore", []), image, lambda *of: by_colour or labels.of(word_of(*of)))
    layout = Layout(root, mask_rule=mask_rule(spec))
    images, masks_of = {}, defaultdict(list)
    for name in found:
        fields = next(((template, match) for template in masks if (match := template.match(name))), None)
        if fields:
            template, values = fields
            masks_of[_shared(values, template, image)].append(root / name)
        elif (values := image.match(name)) is not None:
            images[name] = values
        else:
            layout.problems.append(
                (root / name, "unexpected file: its name is neither an image's nor a mask's")
            )
    used = set()
    for name, values in images.items():
        keys = {_shared(values, template, image) for template in masks}
        used |= keys
        label = "" if by_colour else labels.of(word_of(name, values))
        of = unit.of(name, values.get(unit.column))
        if label is None:
            layout.left_out.append((root / name, Labels.reason(word_of(name, values))))
        elif of is None:
            layout.left_out.append(
                (root / name, f"unknown unit: the name does not tell it as {unit.text} would")
            )
        else:
            own = sorted({path for each in keys for path in masks_of.get(each, [])}) if masks else None
            layout.images.append(ImageFile(root / name, label, of, masks=own))
    for orphans in (paths for each, paths in masks_of.items() if each not in used):
        layout.problems += [(path, "orphan mask: the image it belongs to is missing") for path in orphans]
    return described(layout, unit, root)


def _shared(values: dict[str, str], mask: Template, image: Template) -> tuple:
    """What joins a mask to its image: the fields that both templates have."""
    return tuple((field, values[field]) for field in sorted({*mask.fields} & {*image.fields}))


def _root(raw: Path, ignored: list[str], image: Template, is_known) -> tuple[Path, list[str]]:
    """The folder that the templates begin at, which archives put into others, and the names of its files."""
    root = raw
    while True:
        names = files_below(root, ignored)
        if any((values := image.match(name)) is not None and is_known(name, values) for name in names):
            return root, names
        tops = {name.partition("/")[0] for name in names}
        if len(tops) != 1 or not (root / next(iter(tops))).is_dir():
            break
        root = root / tops.pop()
    raise BusflowError(
        f"{raw} holds no image whose name is like {image.text} and tells a known label: it is not this "
        "dataset's layout; check image and labels of sources.<id>.reader, and the archive"
    )
