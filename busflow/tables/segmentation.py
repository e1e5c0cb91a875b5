"""Table 7 beside what the paper prints, overlap image by image, and every two segmenters compared."""

import itertools
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd

from busflow.labels import LESIONS
from busflow.metrics.comparison import COLUMNS, against_best, compare, rank_sets
from busflow.paper import lesion_share, printed
from busflow.tables.leading import INTERVAL, RANKS, Leading, ends, interval_columns, over_seeds, rank_text
from busflow.tables.overlap import (
    SUBSETS,
    THIRDS,
    Metrics,
    comparable,
    dice_per_image,
    mean_dice,
    models_of,
    protocols_of,
    subset_of,
)
from busflow.tables.pairs import NOTES, in_order, pairs_shown, signed
from busflow.tables.table import PAPER_COLUMN, Table, beside_paper, bold_best, number
from busflow.units import foreign_sources

VIEWS = {"two_class": "Background, lesion", "three_class": "Background, benign, malignant"}
# What Table 7 calls the two classes that it shows.
CATEGORIES = {"background": "Benign", "lesion": "Malignant"}
OF_CLASS = {"iou": "IoU", "acc": "Acc."}
OF_ALL = {"miou": "mIoU", "aacc": "aAcc", "macc": "mAcc"}
DICE = Leading(
    {}, 1, 3, "Mean Dice, lesion against background. Over several seeds an image's Dice is their mean."
)
# Estimates with names of their own.
ESTIMATES = {
    "views.two_class.per_class.lesion.iou": "two_class_lesion_iou",
    "views.two_class.miou": "two_class_miou",
    "views.three_class.miou": "three_class_miou",
    "per_image.lesion.dice": "dice_mean",
}
COCO = ("small", "medium", "large")
OVERLAP = {
    "dice_lesion": "Dice",
    "iou_lesion": "IoU",
    **{f"dice_{label}": f"Dice, {label}" for label in LESIONS},
    **{f"iou_{label}": f"IoU, {label}" for label in LESIONS},
    **{f"class_dice_{label}": f"Dice of the class {label}" for label in LESIONS},
    **{f"dice_{third}": f"Dice, {third} third" for third in THIRDS},
    **{f"dice_{size}": f"Dice, {size} (COCO)" for size in COCO},
}
# The values of `_flat` that have an interval, and their places in metrics.json.
PLACES = {
    **{f"{score}_lesion": f"per_image.lesion.{score}" for score in ("dice", "iou")},
    **{f"{score}_{label}": f"per_image.{label}.{score}" for label in LESIONS for score in ("dice", "iou")},
    **{f"hd95_{part}": f"per_image.{part}.hd95_px" for part in ("lesion", *LESIONS)},
    **{f"dice_{third}": f"sizes.{third}.dice" for third in THIRDS},
    **{f"dice_{size}": f"coco_sizes.{size}.dice" for size in COCO},
}


def table7(metrics_paths: list[Path], settings: dict) -> Table:
    """IoU and accuracy of the segmenters, pooled over all pixels (paper, Table 7), in both views."""
    found = comparable(metrics_paths, settings)
    data = pd.DataFrame(
        [
            _pooled(protocol, view, model, label, found[protocol, model], settings)
            for protocol, view in itertools.product(protocols_of(found), VIEWS)
            for model in models_of(found, protocol)
            for label in found[protocol, model][0]["views"][view]["per_class"]
        ]
    )
    data = data.merge(_paper(), on=["view", "model", "class"], how="left")
    first = ~data.duplicated(["protocol", "view", "model"])
    shown = pd.DataFrame({"Protocol": _protocol_labels(data, settings), "View": data["view"].map(VIEWS)})
    shown = shown.assign(Model=data["label"], Class=data["class"].str.capitalize())
    for name, title in OF_CLASS.items():
        shown[title] = _best_bold(data, name, ["protocol", "view", "class"], _pooled_text)
    for name, title in OF_ALL.items():
        shown[title] = _best_bold(data, name, ["protocol", "view"], _pooled_text).where(first, "")
    shown["Category (paper)"] = data["category_paper"].fillna("–")
    for name, title in (OF_CLASS | OF_ALL).items():
        text = data.apply(_printed_text, axis=1, name=name)
        shown[f"{title} (paper)"] = text if name in OF_CLASS else text.where(first, "")
    shown["n"] = data["n"].map(number)
    shown["Lesion pixels (%)"] = (100 * data["lesion_pixel_share"]).map(lambda share: number(share, 3))
    implied = (100 * data["lesion_pixel_share_paper"]).map(lambda share: number(share, 2))
    shown["Lesion pixels (%) (paper, implied)"] = implied
    shown["Split"] = data["split_sha256"].str[:12]
    shown["Images"] = data["images_sha256"].str[:12]
    foreign = foreign_sources(["busi"], settings)
    notes = [
        *_count_notes(data, settings),
        f"In per cent, pooled over the pixels of all test images; {_seeds_words(data)}. Bold: the greatest "
        f"of its protocol, view and class. {INTERVAL}",
        "mIoU and mAcc are the means of the classes; aAcc, the share of all pixels that are right, is the "
        "mean of the classes' accuracies weighted by their pixels. Both views are of the same predictions: "
        "the first takes benign and malignant together.",
        "The paper names the two classes of its Table 7 Benign and Malignant. Its own numbers are those of "
        "background and lesion: the two make up all pixels, which benign and malignant do not.",
        PAPER_COLUMN + " After an arrow stands what follows from the row's other cells where they contradict "
        "it. The paper's 0.48 and 0.50 of ConvNeXt-Small are per cent.",
        "Lesion pixels: their share of all pixels of the test set. It and the hash of the sorted image ids "
        "(Images) are the same in all rows of a protocol, else there is no table. What the paper's Acc. and "
        "aAcc imply differs between the families: they were not scored on the same pixels.",
    ]
    if foreign:
        notes.append(f"The paper's values are about other images than this study's ({', '.join(foreign)}).")
    return beside_paper(Table("Table 7. The segmenters on the test set.", data, shown, notes), settings)


def segmentation(metrics_paths: list[Path], settings: dict) -> Table:
    """Dice, IoU and distance image by image: classes, sizes, lesions missed and false positives."""
    found = comparable(metrics_paths, settings)
    data = pd.DataFrame([_by_image(*key, seeds, settings) for key, seeds in found.items()])
    data = data.join(_standing(found), on=["protocol", "model"])
    counted = [
        name for name in data if name.startswith("n_") or name.endswith("_n") or name.endswith("_images")
    ]
    data[counted] = data[counted].convert_dtypes()  # whole numbers, unless the seeds differ
    shown = pd.DataFrame({"Protocol": _protocol_labels(data, settings), "Model": data["label"]})
    for name, title in OVERLAP.items():
        shown[title] = _best_bold(data, name, ["protocol"], _overlap_text)
    shown.insert(3, "Dice against the best", data.apply(_difference_text, axis=1))
    shown.insert(4, "Rank", data.apply(rank_text, axis=1))
    shown.insert(6, "HD95 (pixels)", data.apply(_distance_text, axis=1))
    shown.insert(7, "Missed lesions", _of(data["n_missed_lesion"], data["n_lesion"]))
    shown["Normals with a false positive"] = _of(data["false_positive_images"], data["n_normal"])
    shown["False-positive area (%)"] = data.apply(_area_text, axis=1)
    sizes = {part: f"n_{part}" for part in ("lesion", *LESIONS, "normal", *THIRDS, *COCO)}
    notes = [
        *_count_notes(data, settings, sizes),
        "Image by image, lesion against background: mean ± standard deviation over the images"
        f"{_means_words(data)}. Bold: the greatest of its protocol. {INTERVAL}",
        "Against the best: the mean Dice less the greatest of the protocol, on the same images, with the "
        "same kind of interval.",
        RANKS.format("Dice over all lesions"),
        "HD95: 95th percentile of the distance between the outlines, in pixels of the original image, over "
        "the n lesions where something is predicted. What a model misses is left out, so none is bold.",
        "Missed: no pixel is predicted as a lesion. Dice of the class: only the mask of the image's own "
        "class counts, so a lesion outlined as the other class has 0.",
        "Thirds: by the lesion's share of the image. COCO's small, medium, large: below 32², below 96² and "
        "more pixels of the original image, which depend on how images were sampled.",
        "A normal image has an empty mask: whatever is predicted in it is a false positive; its area is a "
        "share of the image, mean ± standard deviation over the normal images.",
    ]
    return Table("Segmentation: overlap image by image.", data, shown, notes)


def segmentation_pairs(metrics_paths: list[Path], settings: dict) -> Table:
    """Difference of the mean Dice of every two segmenters on the same images, with its interval."""
    found = comparable(metrics_paths, settings)
    parts, counts = [], []
    for protocol in protocols_of(found):
        models = models_of(found, protocol)
        counts.append({"protocol": protocol} | _counts(models[0], found[protocol, models[0]], settings))
        for subset in SUBSETS:
            rows = subset_of(dice_per_image(found, protocol), subset)
            pairs = compare(mean_dice(rows, models)) if len(rows) else _no_pairs(models)
            parts.append(pairs.assign(protocol=protocol, subset=subset, n=len(rows)))
            counts[-1][subset] = len(rows)
    data = in_order(pd.concat(parts, ignore_index=True), "subset")
    shown = pairs_shown(data, "subset", SUBSETS, DICE, "segmentation", settings)
    names = {title.lower(): subset for subset, title in SUBSETS.items()}
    notes = [
        *_count_notes(pd.DataFrame(counts), settings, names),
        DICE.words,
        *NOTES,
    ]
    return Table("Segmentation: every two models on the same images.", data, shown, notes)


def _no_pairs(models: list[str]) -> pd.DataFrame:
    """What `compare` gives where there is no lesion."""
    rows = pd.DataFrame(list(itertools.combinations(models, 2)), columns=["model", "other"])
    return rows.reindex(columns=COLUMNS).assign(n_groups=0)


def _pooled(
    protocol: str, view: str, model: str, label: str, seeds: list[dict], settings: dict
) -> dict[str, object]:
    """One class of one segmenter in one view: means over the seeds, counts, and what the paper prints."""
    views = [each["views"][view] for each in seeds]
    blocks = {"all": views, label: [each["per_class"][label] for each in views]}
    places = {"all": f"views.{view}", label: f"views.{view}.per_class.{label}"}
    row = {"protocol": protocol, "view": view, "model": model, "class": label} | _counts(
        model, seeds, settings
    )
    row |= {f"n_class_{what[2:]}": blocks[label][0][what] for what in ("n_pixels", "n_images")}
    for part, name in [*((label, name) for name in OF_CLASS), *(("all", name) for name in OF_ALL)]:
        values = pd.Series([block[name] for block in blocks[part]], dtype=float)
        row |= {name: values.mean(), f"{name}_sd": values.std(ddof=1)}
        row |= _interval(name, f"{places[part]}.{name}", row[name], seeds)
    return row


def _paper() -> pd.DataFrame:
    """Table 7 as printed and corrected (shares), one row a model and class, beside the two-class view."""
    parts = []
    for place, (label, category) in enumerate(CATEGORIES.items()):
        columns = {f"{name}{place}": name for name in OF_CLASS} | {name: name for name in OF_ALL}
        kinds = {"paper": printed("table7"), "corrected": printed("table7", corrected=True)}
        part = [
            (table[list(columns)] / 100).rename(columns=columns).add_suffix(f"_{kind}")
            for kind, table in kinds.items()
        ]
        parts.append(
            pd.concat(part, axis=1).assign(
                **{"view": "two_class", "class": label, "category_paper": category}
            )
        )
    paper = pd.concat(parts).rename_axis("model").reset_index()
    shares = {model: lesion_share(model)[0] for model in printed("table7").index}
    return paper.assign(lesion_pixel_share_paper=paper["model"].map(shares))


def _by_image(protocol: str, model: str, seeds: list[dict], settings: dict) -> dict[str, object]:
    """One segmenter: means over the seeds of what ``_flat`` names."""
    values = pd.DataFrame([_flat(each) for each in seeds], dtype=float)
    row = {"protocol": protocol, "model": model} | _counts(model, seeds, settings) | values.mean().to_dict()
    row |= {"dice_lesion_seeds_sd": values["dice_lesion"].std(ddof=1)}
    for name, place in PLACES.items():
        row |= _interval(name, place, row[name], seeds)
    return row | _size_gap(seeds)


def _flat(metrics: dict) -> dict[str, float | None]:
    """The values of one unit image by image, each mean with its ``_sd`` and ``_n``; None is undefined."""
    images = metrics["per_image"]
    blocks = {"false_positive_area": images["normal"]["false_positive_area"]}
    values = {"false_positive_images": images["normal"]["false_positive_images"]}
    for part in ("lesion", *LESIONS):
        blocks |= {f"{score}_{part}": images[part][score] for score in ("dice", "iou")}
        blocks[f"hd95_{part}"] = images[part]["hd95_px"]
        values |= {f"hd95_{part}_median": images[part]["hd95_px"]["median"]}
        values |= {f"n_missed_{part}": images[part]["n_missed"]}
    blocks |= {f"class_dice_{label}": images["class_dice"][label] for label in LESIONS}
    sizes = metrics["sizes"] | metrics["coco_sizes"]
    blocks |= {f"dice_{size}": sizes[size]["dice"] for size in (*THIRDS, *COCO)}
    values |= {f"n_{part}": images[part]["n"] for part in ("lesion", *LESIONS, "normal")}
    values |= {f"n_{size}": sizes[size]["n"] for size in (*THIRDS, *COCO)}
    for name, block in blocks.items():
        values |= {name: block["mean"], f"{name}_sd": block["sd"], f"{name}_n": block["n"]}
    return values


def _counts(model: str, seeds: list[dict], settings: dict) -> dict[str, object]:
    """What all rows tell: the model's name, how much was scored, and on which images."""
    names = ("n", "n_groups", "n_pixels", "lesion_pixel_share", "split_sha256", "images_sha256")
    label = settings["models"]["segmentation"][model]["label"]
    return {"label": label, "seeds": len(seeds)} | {name: seeds[0][name] for name in names}


def _interval(name: str, place: str, value: float, seeds: list[dict]) -> dict[str, float]:
    """A value over the seeds with the ends of its interval, of the estimate of that place."""
    return interval_columns(name, (value, *ends(over_seeds(seeds, ESTIMATES.get(place, place)))))


def _size_gap(seeds: list[dict]) -> dict[str, float]:
    """Mean Dice on the largest third of the lesions less that on the smallest, with its interval."""
    small, _, large = (over_seeds(seeds, f"sizes.{third}.dice") for third in THIRDS)
    if small is None or large is None:  # lesions of one size have no thirds
        return interval_columns("dice_size_gap", [np.nan] * 3)
    gap = large.minus(small)._replace(cases=np.hstack([large.cases, small.cases]))
    return interval_columns("dice_size_gap", (gap.value, *ends(gap)))


def _standing(found: Metrics) -> pd.DataFrame:
    """By (protocol, model): its mean Dice less the greatest of the protocol, with interval and test."""
    parts = {}
    names = {"low": "difference_low", "high": "difference_high"}
    for protocol in protocols_of(found):
        table, models = dice_per_image(found, protocol), models_of(found, protocol)
        pairs = compare(mean_dice(table, models)) if len(table) else _no_pairs(models)
        part = rank_sets(pairs, models)
        if len(table):
            part = part.join(against_best(pairs, table[models].mean()).rename(columns=names))
        parts[protocol] = part.reindex(columns=[*part.columns[:2], "difference", *names.values(), "p_holm"])
    return pd.concat(parts, names=["protocol", "model"])


def _protocol_labels(data: pd.DataFrame, settings: dict) -> pd.Series:
    return data["protocol"].map(lambda protocol: settings["protocols"][protocol]["label"])


def _best_bold(data: pd.DataFrame, name: str, by: list[str], text: Callable[..., str]) -> pd.Series:
    """A column as text, the greatest value of each part bold."""
    words = data.apply(text, axis=1, name=name)
    return pd.concat([bold_best(words[part.index], part[name]) for _, part in data.groupby(by)])


def _pooled_text(row: pd.Series, name: str) -> str:
    """``73.25 ± 0.80 [70.1, 76.0]``; ``n/a (0 pixels)`` of a class that is nowhere."""
    if pd.isna(row[name]):
        return f"n/a ({row['n_class_pixels']} pixels)" if name in OF_CLASS else "n/a"
    return _number(row, name, 100, 2)


def _overlap_text(row: pd.Series, name: str) -> str:
    """``0.712 ± 0.210``; ``n/a (0 lesions)``."""
    return f"n/a ({row[f'{name}_n']} lesions)" if pd.isna(row[name]) else _number(row, name, 1, 3)


def _number(row: pd.Series, name: str, factor: float, digits: int) -> str:
    """Value, deviation and interval as far as they are known."""
    spread, low, high = (factor * row.get(f"{name}_{part}", np.nan) for part in ("sd", "low", "high"))
    words = f"{factor * row[name]:.{digits}f}" + ("" if pd.isna(spread) else f" ± {spread:.{digits}f}")
    return words + ("" if pd.isna(low) else f" [{low:.{digits - 1}f}, {high:.{digits - 1}f}]")


def _printed_text(row: pd.Series, name: str) -> str:
    """``97.01 → 93.10``; a dash where the paper prints nothing."""
    value, corrected = 100 * row[f"{name}_paper"], 100 * row[f"{name}_corrected"]
    changed = not pd.isna(value) and number(value, 2) != number(corrected, 2)
    return number(value, 2) + (f" → {number(corrected, 2)}" if changed else "")


def _difference_text(row: pd.Series) -> str:
    if pd.isna(row["difference"]):
        return "n/a" if pd.isna(row["dice_lesion"]) else "best"
    return signed(row["difference"], row["difference_low"], row["difference_high"])


def _distance_text(row: pd.Series) -> str:
    if pd.isna(row["hd95_lesion"]):
        return "n/a (n = 0)"
    median = f", median {row['hd95_lesion_median']:.1f} (n = {row['hd95_lesion_n']:.4g})"
    return _number(row, "hd95_lesion", 1, 1) + median


def _area_text(row: pd.Series) -> str:
    return (
        "n/a (0 images)"
        if pd.isna(row["false_positive_area"])
        else _number(row, "false_positive_area", 100, 2)
    )


def _of(part: pd.Series, whole: pd.Series) -> pd.Series:
    """``3 of 129``; a count over several seeds may be a mean."""
    return part.map("{:.4g}".format) + " of " + whole.map("{:,.0f}".format)


def _count_notes(data: pd.DataFrame, settings: dict, parts: dict[str, str] | None = None) -> list[str]:
    """One note per protocol: what was scored, how many of each part, and the hashes."""
    notes = []
    for row in data.drop_duplicates("protocol").to_dict("records"):
        counts = ", ".join(f"{row[column]:,.0f} {part}" for part, column in (parts or {}).items())
        notes.append(
            f"{settings['protocols'][row['protocol']]['label']}: n = {row['n']:,} test images in "
            f"{row['n_groups']:,} groups{f' ({counts})' if counts else ''}, {row['n_pixels']:,} pixels, "
            f"{100 * row['lesion_pixel_share']:.3f} % of them lesion; split {row['split_sha256'][:12]}, "
            f"images {row['images_sha256'][:12]}."
        )
    return notes


def _seeds_words(data: pd.DataFrame) -> str:
    seeds = data["seeds"].max()
    return f"mean ± standard deviation over {seeds} seeds" if seeds > 1 else "one seed"


def _means_words(data: pd.DataFrame) -> str:
    seeds = data["seeds"].max()
    return f", each the mean of {seeds} seeds" if seeds > 1 else ", one seed"
