"""What DVC records is what Snakemake makes, in the demonstration and in a study that lacks parts of it."""

import subprocess
from pathlib import Path

import pytest
import yaml
from dvc.dependency.param import ParamsDependency
from dvc.repo import Repo

from busflow.errors import BusflowError
from busflow.recording.coverage import check_coverage
from busflow.recording.ledger import ledger_of
from busflow.recording.study import CODE, Study, find_study, made_by
from studies import ROOT

DETECTION = ("detection", "table3", "table6", "fig4", "fig5", "fig6")


@pytest.fixture(scope="module")
def made() -> dict[Path, str]:
    """What Snakemake makes in the demonstration."""
    return made_by(find_study("demo"), ROOT)


def test_every_file_of_a_study_and_all_its_code_are_on_record(made, monkeypatch):
    monkeypatch.chdir(ROOT)
    with Repo() as repo:
        deps = [dep for dep in repo.index.deps if not isinstance(dep, ParamsDependency)]
        recorded = {Path(entry.fs_path).relative_to(ROOT) for entry in [*repo.index.outs, *deps]}
    assert len(made) > 300
    checks = check_coverage(find_study("demo"), made, recorded)
    assert [name for check in checks for name in check.differing if "(no stage records it)" in name] == []
    covered = {path for file in made for path in (file, *file.parents)}
    assert {path for path in recorded if path.parts[0] in ("data", "results")} <= covered


@pytest.mark.parametrize(
    "name",
    [
        *("Makefile", "workflow/Snakefile", "workflow/schemas/config.schema.yaml", "envs/requirements.txt"),
        *(f"busflow/{name}.py" for name in ("files", "labels", "cli", "errors", "units", "paper")),
        *("busflow/paper.yaml", "busflow/recording/verify.py", "rules/common.smk", "scripts/train.py"),
    ],
)
def test_what_shapes_a_study_counts_as_its_code(name):
    assert (ROOT / name).is_file() and {Path(name), *Path(name).parents} & set(map(Path, CODE))


@pytest.fixture
def study(tmp_path, monkeypatch) -> Study:
    """A study of another config in an empty checkout."""
    monkeypatch.chdir(tmp_path)
    for name in ("dvc.yaml", "config.yaml", ".gitignore"):
        (tmp_path / name).write_text((ROOT / name).read_text())
    study = Study("mine", Path("config/mine.yaml"), Path("studies/mine"))
    (study.root / "results").mkdir(parents=True)
    subprocess.run(["git", "init", "--quiet"], check=True)
    Repo.init().close()
    return study


def write_ledger(study: Study, config: dict, made: list[Path]) -> dict:
    (study.root / "results/config.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
    text = ledger_of(study, [study.root / path for path in made])
    study.ledger.write_text(text)
    Path("dvc.yaml").unlink()  # its own matrix is not what is asked for
    return yaml.safe_load(text)


def outputs() -> set[Path]:
    """As DVC reads the ledger."""
    with Repo() as repo:
        return {Path(out.fs_path).relative_to(Path.cwd() / "studies/mine") for out in repo.index.outs}


def holds(outs: set[Path], made: list[Path]) -> bool:
    """Whether each output is made or holds what is, and all that is made is an output or in one."""
    return all({path, *path.parents} & outs for path in made) and outs <= {
        folder for path in made for folder in (path, *path.parents)
    }


def test_the_record_of_another_study_has_its_configuration(study, made):
    config = yaml.safe_load(Path("config.yaml").read_text())
    ledger = write_ledger(study, config, [*made])
    names = {"overlay": "config/mine.yaml", "settings": "results/config.yaml", "checkout": "../.."}
    assert ledger["vars"] == ["results/config.yaml", names]
    assert ledger["stages"]["config"]["deps"] == ["${checkout}/config.yaml", "${checkout}/${overlay}"]
    demo = yaml.safe_load((ROOT / "dvc.yaml").read_text())
    assert [*ledger["stages"]] == [*demo["stages"]] and ledger["plots"] == demo["plots"]
    assert holds(outputs(), [*made])


def test_the_record_follows_a_study_without_detection_and_with_one_model_a_task(study, made):
    config = yaml.safe_load(Path("config.yaml").read_text())
    kept = {"classification": "convnext_tiny", "segmentation": "segformer_b0"}
    config["models"] = {task: {name: config["models"][task][name]} for task, name in kept.items()}
    del config["training"]["detection"]
    mine = [
        path
        for path in made
        if not any(word in str(path) for word in DETECTION)
        and ("seed0" not in path.parts or kept[path.parts[2]] == path.parts[3])
    ]
    ledger = write_ledger(study, config, mine)
    assert [*ledger["stages"]] == ["config", "data", "splits", "classification", "segmentation", "report"]
    paths = yaml.safe_dump([[stage["outs"], stage.get("deps")] for stage in ledger["stages"].values()])
    assert "table3" not in paths and "detection" not in paths
    assert "training.detection.image_size" not in yaml.safe_dump(ledger["stages"]["data"]["params"])
    assert ledger["plots"] == ["results/figures/fig3_paper.png", "results/figures/fig3_grouped.png"]
    assert holds(outputs(), mine)


def test_a_study_of_classifiers_alone_has_no_views(study, made):
    config = yaml.safe_load(Path("config.yaml").read_text())
    config["models"] = {"classification": config["models"]["classification"]}
    words = (*DETECTION, "segmentation", "table4", "table7", "fig7", "data/views")
    mine = [path for path in made if not any(word in str(path) for word in words)]
    ledger = write_ledger(study, config, mine)
    assert "data/views" not in ledger["stages"]["report"]["deps"]
    assert "segmentation" not in ledger["stages"]
    assert holds(outputs(), mine)


def test_the_record_has_the_protocols_of_the_study(study, made):
    config = yaml.safe_load(Path("config.yaml").read_text())
    config["protocols"] = dict.fromkeys(("fold0", "fold1"), config["protocols"]["grouped"])
    mine = {
        Path(str(path).replace("paper", "fold0").replace("grouped", "fold1"))
        for path in made
    }  # fmt: skip
    ledger = write_ledger(study, config, [*mine])
    deps = [path for path in ledger["stages"]["report"]["deps"] if path.startswith("results/")]
    assert deps == ["results/fold0", "results/fold1"]
    assert ledger["plots"][:2] == ["results/figures/fig3_fold0.png", "results/figures/fig3_fold1.png"]
    assert "/paper" not in yaml.safe_dump(ledger) and "grouped" not in yaml.safe_dump(ledger)
    assert holds(outputs(), [*mine])


def test_the_record_has_the_tables_of_folds(study, made):
    config = yaml.safe_load(Path("config.yaml").read_text())
    mine = [
        *made,
        *(Path(f"results/tables/crossval_classification.{kind}") for kind in ("csv", "md", "html")),
    ]
    ledger = write_ledger(study, config, mine)
    recorded = {"results/tables/crossval_classification.csv": {"persist": True, "cache": False}}
    assert recorded in ledger["stages"]["report"]["outs"]
    assert holds(outputs(), mine)


def test_the_record_has_external_tests_and_scores_of_all_folds_together(study, made):
    config = yaml.safe_load(Path("config.yaml").read_text())
    units = {path.parent for path in made if path.name == "predictions.csv"}
    kept = ("predictions.csv", "timing.json", "metrics.json", "resamples.npz", "scores.json")
    mine = [
        *made,
        *(unit / "external/clinic" / name for unit in units for name in kept),
        *map(Path, ["data/external/clinic/images.csv", "data/external/clinic/classification/split.csv"]),
        *(Path(f"results/tables/external_classification.{kind}") for kind in ("csv", "md", "html")),
        Path("results/pooled/grouped/classification/convnext_atto/seed0/metrics.json"),
    ]
    stages = write_ledger(study, config, mine)["stages"]
    unit = "results/${item.protocol}/classification/${item.model}/seed${item.seed}/external/clinic"
    outs = {path: how for entry in stages["classification"]["outs"] for path, how in entry.items()}
    assert "cache" not in outs[f"{unit}/predictions.csv"] and outs[f"{unit}/metrics.json"]["cache"] is False
    assert {"data/external": {"persist": True}} in stages["data"]["outs"]
    assert {"results/pooled": {"persist": True}} in stages["report"]["outs"]
    assert "data/external" in stages["classification"]["deps"] and "data/external" in stages["report"]["deps"]
    assert holds(outputs(), mine)


def test_a_study_under_another_root_is_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "config").mkdir()
    (tmp_path / "config/mine.yaml").write_text("root: elsewhere\n")
    with pytest.raises(BusflowError, match=r"config/mine\.yaml: .* root: studies/mine, not elsewhere"):
        find_study("mine")


@pytest.mark.parametrize(
    ("argument", "option"), [("SEED=3", "demo --seed 3"), ("ALL=1", "demo --all"), ("STUDY=mine", "mine")]
)
def test_make_audit_hands_on_what_it_is_told(argument, option):
    plan = ["make", "--dry-run", "--assume-old=.venv/.ready", "audit", argument]
    said = subprocess.run(plan, cwd=ROOT, capture_output=True, text=True, check=False).stdout
    assert f"scripts/verify.py --study {option}" in [" ".join(line.split()[1:]) for line in said.splitlines()]
