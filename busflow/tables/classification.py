"""Table 5, and the results of the classifiers beside what the paper prints."""

from pathlib import Path

import numpy as np
import pandas as pd

from busflow.files import read_json, sha256
from busflow.labels import LABELS
from busflow.metrics.calibration import TARGETS
from busflow.metrics.classification import (
    INTERVALS,
    OF_RANKS,
    count,
    matrices_per_group,
    of_matrices,
)
from busflow.metrics.comparison import ALPHA, adjusted, against_best, compare, rank_sets
from busflow.metrics.confusion import per_class, summary
from busflow.metrics.inputs import match, read_predictions, read_split
from busflow.metrics.ranking import SPECIFICITIES
from busflow.metrics.resamples import KEY, read_metrics
from busflow.metrics.shares import mcnemar
from busflow.metrics.uncertainty import Estimate, mean
from busflow.paper import printed
from busflow.tables.leading import (
    INTERVAL,
    LEADING,
    RANKS,
    Leading,
    Score,
    ends,
    estimate,
    estimate_text,
    interval_columns,
    over_seeds,
    rank_text,
    seeds_text,
)
from busflow.tables.pairs import NOTES, in_order, pairs_shown
from busflow.tables.table import PAPER_COLUMN, Table, beside_paper, bold_best, number, percent, split_notes
from busflow.units import by_model, by_protocol, units

SHOWN_SCORES = {"accuracy": "Accuracy", "balanced_accuracy": "Balanced accuracy", "macro_f1": "Macro F1"}
# Of a ``calibration`` in metrics.json, and of its operating points.
CALIBRATION_SCORES = {
    f"{name}_{stage}": Score(f"{title} {stage}", f"{stage}.{name}", f"calibration.{stage}.{name}")
    for name, title in {"ece": "ECE", "brier": "Brier score"}.items()
    for stage in ("before", "after")
}
FOUND_AT = {
    name: Score(f"{name.capitalize()} at {{:.0f}} %", name, f"calibration.{name}_{{:.0f}}")
    for name in ("sensitivity", "specificity")
}
AT_SPECIFICITY = {
    f"sensitivity_at_{name}": Score(
        f"Sensitivity at {name} % specificity", f"sensitivity_at.{name}", f"sensitivity_at_{name}"
    )
    for name in SPECIFICITIES
}
MCNEMAR = (
    "McNemar's p: the exact test on images, Holm-corrected, for studies of one seed. It takes images for "
    "independent, which frames of a video are not: true differences are less certain than it says."
)
PLAIN = Leading({}, 1, 4, "")


def table5(facts_path: Path, settings: dict) -> Table:
    """Network facts (paper, Table 5): batch size, parameters, MACs at 224 px, size of the 3-class net."""
    facts = read_json(facts_path)
    data = pd.DataFrame.from_dict(facts, orient="index").rename_axis("model").reset_index()
    data = data.join(printed("table5").add_suffix("_paper"), on="model")
    corrected = printed("table5", corrected=True)[["params_m", "size_mb"]].add_suffix("_corrected")
    data = data.join(corrected, on="model")
    shown = pd.DataFrame(
        {
            "Network": data["label"],
            "Batch size": data["batch_size"].map(number),
            "Params, 1000 classes (M)": (data["params_1000"] / 1e6).map(lambda x: number(x, 2)),
            "Params, 3 classes (M)": (data["params_3"] / 1e6).map(lambda x: number(x, 2)),
            "MACs": data["macs"].map(macs),
            "Size, 3 classes (MB)": (data["size_bytes_3"] / 1e6).map(lambda x: number(x, 1)),
            "Batch size (paper)": data["batch_size_paper"].map(number),
            "Params (M) (paper)": data["params_m_paper"].map(_printed),
            "MACs (paper)": data["macs_paper"].map(macs),
            "Size (MB) (paper)": data["size_mb_paper"].map(_printed),
            "Params (M), arithmetic": _if_changed(data, "params_m", 2),
            "Size (MB), arithmetic": _if_changed(data, "size_mb", 1),
        }
    )
    notes = [
        f"n = {len(data)} networks, counted on the instantiated models; MACs at 224 × 224 pixels; "
        "sizes in fp32, 1 MB = 10⁶ bytes.",
        PAPER_COLUMN + " It gives parameters of the 1000-class networks and sizes of the 3-class ones.",
        "“Arithmetic”: the value that makes the paper's parameters and sizes agree, where they do not.",
    ]
    return Table("Table 5. The classifiers.", data, shown, notes)


def classification(predictions_paths: list[Path], splits_paths: list[Path], settings: dict) -> Table:
    """Accuracy, balanced accuracy and macro F1 per protocol and model, over the seeds.

    Accuracy decides who is the best of its protocol, how the others stand to it and which ranks a model may
    have, by the permutation test of `compare`; beside it, for one seed, stands the exact McNemar test, which
    takes images for independent. Both are Holm-corrected for all pairs of the protocol.
    """
    paths = by_protocol(splits_paths, settings)
    parts = []
    for protocol, tables in _tables(predictions_paths, paths, settings).items():
        estimates = _estimates(tables)
        part = pd.DataFrame([_summary(tables[model], model, estimates) for model in tables])
        tests = _pairs(tables, estimates, "accuracy")
        standing = against_best(tests, part.set_index("model")["accuracy"])[["p_holm", "p_mcnemar"]]
        part = part.join(standing, on="model").join(rank_sets(tests, list(tables)), on="model")
        part["indistinguishable"] = ~(part["p_holm"] < ALPHA)
        parts.append(part.assign(protocol=protocol, split_sha256=sha256(paths[protocol])))
    data = pd.concat(parts, ignore_index=True)
    data.insert(0, "protocol", data.pop("protocol"))
    data.insert(2, "label", _model_labels(data, settings))
    paper = printed("fig3")[["accuracy", "macro_f1"]] / 100
    data = data.join(paper.add_suffix("_paper"), on="model")
    shown = pd.DataFrame({"Protocol": _protocol_labels(data, settings), "Model": data["label"]})
    for name, title in SHOWN_SCORES.items():
        text = data.apply(_score_text, axis=1, name=name)
        shown[title] = text.groupby(data["protocol"], group_keys=False).apply(
            lambda part, name=name: bold_best(part, data.loc[part.index, name])
        )
    shown["Accuracy (paper)"] = (100 * data["accuracy_paper"]).map(lambda x: number(x, 2))
    shown["Macro F1 (paper)"] = (100 * data["macro_f1_paper"]).map(lambda x: number(x, 2))
    shown["p against the best"] = data["p_holm"].map(_p_value)
    shown["Rank"] = data.apply(rank_text, axis=1)
    shown["As good as the best"] = data["indistinguishable"].map({True: "yes", False: "no"})
    shown["McNemar's p"] = data["p_mcnemar"].map(_p_value) if data["seeds"].max() == 1 else "–"
    counts = {
        protocol: f"n = {part['n'].iloc[0]:,} test images in {part['n_groups'].iloc[0]:,} groups, "
        f"the largest class {percent(part['majority'].iloc[0])} % of them"
        for protocol, part in data.groupby("protocol", sort=False)
    }
    seeds = data["seeds"].max()
    notes = [
        *split_notes(paths, settings, counts),
        "In per cent"
        + (f"; mean ± standard deviation over {seeds} seeds" if seeds > 1 else "; one seed")
        + f". Bold: the greatest of its protocol. {INTERVAL}",
        "p: paired permutation test over groups against the model of the greatest accuracy, on means over "
        f"the seeds, Holm-corrected for all pairs; “as good as the best” (not told apart): p ≥ {ALPHA}.",
        RANKS.format("accuracy"),
        MCNEMAR,
        PAPER_COLUMN,
    ]
    return beside_paper(Table("Classification: scores on the test set.", data, shown, notes), settings)


def classification_per_class(metrics_paths: list[Path], settings: dict) -> Table:
    """Precision, recall, F1, AUROC and average precision of each class.

    Over several seeds: precision, recall and F1 of the summed confusion matrices, means of the other two;
    intervals are of the means.
    """
    rows = []
    for (protocol, model), metrics in by_model(metrics_paths, settings, read_metrics).items():
        scores = per_class(sum(np.array(each["confusion_matrix"]) for each in metrics))
        for k, label in enumerate(LABELS):
            ranks = {name: _mean([each["per_class"][label][name] for each in metrics]) for name in OF_RANKS}
            values = {name: values[k] for name, values in scores.items()} | ranks
            row = {"protocol": protocol, "model": model, "class": label, "seeds": len(metrics)}
            row |= {"n": int(values.pop("n")) // len(metrics), "n_predicted": int(values.pop("n_predicted"))}
            row["n_groups"] = metrics[0][KEY][f"per_class.{label}.recall"].n_groups
            for name, value in values.items():
                of_seeds = over_seeds(metrics, f"per_class.{label}.{name}")
                row |= interval_columns(name, (value, *ends(of_seeds)))
            rows.append(row | {"split_sha256": metrics[0]["split_sha256"]})
    data = pd.DataFrame(rows)
    data.insert(2, "label", _model_labels(data, settings))
    shown = pd.DataFrame(
        {
            "Protocol": _protocol_labels(data, settings),
            "Model": data["label"],
            "Class": data["class"].str.capitalize(),
            "n": data["n"].map(number),
            "Groups": data["n_groups"].map(number),
            "Predicted": data["n_predicted"].map(number),
            **{
                title: data.apply(_of_class_text, axis=1, name=name)
                for name, title in {
                    "precision": "Precision",
                    "recall": "Recall",
                    "f1": "F1",
                    "auroc": "AUROC",
                    "average_precision": "Average precision",
                }.items()
            },
        }
    )
    first = data.drop_duplicates("protocol")
    n = data.groupby(["protocol", "model"], sort=False)["n"].sum().groupby("protocol").first()
    notes = [
        *(
            f"{settings['protocols'][row.protocol]['label']}: n = {n[row.protocol]:,} test images; "
            f"split {row.split_sha256[:12]}."
            for row in first.itertuples()
        ),
        "In per cent; n/a (n=0): 0/0, such as the precision of a class that is never predicted.",
        "Over several seeds “predicted”, precision, recall and F1 come from the summed confusion matrices; "
        "AUROC (one class against the rest) and average precision are means.",
        INTERVAL,
    ]
    return Table("Classification: scores per class on the test set.", data, shown, notes)


def classification_calibration(metrics_paths: list[Path], settings: dict) -> Table:
    """ECE and Brier score before and after calibration, sensitivity and specificity at the thresholds.

    Over several seeds, each with a temperature and thresholds of its own, means.
    """
    rows = [
        {"protocol": protocol, "model": model} | _calibration(metrics)
        for (protocol, model), metrics in by_model(metrics_paths, settings, read_metrics).items()
    ]
    data = pd.DataFrame(rows)
    data.insert(2, "label", _model_labels(data, settings))
    shown = pd.DataFrame({"Protocol": _protocol_labels(data, settings), "Model": data["label"]})
    shown["Temperature"] = data["temperature"].map(lambda value: number(value, 2))
    for name, score in CALIBRATION_SCORES.items():
        shown[score.title] = data.apply(_estimate_text, axis=1, name=name, how=PLAIN)
    for target in TARGETS.values():
        for name, score in FOUND_AT.items():
            column = _column(name, target)
            text = data.apply(_estimate_text, axis=1, name=column, how=LEADING["classification"])
            shown[score.title.format(100 * target)] = text
    for name, score in AT_SPECIFICITY.items():
        shown[score.title] = data.apply(_estimate_text, axis=1, name=name, how=LEADING["classification"])
    notes = [
        *(
            f"{settings['protocols'][row.protocol]['label']}: n = {row.n:,} test images in {row.n_groups:,} "
            f"groups, {row.n_malignant:,} of them malignant and {row.n_other:,} not; fitted on "
            f"{row.n_validation:,} validation images; split {row.split_sha256[:12]}."
            for row in data.drop_duplicates("protocol").itertuples()
        ),
        f"{seeds_text(data['seeds'].max())} {INTERVAL}",
        "Temperature: by which the logits are divided so that the validation images are most likely (Guo et "
        "al., ICML 2017); above 1 for a network that is too sure of itself. No prediction changes by it.",
        "ECE: expected calibration error, from 0 to 1, over 15 bins of confidence; chance alone raises it, "
        "the more the fewer the images, and its interval still more. Brier score: squared error of the three "
        "probabilities, from 0 to 2. Less is better in both.",
        "Sensitivity (malignant images found) and specificity (others not) in per cent, at the greatest "
        "calibrated probability of malignancy that 90 or 95 % of the malignant validation images are at or "
        "above; n/a where there were none. At a specificity: at the threshold that has it on the test images "
        "themselves, which nobody knows beforehand.",
    ]
    return Table("Classification: calibration and operating points on the test set.", data, shown, notes)


def _calibration(metrics: list[dict]) -> dict:
    """One model, over its seeds."""
    found = [each["calibration"] | {KEY: each[KEY]} for each in metrics]
    point = found[0]["operating_points"][0]
    row = {"seeds": len(metrics), **{name: metrics[0][name] for name in ("n", "n_groups")}}
    row |= {name: point[name] for name in ("n_malignant", "n_other")}
    row |= {"n_validation": found[0]["n_validation"]}
    row |= {"temperature": _mean([each["temperature"] for each in found])}
    for name, score in CALIBRATION_SCORES.items():
        row |= interval_columns(name, estimate(found, score))
    for k, target in enumerate(TARGETS.values()):
        points = [each["operating_points"][k] | {KEY: each[KEY]} for each in found]
        row[_column("threshold", target)] = _mean([each["threshold"] for each in points])
        for name, score in FOUND_AT.items():
            here = score._replace(estimate=score.estimate.format(100 * target))
            row |= interval_columns(_column(name, target), estimate(points, here))
    for name, score in AT_SPECIFICITY.items():
        row |= interval_columns(name, estimate(metrics, score))
    return row | {"split_sha256": metrics[0]["split_sha256"]}


def _column(name: str, target: float) -> str:
    return f"{name}_{100 * target:.0f}"


def _estimate_text(row: pd.Series, name: str, how: Leading) -> str:
    return estimate_text(*(row[f"{name}{end}"] for end in ("", "_low", "_high")), how)


def classification_pairs(predictions_paths: list[Path], splits_paths: list[Path], settings: dict) -> Table:
    """Every two classifiers on the same images; beside accuracy, for one seed, the exact McNemar test."""
    paths = by_protocol(splits_paths, settings)
    parts, counts = [], {}
    for protocol, tables in _tables(predictions_paths, paths, settings).items():
        estimates = _estimates(tables)
        first = next(iter(tables.values()))[0]
        counts[protocol] = f"n = {len(first):,} test images in {first['group'].nunique():,} groups"
        parts += [
            _pairs(tables, estimates, name).assign(protocol=protocol, score=name, n=len(first))
            for name in INTERVALS
        ]
    data = in_order(pd.concat(parts, ignore_index=True), "score")
    how = LEADING["classification"]
    shown = pairs_shown(data, "score", SHOWN_SCORES, how, "classification", settings)
    of_accuracy = data[data["score"] == "accuracy"]
    p_values = [number(p, 3) for p in of_accuracy["p_mcnemar"]]
    shown["McNemar's p of accuracy"] = pd.Series(p_values, dtype=str)  # so too where there is no pair
    notes = [*split_notes(paths, settings, counts), how.words, *NOTES, MCNEMAR]
    return Table("Classification: every two models on the same images.", data, shown, notes)


def _tables(
    predictions_paths: list[Path], splits: dict[str, Path], settings: dict
) -> dict[str, dict[str, list[pd.DataFrame]]]:
    """Predictions of all seeds by protocol and model, of the same images in the same order."""
    read = {protocol: read_split(path) for protocol, path in splits.items()}
    found: dict[str, dict[str, list]] = {protocol: {} for protocol in splits}
    for unit in units(predictions_paths, settings):
        table = match(read_predictions(unit.path), read[unit.protocol], unit.path)
        found[unit.protocol].setdefault(unit.model, []).append(table)
    return found


def _estimates(tables: dict[str, list[pd.DataFrame]]) -> dict[str, dict[str, Estimate]]:
    """Each score of each model, over its seeds."""
    of_seeds = {
        model: [of_matrices(matrices_per_group(table)) for table in seeds] for model, seeds in tables.items()
    }
    return {
        name: {model: mean(each[name] for each in seeds) for model, seeds in of_seeds.items()}
        for name in INTERVALS
    }


def _summary(seeds: list[pd.DataFrame], model: str, estimates: dict[str, dict[str, Estimate]]) -> dict:
    """One model of one protocol."""
    scores = pd.DataFrame([summary(count(table)) for table in seeds])
    row = {"model": model, "seeds": len(seeds), "n": len(seeds[0]), "n_groups": seeds[0]["group"].nunique()}
    for name in INTERVALS:
        row |= interval_columns(name, (scores[name].mean(), *ends(estimates[name][model])))
        row[f"{name}_sd"] = scores[name].std(ddof=1)
    return row | {"majority": seeds[0]["label"].value_counts(normalize=True).max()}


def _pairs(
    tables: dict[str, list[pd.DataFrame]], estimates: dict[str, dict[str, Estimate]], score: str
) -> pd.DataFrame:
    """Every two models by one score, with ``p_mcnemar``: NaN but for accuracy of one seed."""
    pairs = compare(estimates[score])
    right = {
        model: (seeds[0]["label"] == seeds[0]["prediction"]).to_numpy() for model, seeds in tables.items()
    }
    defined = score == "accuracy" and all(len(seeds) == 1 for seeds in tables.values())
    tests = [
        mcnemar(right[one], right[other]) if defined else np.nan
        for one, other in zip(pairs["model"], pairs["other"], strict=True)
    ]
    return pairs.assign(p_mcnemar=adjusted(pd.Series(tests, dtype=float)))


def _score_text(row: pd.Series, name: str) -> str:
    spread = "" if pd.isna(row[f"{name}_sd"]) else f" ± {100 * row[f'{name}_sd']:.2f}"
    low, high = row[f"{name}_low"], row[f"{name}_high"]
    interval = "" if pd.isna(low) else f" [{100 * low:.1f}, {100 * high:.1f}]"
    return percent(row[name]) + spread + interval


def _of_class_text(row: pd.Series, name: str) -> str:
    """``91.20 [88.1, 93.9]``; ``n/a (n=0)`` of nothing."""
    n = row["n_predicted" if name == "precision" else "n"]
    return (
        percent(row[name], n) if pd.isna(row[name]) else _estimate_text(row, name, LEADING["classification"])
    )


def _p_value(p: float) -> str:
    if pd.isna(p):
        return "best"
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def macs(value: float) -> str:
    """As the paper writes them: 551.16M, 1.37G."""
    if pd.isna(value):
        return "–"
    return f"{value / 1e6:.2f}M" if value < 1e9 else f"{value / 1e9:.2f}G"


def _printed(value: float) -> str:
    return "–" if pd.isna(value) else str(value)


def _if_changed(data: pd.DataFrame, name: str, decimals: int) -> pd.Series:
    changed = data[f"{name}_corrected"] != data[f"{name}_paper"]
    return data[f"{name}_corrected"].where(changed).map(lambda x: number(x, decimals))


def _protocol_labels(data: pd.DataFrame, settings: dict) -> pd.Series:
    return data["protocol"].map(lambda protocol: settings["protocols"][protocol]["label"])


def _model_labels(data: pd.DataFrame, settings: dict) -> pd.Series:
    return data["model"].map(lambda model: settings["models"]["classification"][model]["label"])


def _mean(values: list[float | None]) -> float:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else np.nan
