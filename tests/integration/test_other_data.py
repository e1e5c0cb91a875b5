"""Folds, sources left out and an external source in one study, from archives to tables, on phantoms."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml

from busflow.files import read_json
from studies import PHANTOMS, ROOT, snakemake

pytestmark = pytest.mark.slow

MODEL = "convnext_atto"
FOLDS = [f"fold_{k}" for k in range(1, 4)]  # of the five of the shipped study, each a third of the images
LEFT_OUT = {"without_lin": ["lin"], "without_two": ["busi", "rodrigues"]}
TABLES = ["crossval_classification", "leave_one_out_classification", "external_classification"]
MADE = [
    *(f"tables/{name}.html" for name in (*TABLES, "classification", "table2")),
    *("figures/external.png", "figures/fig3_without_two.png", "audit/ledger.csv"),
]


def study(root: Path) -> dict:
    """What differs from config/crossval.yaml: phantoms, a small model, sources left out and one more."""
    demo, task = yaml.safe_load((ROOT / "config.yaml").read_text()), "classification"
    clinic = {"label": "A clinic", "tasks": [task], "reader": "busi", "archive": "clinic.zip"}
    clinic |= {"urls": ["phantom:busi?seed=77&benign=8&malignant=6&normal=2"], "use": "external"}
    return {
        "root": str(root),
        "protocols": {"fold_4": None, "fold_5": None}
        | {name: {"label": name, "fold": [k, len(FOLDS)]} for k, name in enumerate(FOLDS, 1)}
        | {name: {"split": "grouped", "leave_out": names} for name, names in LEFT_OUT.items()},
        "sources": {name: {"urls": [url], "sha256": None} for name, url in PHANTOMS.items()}
        | {"clinic": clinic},
        "splits": {"balance_tolerance": 0.2},
        "training": {task: demo["training"][task]},
        "timing": demo["timing"] | {"iterations": 3},
        "compute": demo["compute"],
        "only": dict.fromkeys(demo["models"]) | {task: [MODEL]},
        "models": {task: {MODEL: demo["models"][task][MODEL] | {"epochs": 1, "pretrained": None}}},
    }


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    """The root of the finished study."""
    root = tmp_path_factory.mktemp("protocols") / "study"
    overlay = root.with_suffix(".yaml")
    overlay.write_text(yaml.safe_dump(study(root)))
    made = [f"{root}/results/{name}" for name in MADE]
    snakemake(*made, "--configfile", ROOT / "config/crossval.yaml", overlay, "--nolock")
    return root


@pytest.fixture(scope="module")
def images(root) -> pd.DataFrame:
    return pd.read_csv(root / "data/index/images.csv")


def split_of(root: Path, protocol: str) -> pd.DataFrame:
    return pd.read_csv(root / f"data/splits/{protocol}/classification.csv")


def ids_tested(root: Path, protocol: str) -> list[str]:
    return split_of(root, protocol).query("split == 'test'")["image_id"].to_list()


def table(root: Path, name: str) -> pd.DataFrame:
    return pd.read_csv(root / f"results/tables/{name}.csv")


def unit(root: Path, protocol: str) -> Path:
    return root / f"results/{protocol}/classification/{MODEL}/seed0"


def test_over_the_folds_each_image_is_tested_once_and_all_are_scored_together(root, images):
    assert sorted(image for fold in FOLDS for image in ids_tested(root, fold)) == sorted(images["image_id"])
    found = table(root, "crossval_classification")
    row = found.iloc[0]
    assert (len(found), row["folds"], row["n"]) == (1, len(FOLDS), len(images))
    assert row["n_groups"] == images["group"].nunique()
    predictions = pd.concat([pd.read_csv(unit(root, fold) / "predictions.csv") for fold in FOLDS])
    assert row["accuracy"] == pytest.approx((predictions["prediction"] == predictions["label"]).mean())
    assert row["accuracy_low"] <= row["accuracy"] <= row["accuracy_high"]
    scores = [read_json(unit(root, fold) / "scores.json")["accuracy"] for fold in FOLDS]
    assert row["accuracy_folds"] == pytest.approx(np.mean(scores))


def test_sources_left_out_are_tested_whole_and_averaged_source_by_source(root, images):
    source = images.set_index("image_id")["source"]
    found = table(root, "leave_one_out_classification").set_index("tested_on")
    assert found.index.to_list() == ["lin", "busi rodrigues", "mean"]
    for protocol, names in LEFT_OUT.items():
        split = split_of(root, protocol)
        is_tested = split["split"] == "test"
        assert set(source[split.loc[is_tested, "image_id"]]) == set(names)
        assert set(source[split.loc[~is_tested, "image_id"]]).isdisjoint(names)
        row = found.loc[" ".join(names)]
        assert row["n"] == is_tested.sum() == source.isin(names).sum()
        assert row["macro_f1"] == pytest.approx(read_json(unit(root, protocol) / "scores.json")["macro_f1"])
    tests = found.drop("mean")
    assert found.loc["mean", "accuracy"] == pytest.approx(tests["accuracy"].mean())
    assert found.loc["mean", "accuracy_sd"] == pytest.approx(tests["accuracy"].std())
    assert table(root, "classification")["protocol"].to_list() == [*LEFT_OUT]


def test_an_external_source_tests_every_model_and_is_in_no_split(root, images):
    assert "clinic" not in set(images["source"])
    for path in (root / "data/splits").rglob("*.csv"):
        assert not pd.read_csv(path)["image_id"].str.startswith("clinic/").any(), path
    found = table(root, "external_classification")
    assert found["protocol"].to_list() == [name for name in (*FOLDS, *LEFT_OUT) for _ in range(2)]
    outside = found[found["test"] == "clinic"]
    own = found[found["test"] == "internal"]
    assert set(outside["n"]) == {8 + 6 + 2} and own["n"].to_list() == [
        len(ids_tested(root, name)) for name in own["protocol"]
    ]
    drops = own["accuracy"].to_numpy() - outside["accuracy"].to_numpy()
    assert outside["accuracy_drop"].to_numpy() == pytest.approx(drops)
    assert (root / "results/figures/external.svg").stat().st_size > 0


def test_the_ledger_has_the_claims_of_external_validity_and_says_why_folds_cannot_test_them(root):
    ledger = pd.read_csv(root / "results/audit/ledger.csv").set_index("id")
    claim = ledger.loc["S5.external_classification"]
    assert claim["verdict"] == "not testable"
    assert claim["why"] == "no protocol of this study follows the paper"
    assert not [name for name in table(root, "table2") if "paper" in name]
