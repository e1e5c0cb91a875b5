"""Table 6 beside what the paper prints, the same in AI-TOD's statistics, and what Table 6 leaves out."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pandas as pd

from busflow.labels import LESIONS
from busflow.metrics.comparison import ALPHA, against_best, compare, rank_sets
from busflow.metrics.detection import LIMITS
from busflow.metrics.froc import RATES
from busflow.metrics.resamples import read_metrics
from busflow.paper import printed, status
from busflow.tables.leading import INTERVAL, RANKS, ends, interval_columns, over_seeds, rank_text
from busflow.tables.table import PAPER_COLUMN, Table, beside_paper, bold_best, number
from busflow.units import by_model, foreign_sources

COLUMNS = {"ap": "AP", "ap50": "AP50", "ap75": "AP75", "aps": "AP_S", "apm": "AP_M", "apl": "AP_L"}
AITOD = {
    "aitod_ap": "AP",
    "aitod_ap25": "AP25",
    "aitod_ap50": "AP50",
    "aitod_ap75": "AP75",
    "aitod_ap_vt": "AP_vt",
    "aitod_ap_t": "AP_t",
    "aitod_ap_s": "AP_s",
    "aitod_ap_m": "AP_m",
    "aps_from_10": "AP_S from 10²",
}
OTHERS = {
    "ar100": "AR",
    **{f"ap50_{label}": f"AP50 {label}" for label in LESIONS},
    **{f"auc_pr_{label}": f"AUC-PR {label}" for label in LESIONS},
    "ap_smallest": "AP, smallest third",
    "ap_middle": "AP, middle third",
    "ap_largest": "AP, largest third",
    "sensitivity_1": "Lesions found at 1 FP/image",
    "sensitivity_mean": "Lesions found, mean of 7 rates",
    "videos_1": "Videos found at 1 FP/image",
}
# Which bin a value is about: its boxes are what is missing where the value is undefined.
BINS = {
    "aps": "coco.small",
    "apm": "coco.medium",
    "apl": "coco.large",
    "aps_from_10": "paper.small",
    "aitod_ap_vt": "aitod.very_tiny",
    "aitod_ap_t": "aitod.tiny",
    "aitod_ap_s": "aitod.small",
    "aitod_ap_m": "aitod.medium",
    "ap_smallest": "relative.smallest",
    "ap_middle": "relative.middle",
    "ap_largest": "relative.largest",
}
# Values whose estimates have other names.
ESTIMATES = {
    **{f"ap50_{label}": f"per_class.{label}.ap50" for label in LESIONS},
    **{name: f"bins.{place}.ap" for name, place in BINS.items() if place.startswith("relative.")},
}
# Published results on the same test videos.
LITERATURE = (
    {
        "model": "cva_net",
        "label": "CVA-Net [26]",
        "source": "CVA-Net, Lin et al. 2022, MICCAI, as quoted in the paper's section 6.2",
        "ap": 0.361,
        "ap50": 0.651,
        "ap75": 0.385,
    },
    {
        "model": "retinanet_r50",
        "label": "RetinaNet-ResNet50",
        "source": "RetinaNet, COCO log in the README of github.com/zaidfraij/breast-lesion-detection, whose "
        "AP_S is −1: no box is small",
        "apm": 0.043,
        "apl": 0.304,
    },
)


def table6(metrics_paths: list[Path], settings: dict) -> Table:
    """Average precision of the detectors (paper, Table 6), with published results on the same videos."""
    data = summaries(metrics_paths, settings, COLUMNS).join(
        _standing(metrics_paths, settings), on=["protocol", "model"]
    )
    counts = _count_notes(data, settings, ["small", "medium", "large"], "coco")
    shown = _shown(data, settings, COLUMNS)
    shown["Rank"] = data.apply(rank_text, axis=1)
    data = data.join(printed("table6")[list(COLUMNS)].add_suffix("_paper"), on="model")
    suspected = [status("table6", model, "aps") == "suspected" for model in data["model"]]
    data["ap75_as_aps_paper"] = data["aps_paper"].where(suspected)
    for name, title in COLUMNS.items():
        shown[f"{title} (paper)"] = data[f"{name}_paper"].map(_three_digits)
    shown["AP75 (paper, as AP_S)"] = data["ap75_as_aps_paper"].map(_three_digits)
    literature = pd.DataFrame(LITERATURE).assign(protocol="literature")
    published = literature.reindex(columns=list(COLUMNS)).map(_three_digits).rename(columns=COLUMNS)
    published = published.assign(Protocol="Literature", Detector=literature["label"])
    shown = pd.concat([shown, published], ignore_index=True).fillna("–")
    foreign = foreign_sources(["lin"], settings)
    notes = [
        *counts,
        f"COCO's statistics with at most {LIMITS['coco']} boxes per image and class; areas in pixels of the "
        f"original image: small up to 32², medium up to 96², large above. {_spread(data)}",
        f"Bold: the greatest of its protocol among the detectors of this study. {INTERVAL}",
        RANKS.format("AP"),
        "n/a: no box of the test set has that size, so the value does not exist. The paper prints AP_S as "
        "0.000 where COCO's code finds no small box in the same test videos (see RetinaNet).",
        "“As AP_S”: RFLA's code reports the statistics of AI-TOD, whose fourth is AP75, where COCO's fourth "
        "is AP_S. What the paper prints as AP_S of the RFLA rows is most likely their AP75.",
        PAPER_COLUMN,
        f"Literature: {'; '.join(each['source'] for each in LITERATURE)}.",
    ]
    if foreign:
        notes.append(f"The literature is about other test videos than this study's ({', '.join(foreign)}).")
    data = pd.concat([data, literature.drop(columns="source")], ignore_index=True)
    counted = [name for name in data if name in {"seeds", "n"} or name.startswith("n_")]
    data[counted] = data[counted].astype("Int64")
    return beside_paper(Table("Table 6. The detectors on the test set.", data, shown, notes), settings)


def table6_aitod(metrics_paths: list[Path], settings: dict) -> Table:
    """The detectors in the statistics of AI-TOD, which the code of RFLA reports, under their own names."""
    data = summaries(metrics_paths, settings, AITOD)
    notes = [
        *_count_notes(data, settings, ["very_tiny", "tiny", "small", "medium"], "aitod"),
        f"At most {LIMITS['aitod']:,} boxes per image and class; very tiny (vt) up to 8² pixels, tiny (t) up "
        f"to 16², small (s) up to 32², medium (m) above (Wang et al. 2021, ICPR). {_spread(data)}",
        "Read under COCO's headings (AP, AP50, AP75, AP_S, AP_M, AP_L) the first six would show AP25 as "
        "AP50, AP50 as AP75, and AP75 as AP_S.",
        "AP_S from 10²: COCO's small with the lower bound that the paper states (section 4.1), "
        f"at most {LIMITS['paper']} boxes.",
    ]
    title = "Table 6 in the statistics of AI-TOD."
    return Table(title, data, _shown(data, settings, AITOD), notes)


def detection(metrics_paths: list[Path], settings: dict) -> Table:
    """Recall, each class, relative sizes, and lesions and videos found at a rate of false positives."""
    data = summaries(metrics_paths, settings, OTHERS)
    notes = [
        *_count_notes(data, settings, ["smallest", "middle", "largest"], "relative"),
        "AR: average recall over IoU 0.5 to 0.95. AUC-PR: area under the curve of precision against recall "
        f"at IoU 0.5, without interpolation (paper, section 4.1). {_spread(data)} {INTERVAL}",
        "Thirds: the test set's boxes by their share of the image, as sizes in pixels depend on how the "
        "images were sampled.",
        "Found: a box of either class overlaps the lesion with an IoU of 0.5 or more and scores at least the "
        "lowest threshold that leaves at most that many false positives (FP) per image; a video is found "
        "when a lesion in one of its frames is. The seven rates are those of LUNA16, 1/8 to 8.",
    ]
    return Table("Detection: what Table 6 leaves out.", data, _shown(data, settings, OTHERS), notes)


def summaries(metrics_paths: list[Path], settings: dict, columns: Iterable[str]) -> pd.DataFrame:
    """A row per protocol and detector: counts, and the columns' mean and standard deviation over the seeds.

    Where there is an interval of the mean, its ends have ``_low`` and ``_high``.
    """
    rows = []
    for (protocol, model), metrics in by_model(metrics_paths, settings, read_metrics).items():
        first = metrics[0]
        row = {"protocol": protocol, "model": model, "label": settings["models"]["detection"][model]["label"]}
        row |= {"seeds": len(metrics), "n": first["n"], "n_boxes": first["n_boxes"]}
        row |= {"n_groups": first["n_groups"], "n_videos": first["froc"]["videos"]["n"]}
        for family, bins in first["bins"].items():
            row |= {f"n_{family}.{size}": each["n"] for size, each in bins.items()}
        seeds = pd.DataFrame([statistics(each) for each in metrics], dtype=float)
        for name in columns:
            row |= {name: seeds[name].mean(), f"{name}_sd": seeds[name].std(ddof=1)}
            if of_seeds := over_seeds(metrics, ESTIMATES.get(name, name)):
                row |= interval_columns(name, (row[name], *ends(of_seeds)))
        rows.append(row | {"split_sha256": first["split_sha256"]})
    return pd.DataFrame(rows)


def _standing(metrics_paths: list[Path], settings: dict) -> pd.DataFrame:
    """By protocol and model how AP tells it from the others: ``p_holm``, ``indistinguishable`` and ranks."""
    found = by_model(metrics_paths, settings, read_metrics)
    parts = {}
    for protocol in dict.fromkeys(protocol for protocol, _ in found):
        models = {model: over_seeds(seeds, "ap") for (of, model), seeds in found.items() if of == protocol}
        pairs = compare(models)
        values = pd.Series({model: each.value for model, each in models.items()})
        part = rank_sets(pairs, list(models))
        part["p_holm"] = against_best(pairs, values)["p_holm"] if values.notna().any() else np.nan
        parts[protocol] = part.assign(indistinguishable=~(part["p_holm"] < ALPHA))
    return pd.concat(parts, names=["protocol", "model"])


def statistics(metrics: dict) -> dict[str, float | None]:
    """The named values of one unit's metrics, flat; None is undefined."""
    at_one = RATES.index(1)
    lesions, videos = metrics["froc"]["lesions"], metrics["froc"]["videos"]
    values = {name: metrics["coco"][name] for name in ("ap", "ap50", "ap75", "ar100")}
    values |= {f"aitod_{name}": value for name, value in metrics["aitod"].items()}
    for name, where in BINS.items():
        family, size = where.split(".")
        values[name] = metrics["bins"][family][size]["ap"]
    for label in LESIONS:
        values |= {f"{name}_{label}": metrics["per_class"][label][name] for name in ("ap50", "auc_pr")}
    values |= {"sensitivity_1": lesions["sensitivity"][at_one], "sensitivity_mean": lesions["mean"]}
    return values | {"videos_1": videos["sensitivity"][at_one]}


def _shown(data: pd.DataFrame, settings: dict, columns: dict[str, str]) -> pd.DataFrame:
    """The named values as text, the best of each protocol bold."""
    protocols = data["protocol"].map(lambda protocol: settings["protocols"][protocol]["label"])
    shown = pd.DataFrame({"Protocol": protocols, "Detector": data["label"]})
    for name, title in columns.items():
        text = data.apply(_text, axis=1, name=name)
        parts = [bold_best(text[part.index], part[name]) for _, part in data.groupby("protocol")]
        shown[title] = pd.concat(parts)
    return shown


def _text(row: pd.Series, name: str) -> str:
    if pd.isna(row[name]):
        return f"n/a ({row[f'n_{BINS[name]}']} boxes)" if name in BINS else "n/a"
    spread = "" if pd.isna(row[f"{name}_sd"]) else f" ± {row[f'{name}_sd']:.3f}"
    low, high = row.get(f"{name}_low"), row.get(f"{name}_high")
    return f"{row[name]:.3f}{spread}" + ("" if pd.isna(low) else f" [{low:.2f}, {high:.2f}]")


def _three_digits(value: float) -> str:
    return number(value, 3)


def _count_notes(data: pd.DataFrame, settings: dict, sizes: list[str], family: str) -> list[str]:
    """One note per protocol: what was counted, how many boxes of each size, and the split's hash."""
    notes = []
    for row in data.drop_duplicates("protocol").to_dict("records"):
        counts = ", ".join(f"{row[f'n_{family}.{size}']:,} {size.replace('_', ' ')}" for size in sizes)
        notes.append(
            f"{settings['protocols'][row['protocol']]['label']}: n = {row['n']:,} test images with "
            f"{row['n_boxes']:,} boxes ({counts}) in {row['n_videos']:,} videos; "
            f"split {row['split_sha256'][:12]}."
        )
    return notes


def _spread(data: pd.DataFrame) -> str:
    seeds = data["seeds"].max()
    return f"Mean ± standard deviation over {seeds} seeds." if seeds > 1 else "One seed."
