"""What the names of files and the words of a dataset say, as the config describes them."""

import fnmatch
import os
import re
from pathlib import Path

from busflow.data.images import SUFFIXES
from busflow.errors import BusflowError
from busflow.labels import LABELS

JUNK = {"__MACOSX", "Thumbs.db"}
FIELD = re.compile(r"\{(?P<name>[A-Za-z_][^{}:/]*)(?::0(?P<digits>\d{1,2}))?\}")
PARTS = re.compile(rf"{FIELD.pattern}|(?P<folders>\*\*/)|(?P<deep>\*\*)|(?P<star>\*)")
ANY_SUFFIX = "|".join(re.escape(suffix) for suffix in SUFFIXES)


def files_below(folder: Path, ignored: list[str]) -> list[str]:
    """Names of all files below a folder, with slashes and sorted; hidden and ignored ones are left out.

    ``ignored`` are globs of the whole name, or of its last part where they have no slash.
    """
    names = []
    for place, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".") and name not in JUNK]
        start = Path(place).relative_to(folder).as_posix()
        names += [name if start == "." else f"{start}/{name}" for name in files if not name.startswith(".")]
    whole = [pattern for pattern in ignored if "/" in pattern]
    last = [pattern for pattern in ignored if "/" not in pattern]

    def is_wanted(name: str) -> bool:
        end = name.rpartition("/")[2]
        return not (
            end in JUNK
            or any(fnmatch.fnmatchcase(end, pattern) for pattern in last)
            or any(fnmatch.fnmatchcase(name, pattern) for pattern in whole)
        )

    return sorted(filter(is_wanted, names))


def is_image(name: str) -> bool:
    """Whether a file's name has the suffix of an image."""
    return name.lower().endswith(SUFFIXES)


class Template:
    """A path with fields, ``images/{unit}_{number}.png``, to take names apart and to put them together.

    A field is what stands between two slashes, or less; one called ``path`` may span folders. ``*`` is
    anything but a slash, ``**`` anything. Without a suffix at the end it fits every image. ``{number:06}``
    fills with zeros.

    Raises:
        BusflowError: it has a brace that belongs to no field.
    """

    def __init__(self, text: str, key: str) -> None:
        if re.search(r"[{}]", FIELD.sub("", text)) or text.startswith("/") or ".." in text.split("/"):
            raise BusflowError(
                f"{key} is {text!r}: expected a path below the dataset's folder, with fields such as "
                "{name} or {name:06}"
            )
        self.text, self.fields = text, [match["name"] for match in FIELD.finditer(text)]
        expression, place, known = "", 0, {}
        for part in PARTS.finditer(text):
            expression += re.escape(text[place : part.start()]) + self._expression(part, known)
            place = part.end()
        stem, dot, suffix = text[place:].rpartition(".")
        if dot and "/" not in suffix:
            expression += f"{re.escape(stem)}(?i:{re.escape(dot + suffix)})"
        else:
            expression += f"{re.escape(text[place:])}(?i:{ANY_SUFFIX})"
        self._regex, self._names = re.compile(expression), {group: name for name, group in known.items()}

    def match(self, name: str) -> dict[str, str] | None:
        """The fields of a file's name, or None: it does not fit."""
        found = self._regex.fullmatch(name)
        return found and {self._names[group]: value for group, value in found.groupdict().items()}

    def fill(self, values: dict[str, str]) -> str:
        """The path for these fields; KeyError when one is missing."""
        return FIELD.sub(lambda field: values[field["name"]].zfill(int(field["digits"] or 0)), self.text)

    @staticmethod
    def _expression(part: re.Match, known: dict[str, str]) -> str:
        if part["folders"]:
            return "(?:.+/)?"
        if part["deep"]:
            return ".*"
        if part["star"]:
            return "[^/]*"
        if part["name"] in known:
            return f"(?P={known[part['name']]})"
        known[part["name"]] = f"f{len(known)}"
        return f"(?P<{known[part['name']]}>{'.+?' if part['name'] == 'path' else '[^/]+?'})"


class Pattern:
    """A regular expression that is searched in a file's name, without its suffix; its named groups are told.

    Raises:
        BusflowError: it is none, or lacks the group that it is there for.
    """

    def __init__(self, text: str, key: str, group: str | None = None) -> None:
        try:
            self._regex = re.compile(text)
        except re.error as error:
            raise BusflowError(f"{key} is {text!r}, which is no regular expression: {error}") from error
        if group is not None and group not in self._regex.groupindex:
            raise BusflowError(f"{key} is {text!r}: it needs a group (?P<{group}>...) that says the {group}")

    def groups(self, name: str) -> dict[str, str]:
        """Its groups in a file's name; empty when it does not fit."""
        found = self._regex.search(name.removesuffix(Path(name).suffix))
        return {key: value for key, value in found.groupdict().items() if value is not None} if found else {}


class Labels:
    """The words that a dataset has for the labels; case does not count, and the labels' own names need no
    entry."""

    def __init__(self, words: dict[str, str]) -> None:
        self._labels = {label: label for label in LABELS} | {
            str(word).strip().casefold(): label for word, label in words.items()
        }

    def of(self, word: str) -> str | None:
        """The label of a word, or None: the dataset's description does not know it."""
        return self._labels.get(word.strip().casefold())

    @staticmethod
    def reason(word: str) -> str:
        """Why an image with an unknown word is left out."""
        if not word.strip():
            return "no label: it is empty"
        return f"unknown label: {word!r} is none of {', '.join(LABELS)}, and labels does not map it"
