"""Sources as a study writes them, completed: shipped entries taken over, and what goes without saying
said."""

from pathlib import Path, PurePosixPath
from urllib.parse import unquote, urlsplit

import yaml

from busflow.data.describing import check_reader
from busflow.data.folders import MANIFEST, SCHEME, check_apart, folder_of
from busflow.errors import BusflowError

ARCHIVES = (".zip", ".7z", ".tar.gz", ".tgz")
SHIPPED = Path("config/sources")


def complete(name: str, source: object) -> object:
    """A source of the config with all the keys that the schema wants, where they can be told.

    ``from: <file>``, or the file alone in place of the source, takes over an entry that stands in a file of
    its own; keys beside it override those of the entry. A source without ``archive`` has that of its first
    URL, without ``label`` its name, and without ``tasks`` what its reader gives: classification;
    segmentation with masks; detection with boxes or masks and a split of the dataset's own.

    Raises:
        BusflowError: the file is missing or no entry.
    """
    if isinstance(source, str):
        source = {"from": source}
    if not isinstance(source, dict):
        return source
    source = dict(source)
    if "from" in source:
        source = _entry(name, source.pop("from")) | source
    reader, urls = source.get("reader"), source.get("urls")
    source.setdefault("label", name)
    if archive := _archive(name, urls):
        source.setdefault("archive", archive)
    if (
        isinstance(reader, dict)
        and len(reader) == 1
        and isinstance(spec := next(iter(reader.values())), dict)
    ):
        source.setdefault("tasks", _tasks(next(iter(reader)), spec))
    return source


def check_source(name: str, source: dict, root: Path | str = ".") -> None:
    """See that a validated source's parts fit each other, and the study, which has this ``root``.

    Raises:
        BusflowError: its reader cannot be followed; or a folder stands among other URLs, has an archive's
            name, or is one that the study writes into.
    """
    check_reader(f"sources.{name}.reader", source["reader"])
    folder = folder_of(source["urls"])
    is_folder = folder is not None
    if is_folder:
        check_apart(f"sources.{name}.urls", folder, root)
    if is_folder != source["archive"].endswith(MANIFEST):
        raise BusflowError(
            f"sources.{name}.archive is {source['archive']}: "
            + (
                f"leave it out, or end it in {MANIFEST}, as the data lie in a folder"
                if is_folder
                else "name an archive"
            )
        )


def _entry(name: str, file: object) -> dict:
    key = f"sources.{name}.from"
    try:
        entry = yaml.safe_load(Path(str(file)).read_text(encoding="utf-8"))
    except OSError as error:
        shipped = ", ".join(path.as_posix() for path in sorted(SHIPPED.glob("*.yaml"))) or "none"
        raise BusflowError(
            f"{key} is {file}, which cannot be read ({error.strerror}); shipped are {shipped}"
        ) from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise BusflowError(f"{key}: {file} is no YAML ({' '.join(str(error).split())})") from error
    if not isinstance(entry, dict) or "from" in entry:
        raise BusflowError(f"{key}: {file} is no entry of a source: it holds the keys of one, and no from")
    return entry


def _archive(name: str, urls: object) -> str | None:
    """The archive that the first of some URLs names."""
    url = urls[0] if isinstance(urls, list) and urls else None
    if not isinstance(url, str):
        return None
    if url.startswith(SCHEME):
        return f"{name}{MANIFEST}"
    try:
        file = PurePosixPath(unquote(urlsplit(url).path)).name
    except ValueError:
        return None
    return file if file.lower().endswith(ARCHIVES) else None


def _tasks(kind: str, spec: dict) -> list[str]:
    masks = "mask" in spec
    boxes = masks or kind == "coco" or "box" in spec or "corners" in spec
    split = "split" in spec or isinstance(spec.get("file"), dict)
    given = {"classification": True, "detection": boxes and split, "segmentation": masks}
    return [task for task, is_given in given.items() if is_given]


def own_sources(config: dict) -> dict:
    """The sources of a config that are divided and trained on; the others are external, and only test."""
    return {name: entry for name, entry in config["sources"].items() if entry.get("use") != "external"}
