"""Five folds and sources left out, from archives to tables: the shipped studies, small and on phantoms."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml

from studies import PHANTOMS, ROOT, SEGMENTER, snakemake

CLASSIFIER = "convnext_atto"
DEMO = yaml.safe_load((ROOT / "config.yaml").read_text())


def finish(root: Path, study: str, targets: list[str], task: str, model: str) -> Path:
    """The results of a shipped study, with phantoms in place of its sources and one small model."""
    overlay = {
        "root": str(root),
        "protocols": {"grouped": None},
        "sources": {name: {"urls": [url], "sha256": None} for name, url in PHANTOMS.items()},
        "splits": {"balance_tolerance": 0.2},
        "training": {task: DEMO["training"][task]},
        "timing": DEMO["timing"] | {"iterations": 3},
        "compute": DEMO["compute"],
        "only": dict.fromkeys(DEMO["models"]) | {task: [model]},
        "models": {task: {model: DEMO["models"][task][model] | {"epochs": 1, "pretrained": None}}},
    }
    path = root.with_suffix(".yaml")
    path.write_text(yaml.safe_dump(overlay))
    made = [f"{root}/results/{target}" for target in targets]
    snakemake(*made, "--configfile", ROOT / f"config/{study}.yaml", path, "--nolock")
    return root


@pytest.mark.slow
def test_five_folds_end_in_one_table_of_all_images(tmp_path):
    targets = ["tables/crossval_segmentation.html", "tables/table4.csv", "audit/ledger.csv"]
    root = finish(tmp_path / "folds", "crossval", targets, "segmentation", SEGMENTER)
    table = pd.read_csv(root / "results/tables/crossval_segmentation.csv")
    row = table.iloc[0]
    images = pd.read_csv(root / "data/index/images.csv")
    tested = [
        pd.read_csv(path).query("split == 'test'")["image_id"]
        for path in (root / "data/splits").glob("fold_?/segmentation.csv")
    ]
    assert len(tested) == 5 and sorted(pd.concat(tested)) == sorted(images["image_id"])
    assert (len(table), row["folds"], row["n"]) == (1, 5, len(images))
    scores = [
        pd.read_json(path, typ="series") for path in (root / "results").glob("fold_?/*/*/seed0/scores.json")
    ]
    assert row["lesion_dice_folds"] == pytest.approx(np.mean([each["lesion_dice"] for each in scores]))
    assert row["lesion_dice_low"] <= row["lesion_dice"] <= row["lesion_dice_high"]
    assert not [name for name in pd.read_csv(root / "results/tables/table4.csv") if "paper" in name]
    ledger = pd.read_csv(root / "results/audit/ledger.csv").set_index("id")
    assert (ledger.loc[["T4.counts"], "verdict"] == "not testable").all()


@pytest.mark.slow
def test_each_source_left_out_is_a_row_of_the_tables(tmp_path):
    protocols = ["without_lin", "without_busi", "without_rodrigues"]
    targets = ["tables/classification.csv", "figures/leakage.png", "figures/classification_summary.png"]
    targets += [f"figures/{name}_without_rodrigues.png" for name in ("fig3", "classification_roc")]
    root = finish(tmp_path / "sources", "leave_one_out", targets, "classification", CLASSIFIER)
    table = pd.read_csv(root / "results/tables/classification.csv").set_index("protocol")
    assert table.index.to_list() == protocols
    assert not [name for name in table if "paper" in name]
    images = pd.read_csv(root / "data/index/images.csv")
    for name in protocols:
        split = pd.read_csv(root / f"data/splits/{name}/classification.csv").merge(
            images[["image_id", "source"]], on="image_id"
        )
        left_out = name.removeprefix("without_")
        assert set(split.loc[split["split"] == "test", "source"]) == {left_out}
        assert left_out not in set(split.loc[split["split"] != "test", "source"])
        assert table.loc[name, "n"] == (split["split"] == "test").sum()
