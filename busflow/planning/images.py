"""How many images a study trains on, validates on and tests on, before its data are there or after."""

from pathlib import Path
from typing import NamedTuple
from urllib.parse import parse_qsl, urlsplit

from busflow.data.catalogue import own_sources
from busflow.data.splits import GROUPED_SHARES
from busflow.errors import BusflowError
from busflow.files import read_csv
from busflow.labels import SPLITS
from busflow.paper import facts
from busflow.protocols import Protocol, division


class Images(NamedTuple):
    """Images of a task under a protocol, and where their numbers come from."""

    train: int
    val: int
    test: int
    origin: str


class Source(NamedTuple):
    """Images of a source that serve a task, those of them that it gives as its test set, and whose word."""

    total: int
    test: int
    origin: str


def images_of(config: dict, protocol: str, task: str) -> Images:
    """Count the images of a task under a protocol.

    The split says it, if it was made. Else the images of the index, or those that were published, are
    divided in the shares that splits have.

    Raises:
        BusflowError: nobody says how many images a source has.
    """
    data = Path(config["root"]) / "data"
    split = data / "splits" / protocol / f"{task}.csv"
    if split.is_file():
        found = read_csv(split)["split"].value_counts()
        return Images(*(int(found.get(name, 0)) for name in SPLITS), "the splits")
    entry = Protocol(protocol, **division(config["protocols"][protocol]))
    own = own_sources(config)
    sources = {name: source_of(config, name, task) for name in own if task in own[name]["tasks"]}
    total = sum(source.total for source in sources.values())
    shares = GROUPED_SHARES[task]
    if entry.fold:
        test = total // entry.fold[1]
    elif entry.leave_out:
        test = sum(source.total for name, source in sources.items() if name in entry.leave_out)
    else:
        test = sum(source.test for source in sources.values())
    val = round(shares["val"] * (total - test))  # of the rest, if the test set is given
    test = test or round(shares["test"] * total)
    origins = dict.fromkeys(source.origin for source in sources.values())
    return Images(total - val - test, val, test, " and ".join(origins))


def source_of(config: dict, name: str, task: str) -> Source:
    """Count the images of a source that serve a task.

    Raises:
        BusflowError: neither its index, nor the paper, nor the address of its phantoms tells.
    """
    data = Path(config["root"]) / "data/index"
    entry = config["sources"][name]
    if (data / "images.csv").is_file():
        table = read_csv(data / "images.csv").query("source == @name")
        if task == "detection":
            table = table[table["image_id"].isin(read_csv(data / "annotations.csv")["image_id"])]
        given = (table["upstream_split"] == "val") & (task == "detection")
        return Source(len(table), int(given.sum()), "the index")
    if entry["label"] == facts()["sources"].get(name):
        if task != "detection":
            return Source(facts()["table1"]["rows"][name]["total"], 0, "the paper")
        rows = facts()["table3"]["rows"]
        lesions = {split: row["benign"] + row["malignant"] for split, row in rows.items()}
        return Source(lesions["total"], lesions["test"], "the paper")
    address = urlsplit(next(iter(entry["urls"]), ""))
    if address.scheme == "phantom":
        return Source(_phantoms(dict(parse_qsl(address.query))), 0, "the phantoms' addresses")
    raise BusflowError(
        f"nobody says how many images source {name} has before it is read; make its index first: "
        f"snakemake {data / 'images.csv'} --configfile <that of the study>"
    )


def _phantoms(parameters: dict[str, str]) -> int:
    """Images of a phantom archive, but for its few defects."""
    numbers = {key: int(value) for key, value in parameters.items()}
    if "videos" in numbers:
        return numbers["videos"] * numbers["frames"]
    return sum(numbers.get(label, 0) for label in ("benign", "malignant", "normal"))
