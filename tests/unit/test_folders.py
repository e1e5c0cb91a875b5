import json
import os
import subprocess
from pathlib import Path

import pytest

from busflow import files
from busflow.data.archives import unpack
from busflow.data.folders import check_apart, folder_state
from busflow.data.sources import fetch_source
from busflow.errors import BusflowError

TERMS = {"licence": "own", "citation": "us", "homepage": None, "max_bytes": 1000, "sha256": None}


@pytest.fixture
def hospital(tmp_path) -> Path:
    folder = tmp_path / "hospital"
    (folder / "a b").mkdir(parents=True)
    (folder / "a b" / "é.jpg").write_bytes(b"1" * 100)
    (folder / "cases.csv").write_text("file\n")
    return folder


def fetch(hospital: Path, **settings) -> dict:
    entry = {"archive": "hospital.sha256sums", "urls": [f"folder:{hospital}"], **TERMS, **settings}
    archives = hospital.parent / "archives"
    fetch_source("hospital", entry, archives, archives / "hospital.json")
    return json.loads((archives / "hospital.json").read_text())


def copied(hospital: Path) -> Path:
    archives = hospital.parent / "archives"
    unpack(archives / "hospital.sha256sums", archives / "hospital.json", hospital.parent / "raw")
    return hospital.parent / "raw"


def test_a_folder_is_listed_as_sha256sum_does_and_copied(hospital):
    (hospital / ".DS_Store").write_bytes(b"x")
    receipt = fetch(hospital)
    manifest = hospital.parent / "archives/hospital.sha256sums"
    subprocess.run(["sha256sum", "-c", "--strict", manifest], cwd=hospital, check=True)
    assert (receipt["sha256"], receipt["bytes"]) == (files.sha256(manifest), 105)
    raw = copied(hospital)
    assert (raw / "a b/é.jpg").read_bytes() == b"1" * 100
    assert sorted(path.name for path in raw.rglob("*")) == ["a b", "cases.csv", "é.jpg"]


def test_a_folder_that_may_only_be_read_is_enough(hospital):
    before = sorted(hospital.rglob("*"))
    (hospital / "a b").chmod(0o555)
    hospital.chmod(0o555)
    fetch(hospital)
    raw = copied(hospital)
    (raw / "new").touch()
    hospital.chmod(0o755)
    assert sorted(hospital.rglob("*")) == before


def test_the_same_folder_gives_the_same_receipt_and_a_changed_one_another(hospital):
    first, before = fetch(hospital), state(hospital)
    assert fetch(hospital) == first
    assert state(hospital) == before
    os.utime(hospital / "cases.csv", ns=(1, 1))
    assert state(hospital) != before
    assert fetch(hospital)["sha256"] == first["sha256"]
    (hospital / "cases.csv").write_text("fine\n")
    assert fetch(hospital)["sha256"] != first["sha256"]


def state(hospital: Path) -> str | None:
    return folder_state([f"folder:{hospital}"], hospital.parent / "archives/hospital.sha256sums")


def test_only_folders_have_a_state(tmp_path):
    assert folder_state(["https://example.org/a.zip"], tmp_path / "a.zip") is None
    assert folder_state(["folder:/no/such"], tmp_path / "a.sha256sums") == ""


def test_a_folder_that_is_out_of_reach_has_the_state_in_which_it_was_taken_in(hospital):
    fetch(hospital)
    first = state(hospital)
    hospital.rename(hospital.with_name("unplugged"))
    assert state(hospital) == first != ""
    hospital.with_name("unplugged").rename(hospital)
    (hospital / "cases.csv").write_text("another\n")
    assert state(hospital) != first
    fetch(hospital)
    second = state(hospital)
    hospital.rename(hospital.with_name("unplugged"))
    assert state(hospital) == second != first
    with pytest.raises(BusflowError, match=r"hospital is no folder; .* connect the disk it is on"):
        copied(hospital)


@pytest.mark.parametrize("root", ["hospital", "hospital/study", "link/study", "hospital/a b"])
def test_a_study_inside_the_folder_it_takes_in_is_refused(hospital, root):
    (hospital.parent / "link").symlink_to(hospital)
    with pytest.raises(
        BusflowError, match=r"sources\.x\.urls: the study itself writes to .*hospital.* another root"
    ):
        check_apart("sources.x.urls", hospital, hospital.parent / root)


@pytest.mark.parametrize("folder", [".", "data", "data/archives", "data/raw", "results", "/"])
def test_a_folder_that_the_study_writes_into_is_refused(tmp_path, monkeypatch, folder):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(BusflowError, match="which would change with every run"):
        check_apart("sources.x.urls", Path(folder), ".")


def test_a_folder_beside_the_study_or_of_its_own_under_data_is_taken(hospital):
    check_apart("sources.x.urls", hospital, hospital.parent)
    check_apart("sources.x.urls", hospital, hospital.parent / "hospital-study")
    check_apart("sources.x.urls", hospital.parent / "data/hospital", hospital.parent)


def test_a_folder_larger_than_may_be_is_refused_before_a_file_is_read(hospital, monkeypatch):
    monkeypatch.setattr(files, "sha256", lambda path: pytest.fail(f"{path} was read"))
    with pytest.raises(
        BusflowError, match="hospital holds 105 bytes, more than max_bytes = 104; name the folder"
    ):
        fetch(hospital, max_bytes=104)


@pytest.mark.parametrize("how", ["changed", "gone"])
def test_a_file_that_changes_before_it_is_copied_is_named(hospital, how):
    fetch(hospital)
    path = hospital / "cases.csv"
    path.write_text("other") if how == "changed" else path.unlink()
    with pytest.raises(BusflowError, match=r"cases\.csv has changed since hospital\.sha256sums was written"):
        copied(hospital)
    assert not (hospital.parent / "raw").exists()


def test_a_folder_that_is_not_the_pinned_one_is_refused(hospital):
    fetch(hospital, sha256=fetch(hospital)["sha256"])
    with pytest.raises(BusflowError, match="is not what it was: the sha256 of the list of its files"):
        fetch(hospital, sha256="0" * 64)


@pytest.mark.parametrize(
    ("bend", "said"),
    [
        (lambda f: (f / "link.jpg").symlink_to("/etc/hostname"), "'link.jpg' in .* leads out of the folder"),
        (lambda f: (f / "link.jpg").symlink_to("gone.jpg"), "'link.jpg' in .* is no file"),
        (lambda f: (f / "link").symlink_to(f / "a b"), "'link' in .* is no file"),
        (lambda f: os.mkfifo(f / "pipe.jpg"), "'pipe.jpg' in .* is no file"),
        (lambda f: (f / "a\nb.jpg").touch(), "has a name with a control character"),
        (lambda f: (f / "a\\b.jpg").touch(), "has a name with a control character or backslash"),
        (lambda f: (f / "large.jpg").write_bytes(bytes(1000)), "more than max_bytes = 1000"),
    ],
)
def test_what_cannot_be_copied_safely_is_named(hospital, bend, said):
    bend(hospital)
    with pytest.raises(BusflowError, match=said):
        fetch(hospital)


def test_a_link_inside_the_folder_is_copied_as_a_file(hospital):
    (hospital / "again.jpg").symlink_to(hospital / "a b/é.jpg")
    fetch(hospital)
    again = copied(hospital) / "again.jpg"
    assert again.read_bytes() == b"1" * 100 and not again.is_symlink()


def test_a_folder_that_is_missing_or_empty_or_one_of_several_is_said(hospital, tmp_path):
    with pytest.raises(BusflowError, match="nowhere is no folder; correct the url"):
        fetch(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(BusflowError, match="empty holds no file"):
        fetch(tmp_path / "empty")
    with pytest.raises(BusflowError, match="must be the only one of its source's urls"):
        fetch(hospital, urls=[f"folder:{hospital}", "https://example.org/a.zip"])


def test_files_beside_an_archive_are_fetched_hashed_and_copied_in(hospital, tmp_path):
    (tmp_path / "labels.xlsx").write_bytes(b"PK table")
    also = {"labels.xlsx": {"urls": [(tmp_path / "labels.xlsx").as_uri()], "sha256": None}}
    receipt = fetch(hospital, also=also)
    assert receipt["also"][0]["sha256"] == files.sha256(tmp_path / "labels.xlsx")
    assert (copied(hospital) / "labels.xlsx").read_bytes() == b"PK table"


def test_a_file_beside_that_the_archive_holds_already_is_an_error(hospital, tmp_path):
    also = {"cases.csv": {"urls": [(hospital / "cases.csv").as_uri()]}}
    fetch(hospital, also=also)
    with pytest.raises(BusflowError, match=r"holds cases\.csv already"):
        copied(hospital)
