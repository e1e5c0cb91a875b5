"""What DVC records is what Snakemake makes."""

import re
from pathlib import Path

import pytest
from dvc.repo import Repo

from busflow.errors import BusflowError
from busflow.recording.record import ledger_of
from busflow.recording.study import Study, find_study
from studies import ROOT, dry_run


def test_every_file_of_a_study_is_on_record_once():
    planned = re.findall(r"^    output: (.*)$", dry_run("--forceall").stdout, re.MULTILINE)
    made = {Path(name) for names in planned for name in names.split(", ")}
    with Repo(str(ROOT)) as repo:
        recorded = {Path(out.fs_path).relative_to(ROOT) for out in repo.index.outs}
    assert len(made) > 300
    assert {path for path in made if not recorded & {path, *path.parents}} == set()
    covered = {path for file in made for path in (file, *file.parents)}
    assert recorded - covered == set()


def test_the_record_of_another_study_has_its_configuration_and_its_protocols(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "dvc.yaml").write_text((ROOT / "dvc.yaml").read_text())
    study = Study("mine", Path("config/mine.yaml"), Path("studies/mine"))
    (tmp_path / study.root / "results").mkdir(parents=True)
    (tmp_path / study.root / "results/config.yaml").write_text("protocols: {grouped: {}}\n")
    ledger = ledger_of(study)
    assert "settings: results/config.yaml" in ledger and "checkout: ../..\n" in ledger
    assert "- ${checkout}/${overlay}\n" in ledger
    assert "- results/grouped\n" in ledger and "results/paper" not in ledger and "_paper.png" not in ledger


def test_a_study_under_another_root_is_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "config").mkdir()
    (tmp_path / "config/mine.yaml").write_text("root: elsewhere\n")
    with pytest.raises(BusflowError, match=r"config/mine\.yaml: .* root: studies/mine, not elsewhere"):
        find_study("mine")
