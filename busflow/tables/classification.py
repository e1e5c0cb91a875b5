"""Table 5, and the results of the classifiers beside what the paper prints."""

from pathlib import Path

import numpy as np
import pandas as pd

from busflow.files import read_json, sha256
from busflow.labels import LABELS
from busflow.metrics.calibration import TARGETS
from busflow.metrics.classification import INTERVALS, count, matrices_per_group
from busflow.metrics.confusion import per_class, summary
from busflow.metrics.inputs import match, read_predictions, read_split
from busflow.metrics.shares import holm, mcnemar, swapped
from busflow.metrics.uncertainty import cluster_bootstrap
from busflow.paper import printed
from busflow.tables.leading import LEADING, Leading, Score, estimate, estimate_text, seeds_text
from busflow.tables.table import PAPER_COLUMN, Table, beside_paper, bold_best, number, percent, split_notes
from busflow.units import Unit, by_model, by_protocol, units

ALPHA = 0.05
SHOWN_SCORES = {"accuracy": "Accuracy", "balanced_accuracy": "Balanced accuracy", "macro_f1": "Macro F1"}
# Of a ``calibration`` in metrics.json, and of its operating points.
CALIBRATION_SCORES = {
    f"{name}_{stage}": Score(f"{title} {stage}", f"{stage}.{name}", f"intervals.{stage}.{name}")
    for name, title in {"ece": "ECE", "brier": "Brier score"}.items()
    for stage in ("before", "after")
}
FOUND_AT = {
    name: Score(f"{name.capitalize()} at {{:.0f}} %", name, f"intervals.{name}")
    for name in ("sensitivity", "specificity")
}
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

    Intervals: cluster bootstrap over groups of the mean over seeds. Against the best model of its
    protocol (by accuracy): permutation test over groups of the same means, Holm-corrected; and beside it, for
    one seed, the exact McNemar test, which takes images for independent.
    """
    paths = by_protocol(splits_paths, settings)
    found = units(predictions_paths, settings)
    parts = []
    for protocol, path in paths.items():
        split = read_split(path)
        part = pd.DataFrame(_summaries([unit for unit in found if unit.protocol == protocol], split))
        parts.append(part.assign(protocol=protocol, split_sha256=sha256(path)))
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
        + "; in brackets the 95 % interval of a bootstrap over groups. Bold: the greatest of its protocol.",
        "p: paired permutation test over groups against the model of the greatest accuracy, on means over "
        f"the seeds, Holm-corrected; “as good as the best”, or not told apart from it, when p ≥ {ALPHA}.",
        "McNemar's p: the exact test on images, Holm-corrected, for studies of one seed. It takes images for "
        "independent, which frames of a video are not: true differences are less certain than it says.",
        PAPER_COLUMN,
    ]
    return beside_paper(Table("Classification: scores on the test set.", data, shown, notes), settings)


def classification_per_class(metrics_paths: list[Path], settings: dict) -> Table:
    """Precision, recall, F1, AUROC and average precision of each class.

    Over several seeds: precision, recall and F1 of the summed confusion matrices, means of the other two.
    """
    rows = []
    for (protocol, model), metrics in by_model(metrics_paths, settings).items():
        scores = per_class(sum(np.array(each["confusion_matrix"]) for each in metrics))
        for k, label in enumerate(LABELS):
            ranks = {
                name: _mean([each["per_class"][label][name] for each in metrics])
                for name in ("auroc", "average_precision")
            }
            values = {name: values[k] for name, values in scores.items()} | ranks
            rows.append(
                {"protocol": protocol, "model": model, "class": label, "seeds": len(metrics)}
                | {"n": int(values.pop("n")) // len(metrics), "n_predicted": int(values.pop("n_predicted"))}
                | values
                | {"split_sha256": metrics[0]["split_sha256"]}
            )
    data = pd.DataFrame(rows)
    data.insert(2, "label", _model_labels(data, settings))
    shown = pd.DataFrame(
        {
            "Protocol": _protocol_labels(data, settings),
            "Model": data["label"],
            "Class": data["class"].str.capitalize(),
            "n": data["n"].map(number),
            "Predicted": data["n_predicted"].map(number),
            "Precision": [percent(v, n) for v, n in zip(data["precision"], data["n_predicted"], strict=True)],
            **{
                title: [percent(v, n) for v, n in zip(data[name], data["n"], strict=True)]
                for name, title in {
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
    ]
    return Table("Classification: scores per class on the test set.", data, shown, notes)


def classification_calibration(metrics_paths: list[Path], settings: dict) -> Table:
    """ECE and Brier score before and after calibration, sensitivity and specificity at the thresholds.

    Over several seeds, each with a temperature and thresholds of its own, means.
    """
    rows = [
        {"protocol": protocol, "model": model} | _calibration(metrics)
        for (protocol, model), metrics in by_model(metrics_paths, settings).items()
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
    notes = [
        *(
            f"{settings['protocols'][row.protocol]['label']}: n = {row.n:,} test images in {row.n_groups:,} "
            f"groups, {row.n_malignant:,} of them malignant and {row.n_other:,} not; fitted on "
            f"{row.n_validation:,} validation images; split {row.split_sha256[:12]}."
            for row in data.drop_duplicates("protocol").itertuples()
        ),
        f"In brackets the 95 % interval of a bootstrap over groups. {seeds_text(data['seeds'].max())}",
        "Temperature: by which the logits are divided so that the validation images are most likely (Guo et "
        "al., ICML 2017); above 1 for a network that is too sure of itself. No prediction changes by it.",
        "ECE: expected calibration error, from 0 to 1, over 15 bins of confidence; chance alone raises it, "
        "the more the fewer the images, and its interval still more. Brier score: squared error of the three "
        "probabilities, from 0 to 2. Less is better in both.",
        "Sensitivity (malignant images found) and specificity (others not) in per cent, at the greatest "
        "calibrated probability of malignancy that 90 or 95 % of the malignant validation images are at or "
        "above; n/a where there were none.",
    ]
    return Table("Classification: calibration and operating points on the test set.", data, shown, notes)


def _calibration(metrics: list[dict]) -> dict:
    """One model, over its seeds."""
    found = [each["calibration"] for each in metrics]
    point = found[0]["operating_points"][0]
    row = {"seeds": len(metrics), **{name: metrics[0][name] for name in ("n", "n_groups")}}
    row |= {name: point[name] for name in ("n_malignant", "n_other")}
    row |= {"n_validation": found[0]["n_validation"]}
    row |= {"temperature": _mean([each["temperature"] for each in found])}
    for name, score in CALIBRATION_SCORES.items():
        row |= _estimate(name, found, score)
    for k, target in enumerate(TARGETS.values()):
        points = [each["operating_points"][k] for each in found]
        row[_column("threshold", target)] = _mean([each["threshold"] for each in points])
        for name, score in FOUND_AT.items():
            row |= _estimate(_column(name, target), points, score)
    return row | {"split_sha256": metrics[0]["split_sha256"]}


def _column(name: str, target: float) -> str:
    return f"{name}_{100 * target:.0f}"


def _estimate(name: str, seeds: list[dict], score: Score) -> dict[str, float]:
    return dict(zip((name, f"{name}_low", f"{name}_high"), estimate(seeds, score), strict=True))


def _estimate_text(row: pd.Series, name: str, how: Leading) -> str:
    return estimate_text(*(row[f"{name}{end}"] for end in ("", "_low", "_high")), how)


def _summaries(found: list[Unit], split: pd.DataFrame) -> list[dict]:
    """One row per model of one protocol."""
    rows, right = [], []
    for model in dict.fromkeys(unit.model for unit in found):
        tables = [match(read_predictions(u.path), split, u.path) for u in found if u.model == model]
        seeds = pd.DataFrame([summary(count(table)) for table in tables])
        groups = np.stack([matrices_per_group(table) for table in tables], axis=1)  # [G, seeds, 3, 3]
        interval = cluster_bootstrap(groups, _mean_over_seeds)
        row = {"model": model, "seeds": len(tables), "n": len(tables[0]), "n_groups": len(groups)}
        for name in INTERVALS:
            low, high = interval[name] or (np.nan, np.nan)
            row |= {name: seeds[name].mean(), f"{name}_sd": seeds[name].std(ddof=1)}
            row |= {f"{name}_low": low, f"{name}_high": high}
        row["majority"] = tables[0]["label"].value_counts(normalize=True).max()
        rows.append(row)
        right.append(np.stack([(each["label"] == each["prediction"]).to_numpy() for each in tables]))
        group = tables[0]["group"].to_numpy()
    best = int(np.argmax([row["accuracy"] for row in rows]))
    others = [i for i in range(len(rows)) if i != best]
    sums = [pd.Series(each.mean(axis=0)).groupby(group).sum().to_numpy() for each in right]
    one_seed = all(len(each) == 1 for each in right)
    tests = {
        "p_holm": [swapped(sums[best], sums[i]) for i in others],
        "p_mcnemar": [mcnemar(right[best][0], right[i][0]) if one_seed else np.nan for i in others],
    }
    for name, p_values in tests.items():
        adjusted = dict(zip(others, holm(np.array(p_values)).tolist(), strict=True))
        for i, row in enumerate(rows):
            row[name] = adjusted.get(i, np.nan)
    for row in rows:
        row["indistinguishable"] = not row["p_holm"] < ALPHA
    return rows


def _mean_over_seeds(matrices: np.ndarray) -> dict[str, np.ndarray]:
    """Scores [R] of matrices [R, seeds, 3, 3]."""
    scores = summary(matrices)
    return {name: scores[name].mean(axis=1) for name in INTERVALS}


def _score_text(row: pd.Series, name: str) -> str:
    spread = "" if pd.isna(row[f"{name}_sd"]) else f" ± {100 * row[f'{name}_sd']:.2f}"
    low, high = row[f"{name}_low"], row[f"{name}_high"]
    interval = "" if pd.isna(low) else f" [{100 * low:.1f}, {100 * high:.1f}]"
    return percent(row[name]) + spread + interval


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
