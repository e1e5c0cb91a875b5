"""Classification metrics against scikit-learn and brute force, and the refusal of bad input."""

import json
import runpy
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn import metrics as sk

from busflow.errors import BusflowError
from busflow.files import write_json
from busflow.metrics.classification import count, evaluate, per_class, summary
from busflow.metrics.reliability import calibration_error
from busflow.metrics.resamples import read_metrics
from study_files import LABELS, make_calibration, make_images, make_predictions, make_split

ROOT = Path(__file__).parents[2]


def plain(metrics):
    """What goes to metrics.json."""
    return {name: value for name, value in metrics.items() if name != "resamples"}


@pytest.fixture
def files(tmp_path):
    """Write predictions and a split; return their paths. Keyword arguments shape the predictions."""

    def write(change=None, **kwargs):
        split = make_split(make_images(), "group")
        predictions = make_predictions(split, **kwargs)
        if change:
            predictions = change(predictions)
        split.to_csv(tmp_path / "split.csv", index=False)
        predictions.to_csv(tmp_path / "predictions.csv", index=False)
        return tmp_path / "predictions.csv", tmp_path / "split.csv"

    return write


def test_every_number_is_that_of_scikit_learn(files):
    predictions, split = files(skill=1.0)
    found, table = evaluate(predictions, split), pd.read_csv(predictions)
    truth, predicted = table["label"], table["prediction"]
    p, r, f, n = sk.precision_recall_fscore_support(truth, predicted, labels=LABELS)
    for k, label in enumerate(LABELS):
        block = found["per_class"][label]
        assert (block["precision"], block["recall"], block["f1"], block["n"]) == pytest.approx(
            (p[k], r[k], f[k], n[k])
        )
        assert block["n_predicted"] == (predicted == label).sum()
        assert block["auroc"] == pytest.approx(sk.roc_auc_score(truth == label, table[f"p_{label}"]))
        expected = sk.average_precision_score(truth == label, table[f"p_{label}"])
        assert block["average_precision"] == pytest.approx(expected)
    assert found["accuracy"] == pytest.approx(sk.accuracy_score(truth, predicted))
    assert found["balanced_accuracy"] == pytest.approx(sk.balanced_accuracy_score(truth, predicted))
    assert found["macro_f1"] == pytest.approx(sk.f1_score(truth, predicted, average="macro"))
    assert found["confusion_matrix"] == sk.confusion_matrix(truth, predicted, labels=LABELS).tolist()
    assert found["undefined"] == []
    assert sum(block["n"] for block in found["per_source"].values()) == found["n"] == len(table)


def test_per_source_numbers_are_over_the_classes_that_the_source_has(files):
    predictions, split = files(skill=1.0)
    found, table = evaluate(predictions, split), pd.read_csv(predictions)
    part = table[table["source"] == "rodrigues"]
    block = found["per_source"]["rodrigues"]
    f1 = sk.f1_score(part["label"], part["prediction"], labels=LABELS[:2], average="macro")
    assert block["n_per_class"]["normal"] == 0
    assert block["macro_f1"] == pytest.approx(f1)


def test_a_class_never_predicted_has_no_precision_and_is_named(files):
    found = evaluate(*files(never="normal"))
    normal = found["per_class"]["normal"]
    assert normal["n_predicted"] == 0
    assert normal["precision"] is None
    assert (normal["recall"], normal["f1"]) == (0, 0)
    assert found["undefined"] == ["normal.precision"]
    assert found["macro_f1"] == pytest.approx(np.mean([b["f1"] for b in found["per_class"].values()]))


def test_a_class_without_images_is_null_and_left_out_of_the_means(tmp_path):
    ids = [f"lin/x/{i}" for i in range(4)]
    truth, predicted = ["benign", "benign", "malignant", "malignant"], ["benign", "malignant"] * 2
    split = pd.DataFrame({"image_id": ids, "split": "test", "label": truth, "group": ids})
    scores = [[0.8, 0.1, 0.1] if p == "benign" else [0.1, 0.8, 0.1] for p in predicted]
    table = pd.DataFrame({"image_id": ids, "source": "lin", "label": truth, "prediction": predicted})
    table[[f"p_{label}" for label in LABELS]] = scores
    split.to_csv(tmp_path / "split.csv", index=False)
    table.to_csv(tmp_path / "predictions.csv", index=False)
    found = evaluate(tmp_path / "predictions.csv", tmp_path / "split.csv")
    assert set(found["per_class"]["normal"].values()) == {0, None}
    assert found["macro_f1"] == pytest.approx(0.5)


def test_precision_and_recall_are_not_swapped():
    """The paper's Normal class of ConvNeXt-Nano: 3 of 5 predictions right, 3 of 14 images found."""
    matrix = np.array([[1000, 47, 1], [35, 1548, 1], [5, 6, 3]])
    scores = per_class(matrix)
    assert scores["precision"][2] == pytest.approx(3 / 5)
    assert scores["recall"][2] == pytest.approx(3 / 14)


def test_macro_f1_is_the_mean_of_f1_not_the_harmonic_mean():
    scores = summary(np.array([[8, 2, 0], [0, 9, 1], [3, 0, 1]]))
    p, r = scores["macro_precision"], scores["macro_recall"]
    assert scores["macro_f1"] == pytest.approx(np.mean([16 / 21, 18 / 21, 2 / 6]))
    assert abs(scores["macro_f1"] - 2 * p * r / (p + r)) > 0.005


def test_calibration_error_is_the_sum_over_bins_written_out():
    table = make_predictions(make_split(make_images(), "image_id"), skill=1.0)
    confidence = table[[f"p_{label}" for label in LABELS]].max(axis=1)
    right = table["label"] == table["prediction"]
    total = 0.0
    for m in range(1, 16):
        inside = (confidence > (m - 1) / 15) & (confidence <= m / 15)
        if inside.any():
            total += inside.sum() / len(table) * abs(right[inside].mean() - confidence[inside].mean())
    assert calibration_error(table) == pytest.approx(total)


def test_the_cluster_interval_contains_the_estimate_and_is_wider_than_wilsons(tmp_path, files):
    """All images of a group right or wrong together: a group is worth one image."""

    def together(table):
        group = table["image_id"].str.rpartition("/")[0]
        right = group.map(
            dict(zip(group.unique(), np.random.default_rng(2).random(group.nunique()) < 0.7, strict=True))
        )
        table["prediction"] = table["label"].where(
            right, table["label"].map(dict(zip(LABELS, LABELS[1:] + LABELS[:1], strict=True)))
        )
        for label in LABELS:
            table[f"p_{label}"] = np.where(table["prediction"] == label, 0.8, 0.1)
        return table

    found = evaluate(*files(change=together))
    low, high = found["intervals"]["accuracy"]["cluster"]
    naive_low, naive_high = found["intervals"]["accuracy"]["wilson"]
    assert low <= found["accuracy"] <= high
    assert high - low > naive_high - naive_low


def test_the_order_of_the_rows_does_not_matter(files):
    first = evaluate(*files())
    second = evaluate(*files(change=lambda table: table.sample(frac=1, random_state=3)))
    assert plain(first) == plain(second)


def _set(column, value):
    def change(table):
        table[column] = table[column].astype(object)
        table.loc[table.index[1], column] = value
        return table

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_set("p_benign", 1.5), "outside"),
        (_set("p_benign", -0.1), "outside"),
        (_set("p_benign", float("nan")), "not a number"),
        (_set("p_benign", "high"), "not a number"),
        (_set("p_benign", 0.123), "do not sum to 1"),
        (_set("label", "cyst"), "label is not one of benign, malignant, normal"),
        (_set("prediction", ""), "prediction is not one of"),
        (_set("label", "normal"), "label differs"),
        (_set("image_id", "lin/no/such"), "1 test images without a prediction, 1 predictions without"),
        (lambda table: table.iloc[:-1], "1 test images without a prediction"),
        (lambda table: pd.concat([table, table.iloc[:1]]), "more than once"),
        (lambda table: table.drop(columns="p_normal"), "lacks the column p_normal"),
        (lambda table: table.iloc[:0], "no rows"),
        (
            lambda table: table.assign(prediction=table["prediction"].iloc[::-1].to_numpy()),
            "not the most probable",
        ),
    ],
)
def test_bad_predictions_are_refused_with_the_file_and_the_fault(files, change, message):
    predictions, split = files(change=change)
    with pytest.raises(BusflowError, match=message) as error:
        evaluate(predictions, split)
    assert str(predictions) in str(error.value)


def test_an_empty_and_a_missing_file_are_refused(files, tmp_path):
    predictions, split = files()
    predictions.write_text("")
    with pytest.raises(BusflowError, match="not a readable CSV"):
        evaluate(predictions, split)
    with pytest.raises(BusflowError, match="no such file"):
        evaluate(tmp_path / "none.csv", split)


def test_the_script_writes_strict_json(files, tmp_path, monkeypatch):
    predictions, split = files(never="normal")
    record, output = tmp_path / "run.json", tmp_path / "metrics.json"
    write_json(record, {"calibration": make_calibration()})
    arguments = [
        "--task",
        "classification",
        "--predictions",
        predictions,
        "--split",
        split,
        "--record",
        record,
        "--output",
        output,
        "--scores",
        tmp_path / "scores.json",
    ]
    monkeypatch.setattr(sys, "argv", ["evaluate.py", *map(str, arguments)])
    runpy.run_path(str(ROOT / "scripts/evaluate.py"), run_name="__main__")
    expected = evaluate(predictions, split, record)
    assert json.loads(output.read_text()) == plain(expected)
    assert read_metrics(output)["resamples"].keys() == expected["resamples"].keys()
    assert "NaN" not in output.read_text()
    scores = json.loads((tmp_path / "scores.json").read_text())
    assert scores["accuracy"] == evaluate(predictions, split)["accuracy"]


def test_matrix_counts_rows_as_truth():
    table = pd.DataFrame(
        {"label": ["benign", "benign", "normal"], "prediction": ["malignant", "malignant", "benign"]}
    )
    assert count(table).tolist() == [[0, 2, 0], [0, 0, 0], [1, 0, 0]]


def test_nothing_right_of_the_predictions_imports_torch():
    modules = [
        f"busflow.{room}.{path.stem}"
        for room in ("metrics", "report")
        for path in sorted((ROOT / "busflow" / room).glob("[a-z]*.py"))
    ]
    load = f"list(map(importlib.import_module, {modules}))"
    code = f"import sys, importlib; {load}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0
