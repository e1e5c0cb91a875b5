"""The table of runs: every state, files that vanish or break meanwhile, and studies that are not there."""

import errno
import glob
import json
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import yaml

from busflow.errors import BusflowError
from busflow.files import write_json, write_text
from busflow.status import Run, Status, Unit, as_text, read_status

ROOT = Path(__file__).parents[2]
NOW = datetime(2026, 1, 1, 12, 0, tzinfo=UTC)
UNIT = Unit("paper", "classification", "convnext_tiny", 0)
HISTORY = "epoch,val_loss,val_macro_f1\n1,0.9,0.5\n2,0.8,0.75\n3,0.7,0.625\n"
FILES = {
    "weights.pth": "",
    "history.csv": HISTORY,
    "run.json": '{"seconds": 3725.4, "device": "Test CPU"}',
    "predictions.csv": "",
    "timing.json": "{}",
    "metrics.json": "{}",
}


def folder(root: Path, area: str, unit: Unit = UNIT) -> Path:
    return root / area / unit.protocol / unit.task / unit.model / f"seed{unit.seed}"


def train(root: Path, unit: Unit = UNIT, identity: str = "a1b2", ago: float = 5, **changes) -> Path:
    """A progress file, written ``ago`` seconds before NOW."""
    news = {
        **{"state": "training", "epoch": 3, "epochs": 20, "step": 410, "steps": 2560},
        **{"images_per_second": 35.2, "seconds_per_step": 0.21, "metric": "macro_f1", "best": 0.61},
        **{"device": "NVIDIA H100 80GB HBM3", "host": "node1", "pid": 1234, "job": None},
        "updated": (NOW - timedelta(seconds=ago)).isoformat(),
    }
    path = folder(root, "runs", unit) / identity / "progress.json"
    write_json(path, news | changes)
    return path


def publish(root: Path, *names: str, unit: Unit = UNIT) -> None:
    for name in names:
        write_text(folder(root, "results", unit) / name, FILES.get(name, ""))


def plan(root: Path, *models: str, **changes) -> None:
    """The recorded config of a study of classifiers under one protocol."""
    names = {"classification": {model: {} for model in models}, "detection": {}, "segmentation": {}}
    config = {"protocols": {"paper": {"label": "Paper"}}, "models": names, "seeds": [0]} | changes
    write_text(root / "results/config.yaml", yaml.safe_dump(config, sort_keys=False))


def look(root: Path, unit: Unit = UNIT) -> Run:
    return read_status(root, NOW).runs[unit]


@pytest.mark.parametrize(
    ("names", "state"),
    [
        (["weights.pth", "history.csv", "run.json"], "trained"),
        (["weights.pth", "history.csv", "run.json", "predictions.csv"], "trained"),  # not timed yet
        (["weights.pth", "history.csv", "run.json", "predictions.csv", "timing.json"], "predicted"),
        (["weights.pth", "history.csv", "run.json", "predictions.json", "timing.json"], "predicted"),
        (list(FILES), "evaluated"),
    ],
)
def test_a_finished_training_shows_its_history_and_record(tmp_path, names, state):
    publish(tmp_path, *names)
    assert look(tmp_path) == Run(state, epoch=3, epochs=3, best=0.75, seconds_taken=3725.4, device="Test CPU")


def test_a_planned_run_waits(tmp_path):
    plan(tmp_path, "convnext_tiny")
    assert read_status(tmp_path, NOW) == Status({UNIT: Run("waiting")}, [])


def test_predictions_alone_still_count(tmp_path):
    publish(tmp_path, "predictions.csv", "timing.json", "metrics.json")
    assert look(tmp_path) == Run("evaluated")


def test_a_training_shows_speed_and_the_time_that_its_steps_will_take(tmp_path):
    train(tmp_path)
    assert look(tmp_path) == Run(
        "training",
        epoch=3,
        epochs=20,
        best=0.61,
        images_per_second=35.2,
        seconds_left=pytest.approx((2560 - 410) * 0.21),
        device="NVIDIA H100 80GB HBM3",
        job_or_host="node1",
    )


def test_a_training_that_has_just_begun_has_neither_score_nor_speed(tmp_path):
    nothing = dict.fromkeys(("best", "images_per_second", "seconds_per_step"))
    train(tmp_path, epoch=0, step=0, job="4711", **nothing)
    assert look(tmp_path) == Run(
        "training", epoch=0, epochs=20, device="NVIDIA H100 80GB HBM3", job_or_host="4711"
    )
    row = as_text(read_status(tmp_path, NOW)).splitlines()[1]
    assert row.split() == ["convnext_tiny", "0", "training", "0/20", "NVIDIA", "H100", "80GB", "HBM3", "4711"]


@pytest.mark.parametrize(("ago", "state"), [(120, "training"), (121, "silent"), (-300, "training")])
def test_a_training_is_silent_after_two_minutes(tmp_path, ago, state):
    train(tmp_path, ago=ago)
    assert look(tmp_path).state == state


def test_a_silent_training_says_since_when_and_why_that_may_be(tmp_path):
    train(tmp_path, ago=12 * 60)
    assert look(tmp_path)[4:7] == (None, None, 720)  # neither speed nor time left
    text = as_text(read_status(tmp_path, NOW))
    assert "0:12:00 ago" in text
    assert "silent: no word for 2 minutes; the training was killed, or one step or a validation takes" in text


def test_an_interrupted_training_stays_so_however_old(tmp_path):
    train(tmp_path, state="interrupted", ago=90_061)
    run = look(tmp_path)
    assert (run.state, run.epoch, run.best) == ("interrupted", 3, 0.61)
    assert (run.images_per_second, run.seconds_left, run.seconds_quiet) == (None, None, 90_061)
    assert "25:01:01 ago" in as_text(read_status(tmp_path, NOW))


def test_the_latest_of_several_identities_counts(tmp_path):
    train(tmp_path, identity="aaaa", ago=3000, state="interrupted", epoch=7)
    train(tmp_path, identity="bbbb", ago=3, epoch=1)
    train(tmp_path, identity="cccc", ago=60, epoch=9)
    assert look(tmp_path)[:2] == ("training", 1)


def test_time_zones_do_not_make_an_older_progress_the_latest(tmp_path):
    train(tmp_path, identity="aaaa", updated="2026-01-01T13:59:00+02:00", epoch=1)
    train(tmp_path, identity="bbbb", updated="2026-01-01T11:59:30+00:00", epoch=2)
    assert look(tmp_path)[:2] == ("training", 2)


def test_results_count_before_what_an_earlier_training_left(tmp_path):
    train(tmp_path, state="interrupted", ago=9000)
    publish(tmp_path, "weights.pth", "history.csv", "run.json")
    assert look(tmp_path).state == "trained"


def test_a_repeated_training_counts_before_the_results_of_the_last(tmp_path):
    publish(tmp_path, "predictions.csv", "timing.json", "metrics.json")  # Snakemake has removed the weights
    train(tmp_path)
    assert look(tmp_path).state == "training"


def test_half_published_is_not_trained_yet(tmp_path):
    train(tmp_path)
    publish(tmp_path, "weights.pth", "history.csv")
    assert look(tmp_path).state == "training"


def test_a_training_that_finishes_between_listing_and_reading_is_trained(tmp_path, monkeypatch):
    progress = train(tmp_path)
    plan(tmp_path, "convnext_tiny")

    def list_then_finish(pattern, root_dir):
        found = list_files(pattern, root_dir=root_dir)
        if progress.exists():
            publish(tmp_path, "weights.pth", "history.csv", "run.json")
            progress.unlink()
        return found

    list_files = glob.glob
    monkeypatch.setattr(glob, "glob", list_then_finish)
    seen = read_status(tmp_path, NOW)
    assert seen.runs[UNIT].state == "trained" and seen.notes == []


def test_results_that_vanish_between_listing_and_reading_leave_gaps(tmp_path, monkeypatch):
    publish(tmp_path, *FILES)
    plan(tmp_path, "convnext_tiny")

    def list_then_remove(folder):
        found = list(list_files(folder))
        for name in ("history.csv", "run.json"):
            (folder / name).unlink()
        return iter(found)

    list_files = Path.iterdir
    monkeypatch.setattr(Path, "iterdir", list_then_remove)
    assert read_status(tmp_path, NOW) == Status({UNIT: Run("evaluated")}, [])


def test_a_file_that_is_replaced_while_it_is_read_is_read_again(tmp_path, monkeypatch):
    train(tmp_path)
    plan(tmp_path, "convnext_tiny")
    stale = [OSError(errno.ESTALE, "Stale file handle")]

    def read_stale(path, **options):
        if path.name == "progress.json" and stale:
            raise stale.pop()
        return read_text(path, **options)

    read_text = Path.read_text
    monkeypatch.setattr(Path, "read_text", read_stale)
    seen = read_status(tmp_path, NOW)
    assert not stale and seen.runs[UNIT].state == "training" and seen.notes == []


BROKEN = {
    "empty": "",
    "truncated": '{"state": "training", "epoch": 3, "epo',
    "no object": "[]",
    "no step": '{"state": "training", "updated": "2026-01-01T12:00:00+00:00", "seconds_per_step": null}',
    "another state": '{"state": "resting"}',
}


@pytest.mark.parametrize("text", BROKEN.values(), ids=BROKEN)
def test_broken_progress_is_shown_as_unreadable_with_its_path(tmp_path, text):
    path = train(tmp_path)
    path.write_text(text)
    plan(tmp_path, "convnext_tiny")
    seen = read_status(tmp_path, NOW)
    assert seen.runs == {UNIT: Run("unreadable")}
    assert len(seen.notes) == 1 and seen.notes[0].startswith(f"{path} is unreadable (")
    assert as_text(seen).endswith("1 runs: 1 unreadable")


def test_a_broken_progress_does_not_hide_a_whole_one(tmp_path):
    broken = train(tmp_path, identity="aaaa")
    broken.write_text("{")
    train(tmp_path, identity="bbbb", ago=10_000)
    seen = read_status(tmp_path, NOW)
    assert seen.runs[UNIT].state == "silent" and str(broken) in as_text(seen)


@pytest.mark.parametrize(
    ("name", "text", "shown"),
    [
        ("run.json", '{"seconds": 3', Run("evaluated", epoch=3, epochs=3, best=0.75)),
        ("history.csv", "epoch,val_m", Run("evaluated", seconds_taken=3725.4, device="Test CPU")),
        ("history.csv", "epoch\n1\n", Run("evaluated", seconds_taken=3725.4, device="Test CPU")),
    ],
)
def test_a_broken_result_is_named_and_the_rest_is_shown(tmp_path, name, text, shown):
    publish(tmp_path, *FILES)
    path = folder(tmp_path, "results") / name
    path.write_text(text)
    seen = read_status(tmp_path, NOW)
    assert seen.runs == {UNIT: shown}
    assert f"{path} is unreadable" in as_text(seen)


@pytest.mark.parametrize("text", ["", "protocols:\n  paper: {label", "protocols:\n  paper: {}\nmodels:\n"])
def test_a_config_that_is_half_there_is_named_and_what_is_on_disk_is_shown(tmp_path, text):
    train(tmp_path)
    plan(tmp_path, "convnext_tiny", "convnext_small")
    (tmp_path / "results/config.yaml").write_text(text)
    seen = read_status(tmp_path, NOW)
    assert list(seen.runs) == [UNIT]
    assert seen.notes[0].startswith(f"{tmp_path / 'results/config.yaml'} is unreadable (")


def test_without_a_config_the_runs_on_disk_are_listed_and_a_line_says_so(tmp_path):
    units = [Unit("grouped", "detection", "detr_r50", seed) for seed in (2, 10)]
    train(tmp_path, units[1])
    publish(tmp_path, "weights.pth", unit=units[0])
    publish(tmp_path, "table1.csv", unit=Unit("tables", "of", "all", 0))  # no task
    seen = read_status(tmp_path, NOW)
    assert list(seen.runs) == units
    assert seen.notes == [
        "Without results/config.yaml, the list of the study's runs, only those on disk are shown."
    ]


def test_runs_stand_in_the_order_of_the_config_without_what_it_takes_out(tmp_path):
    models = {
        "classification": {"b": {}, "a": {}, "gone": None},
        "detection": {"d": {}},
        "segmentation": {},
    }
    plan(tmp_path, protocols={"paper": {}, "grouped": {}}, models=models, seeds=[0, 1])
    extra = Unit("paper", "classification", "former", 0)
    train(tmp_path, extra)
    seen = read_status(tmp_path, NOW)
    paper = ["paper b 0", "paper b 1", "paper a 0", "paper a 1", "paper former 0", "paper d 0", "paper d 1"]
    grouped = ["grouped b 0", "grouped b 1", "grouped a 0", "grouped a 1", "grouped d 0", "grouped d 1"]
    assert [f"{unit.protocol} {unit.model} {unit.seed}" for unit in seen.runs] == paper + grouped
    assert seen.notes == ["Not in results/config.yaml, but found on disk: 1 of these runs."]


def test_the_demonstration_fits_120_columns_and_counts_its_states(tmp_path):
    config = yaml.safe_load((ROOT / "config.yaml").read_text())
    write_text(tmp_path / "results/config.yaml", yaml.safe_dump(config, sort_keys=False))
    units = list(read_status(tmp_path, NOW).runs)
    assert len(units) == 44
    for k, unit in enumerate(units):
        changes = {"device": "NVIDIA RTX 6000 Ada Generation", "job": "12345678", "epochs": 150, "epoch": 149}
        if k % 2:
            changes |= {
                "host": "gpu-node-0815.cluster.example.org",
                "job": None,
                "images_per_second": 12345.6,
            }
        train(tmp_path, unit, ago=7000 if k % 3 == 0 else 5, steps=10**6, **changes)
    publish(tmp_path, *FILES)
    lines = as_text(read_status(tmp_path, NOW)).splitlines()
    assert max(map(len, lines)) <= 120
    assert lines[-1] == "44 runs: 28 training, 15 silent, 1 evaluated"
    assert lines[1].endswith("NVIDIA RTX 6000 Ada …  12345678")
    assert lines[2].endswith("NVIDIA RTX 6000 Ada …  gpu-node-…")
    assert [line.split()[5] for line in lines if line and " seed " in line] == ["img/s"] * 6


def test_looking_leaves_the_study_as_it_was(tmp_path):
    train(tmp_path)
    publish(tmp_path, *FILES, unit=UNIT._replace(seed=1))
    plan(tmp_path, "convnext_tiny", "convnext_small")

    def files():
        paths = sorted(tmp_path.rglob("*"))
        return [(path, path.stat().st_mtime_ns, path.is_file() and path.read_bytes()) for path in paths]

    before = files()
    read_status(tmp_path, NOW)
    assert files() == before


def test_where_no_study_is_one_error_says_so(tmp_path):
    with pytest.raises(BusflowError, match="nowhere is no folder; name that of a study with --root"):
        read_status(tmp_path / "nowhere", NOW)
    (tmp_path / "results").mkdir()
    with pytest.raises(BusflowError, match=r"holds no study, neither results/config.yaml nor any run"):
        read_status(tmp_path, NOW)


def command(*arguments: object) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, *map(str, arguments)],
        check=False,
        capture_output=True,
        text=True,
        env={"PYTHONPATH": str(ROOT)},
    )


def test_the_script_prints_the_table_and_the_error_is_one_line(tmp_path):
    plan(tmp_path, "convnext_tiny")
    shown = command(ROOT / "scripts/status.py", "--root", tmp_path)
    assert shown.returncode == 0 and shown.stdout.endswith("\n1 runs: 1 waiting\n")
    failed = command(ROOT / "scripts/status.py", "--root", tmp_path / "nowhere")
    assert failed.returncode == 1 and failed.stdout == ""
    assert failed.stderr.startswith("status.py: error: ") and failed.stderr.count("\n") == 1


def test_looking_loads_neither_torch_nor_pandas():
    loaded = command(
        "-c", "import busflow.cli, busflow.status, sys, json; print(json.dumps(list(sys.modules)))"
    )
    assert not {"torch", "pandas"} & set(json.loads(loaded.stdout))
