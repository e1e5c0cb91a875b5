"""Tables 1 to 4: what is in the data, and how it is split, beside what the paper prints."""

from pathlib import Path

import pandas as pd

from busflow.files import sha256
from busflow.labels import LABELS
from busflow.metrics.inputs import read_split, read_table
from busflow.paper import printed
from busflow.tables.table import PAPER_COLUMN, Table, beside_paper, number, split_notes
from busflow.units import by_protocol

SUBSETS = {"train": "Training", "val": "Validation", "test": "Testing", "total": "Total"}
COLUMNS = [*LABELS, "total"]


def table1(images_path: Path, settings: dict) -> Table:
    """Images per source and class (paper, Table 1), with the number of independent groups."""
    images = read_table(images_path, ["image_id", "source", "label", "group"])
    counts = pd.crosstab(images["source"], images["label"]).reindex(
        index=list(settings["sources"]), columns=list(LABELS), fill_value=0
    )
    counts.loc["total"] = counts.sum()
    counts["total"] = counts.sum(axis=1)
    groups = images.groupby("source")["group"].nunique().reindex(counts.index, fill_value=0)
    groups["total"] = images["group"].nunique()
    sources = settings["sources"] | {"total": {"label": "Total", "original_task": "–"}}
    rows = [
        {"source": s, "label": sources[s]["label"], "original_task": sources[s]["original_task"]}
        for s in counts.index
    ]
    data = pd.DataFrame(rows).join(counts, on="source").join(groups.rename("groups"), on="source")
    data = data.join(printed("table1")[COLUMNS].add_suffix("_paper").astype("Int64"), on="source")
    shown = pd.DataFrame(
        {"Source": data["label"], "Original task": data["original_task"]}
        | _with_paper(data)
        | {"Independent groups": data["groups"].map(number)}
    )
    notes = [
        f"n = {len(images):,} images in {groups['total']:,} independent groups; "
        f"index {sha256(images_path)[:12]}.",
        PAPER_COLUMN,
        "A group is a unit that must not be torn apart: a video, a patient, near-identical images. "
        "Groups can span sources.",
    ]
    return Table("Table 1. Images per source and class.", data, shown, notes)


def table2(splits_paths: list[Path], settings: dict) -> Table:
    """The split for classification (paper, Table 2)."""
    return _split_table("Table 2. The merged data for classification.", "table2", splits_paths, settings)


def table4(splits_paths: list[Path], settings: dict) -> Table:
    """The split for segmentation (paper, Table 4)."""
    return _split_table("Table 4. The data for segmentation.", "table4", splits_paths, settings)


def table3(splits_paths: list[Path], annotations_path: Path, settings: dict) -> Table:
    """The split for detection (paper, Table 3): images, boxes and videos, as the paper does not say which."""
    boxes = read_table(annotations_path, ["annotation_id", "image_id"])[["image_id"]]
    paths = by_protocol(splits_paths, settings)
    labels = ["benign", "malignant"]
    paper = printed("table3")
    paper["row_sum"] = paper[labels].sum(axis=1)
    paper["difference"] = paper["total"] - paper["row_sum"]
    parts, counted = [], {}
    for protocol, path in paths.items():
        images = read_split(path)
        images["video"] = images["image_id"].str.rpartition("/")[0]
        tables = {
            "images": _counts(images, labels),
            "boxes": _counts(boxes.merge(images, on="image_id"), labels),
            "videos": _counts(images.drop_duplicates(["split", "label", "video"]), labels),
        }
        whole = pd.concat([table.add_prefix(f"{name}_") for name, table in tables.items()], axis=1)
        # A video with frames in several subsets counts in each of them, and once in the total.
        videos = (
            images.drop_duplicates(["label", "video"])["label"].value_counts().reindex(labels, fill_value=0)
        )
        whole.loc["total", ["videos_benign", "videos_malignant", "videos_total"]] = [*videos, videos.sum()]
        part = whole.join(paper.add_suffix("_paper")).rename_axis("subset").reset_index()
        part.insert(0, "protocol", protocol)
        parts.append(part.assign(split_sha256=sha256(path)))
        counted[protocol] = " and ".join(
            f"{whole.loc['total', f'{name}_total']:,} {name}" for name in ("images", "boxes", "videos")
        )
    data = pd.concat(parts, ignore_index=True)
    shown = _row_names(data, settings)
    for name in ("images", "boxes", "videos"):
        for column in (*labels, "total"):
            shown[f"{name.capitalize()}: {column}"] = data[f"{name}_{column}"].map(number)
    for column, title in {"benign": "Benign", "malignant": "Malignant", "total": "Total"}.items():
        shown[f"{title} (paper)"] = data[f"{column}_paper"].map(number)
    shown["Row sum of the cells (paper)"] = data["row_sum_paper"].map(number)
    shown["Total off by (paper)"] = data["difference_paper"].map(
        lambda value: f"{value:+,}" if value else "0"
    )
    notes = [
        *split_notes(paths, settings, counted),
        PAPER_COLUMN + " Its totals are not the sums of its cells.",
        "A video whose frames fall into several subsets counts in each of them, and once in the total.",
    ]
    return beside_paper(Table("Table 3. The data for detection.", data, shown, notes), settings)


def _split_table(title: str, name: str, splits_paths: list[Path], settings: dict) -> Table:
    paths = by_protocol(splits_paths, settings)
    paper = printed(name)[COLUMNS].add_suffix("_paper")
    parts, counted = [], {}
    for protocol, path in paths.items():
        counts = _counts(read_split(path), list(LABELS))
        part = counts.join(paper).rename_axis("subset").reset_index()
        part.insert(0, "protocol", protocol)
        parts.append(part.assign(split_sha256=sha256(path)))
        counted[protocol] = (
            f"n = {counts.loc['total', 'total']:,} images, {counts.loc['test', 'total']:,} of them to test"
        )
    data = pd.concat(parts, ignore_index=True)
    shown = pd.concat([_row_names(data, settings), pd.DataFrame(_with_paper(data))], axis=1)
    notes = [*split_notes(paths, settings, counted), PAPER_COLUMN]
    return beside_paper(Table(title, data, shown, notes), settings)


def _counts(rows: pd.DataFrame, labels: list[str]) -> pd.DataFrame:
    """Rows per subset and label, with totals both ways."""
    subsets = [subset for subset in SUBSETS if subset != "total"]
    counts = pd.crosstab(rows["split"], rows["label"]).reindex(index=subsets, columns=labels, fill_value=0)
    counts.loc["total"] = counts.sum()
    counts["total"] = counts.sum(axis=1)
    return counts


def _with_paper(data: pd.DataFrame) -> dict[str, pd.Series]:
    """Shown columns: ours, then the paper's, for each class and the total."""
    ours = {column.capitalize(): data[column].map(number) for column in COLUMNS}
    paper = {f"{column.capitalize()} (paper)": data[f"{column}_paper"].map(number) for column in COLUMNS}
    return ours | paper


def _row_names(data: pd.DataFrame, settings: dict) -> pd.DataFrame:
    protocols = data["protocol"].map(lambda protocol: settings["protocols"][protocol]["label"])
    return pd.DataFrame({"Protocol": protocols, "Subset": data["subset"].map(SUBSETS)})
