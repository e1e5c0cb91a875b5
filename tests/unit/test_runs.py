"""What a run leaves on disk, damage to it, and being asked to stop."""

import functools
import io
import json
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys

import pandas as pd
import pytest
import torch
import trainings
from test_training import SETTINGS, inputs  # noqa: F401  (a fixture)
from trainings import assert_same, power_cut, train

from busflow.cli import run
from busflow.engine import classification, hooks, runs
from busflow.engine.checkpoints import load_weights
from busflow.engine.hooks import RandomnessHook
from busflow.errors import BusflowError, InterruptedRunError
from busflow.files import sha256


def save(folder, step: int, content: str) -> None:
    runs.save_state(folder, step, {"content": content})


def newest(folder) -> str | None:
    path = runs.newest_state(folder)
    return None if path is None else torch.load(path)["content"]


def names(folder) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_the_newest_two_states_are_kept(tmp_path):
    for step in (9, 10, 100):
        save(tmp_path, step, str(step))
    assert [name[:15] for name in names(tmp_path)] == ["state-000000010", "state-000000100"]
    assert newest(tmp_path) == "100"


def test_a_folder_without_states_has_no_newest(tmp_path):
    assert runs.newest_state(tmp_path) is None and runs.newest_state(tmp_path / "none") is None


@pytest.mark.parametrize("length", range(0, 4096, 512))
def test_a_truncated_state_gives_way_to_the_one_before(tmp_path, length, caplog):
    save(tmp_path, 1, "old")
    save(tmp_path, 2, "new" * 1000)
    os.truncate(runs.newest_state(tmp_path), length)
    assert newest(tmp_path) == "old"
    assert "state-000000002" in caplog.text and "is damaged" in caplog.text


def test_every_flipped_bit_is_found(tmp_path):
    save(tmp_path, 1, "whole")
    path = runs.newest_state(tmp_path)
    content = path.read_bytes()
    for position in range(len(content)):
        spoilt = bytearray(content)
        spoilt[position] ^= 1 << position % 8
        path.write_bytes(spoilt)
        assert runs.newest_state(tmp_path) is None


def test_what_a_killed_process_was_writing_is_removed(tmp_path):
    save(tmp_path, 1, "whole")
    (tmp_path / ".state.pth.abc.pth").write_bytes(b"hal")
    assert newest(tmp_path) == "whole"
    assert len(names(tmp_path)) == 1


def test_a_state_that_cannot_be_written_leaves_those_before(tmp_path):
    save(tmp_path, 1, "whole")
    with pytest.raises(AttributeError, match="pickle"):
        save(tmp_path, 2, lambda: None)
    assert len(names(tmp_path)) == 1 and newest(tmp_path) == "whole"


def test_a_second_process_on_a_unit_is_refused(tmp_path):
    program = (
        "from pathlib import Path\nfrom busflow.engine.runs import one_writer\n"
        "with one_writer(Path(input())):\n    print('mine', flush=True)\n    input()\n"
    )
    other = subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    other.stdin.write(f"{tmp_path}\n")
    other.stdin.flush()
    assert other.stdout.readline() == "mine\n"
    with (
        pytest.raises(BusflowError, match=f"another process is training {tmp_path}; wait"),
        runs.one_writer(tmp_path),
    ):
        pass
    other.kill()  # as a crash does
    other.communicate()
    with runs.one_writer(tmp_path):
        pass


# ruff: noqa: F811  (the fixture is named as the imported function is)
def test_a_finished_run_is_published_again_without_training(inputs, tmp_path, monkeypatch):
    again = functools.partial(train, classification, inputs, SETTINGS | {"epochs": 1}, tmp_path, "out")
    again()
    published = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    shutil.rmtree(tmp_path / "out")
    monkeypatch.setattr(classification.Classifier, "train_step", None)
    again()
    assert {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()} == published


def test_publishing_again_removes_what_a_kill_left_of_the_states(inputs, tmp_path):
    again = functools.partial(train, classification, inputs, SETTINGS | {"epochs": 1}, tmp_path, "out")
    again()
    (folder,) = (path for path in (tmp_path / "state/out").iterdir() if path.is_dir())
    save(folder, 2, "outdated")
    again()
    assert names(folder) == ["history.csv", "published.json", "run.json", "weights.pth"]


def test_a_run_whose_removal_was_cut_short_is_not_finished(tmp_path, monkeypatch):
    (tmp_path / "published.json").write_text("{}")
    with monkeypatch.context() as patch, pytest.raises(InterruptedError):
        patch.setattr(shutil, "rmtree", lambda folder: (_ for _ in ()).throw(InterruptedError))
        runs.is_finished(tmp_path)
    assert not runs.is_finished(tmp_path)


def test_damaged_weights_of_a_finished_run_are_trained_again(inputs, tmp_path):
    again = functools.partial(train, classification, inputs, SETTINGS | {"epochs": 1}, tmp_path, "out")
    again()
    weights = tmp_path / "out/weights.pth"
    whole = weights.read_bytes()
    with weights.open("r+b") as file:  # in place: the run's own file is the same one
        file.seek(1000)
        file.write(b"spoilt")
    again()
    assert weights.read_bytes() == whole


@pytest.mark.parametrize("name", ["weights.pth", "history.csv", "run.json", "published.json"])
@pytest.mark.parametrize("damage", ["edited", "cut", "emptied", "lost"])
def test_a_finished_run_with_a_damaged_file_is_finished_no_more(tmp_path, caplog, name, damage):
    folder = tmp_path / "run"
    runs.finish(folder, {"weight": torch.ones(9)}, {"epoch": 1}, pd.DataFrame({"epoch": [1]}), {"seconds": 1})
    assert runs.is_finished(folder)
    content = (folder / name).read_bytes()
    (folder / name).unlink()
    changed = {"edited": content.replace(b"1", b"2"), "cut": content[: len(content) // 2], "emptied": b""}
    if damage != "lost":
        (folder / name).write_bytes(changed[damage])
    assert not runs.is_finished(folder)
    if (name, damage) != ("published.json", "lost"):  # that is an unfinished run
        assert "is damaged; training again" in caplog.text and not folder.exists()


def test_a_finished_run_whose_history_was_edited_is_trained_again(inputs, tmp_path):
    again = functools.partial(train, classification, inputs, SETTINGS | {"epochs": 1}, tmp_path, "out")
    again()
    published = (tmp_path / "out/history.csv").read_text()
    (history,) = (tmp_path / "state/out").glob("*/history.csv")
    history.write_text(published.replace("0.", "0.9"))
    again()
    names = [column for column in published.splitlines()[0].split(",") if column != "seconds"]
    before, after = (
        pd.read_csv(text)[names] for text in (io.StringIO(published), tmp_path / "out/history.csv")
    )
    assert before.equals(after)


class Forged:
    """Pickled, it is a call that leaves a folder."""

    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return os.mkdir, (str(self.marker),)


@pytest.mark.parametrize("forged", ["code", "other"])
def test_a_state_that_no_training_wrote_is_refused_and_runs_no_code(inputs, tmp_path, monkeypatch, forged):
    call = functools.partial(train, classification, inputs, SETTINGS, tmp_path, "out", interval=0)
    power_cut(monkeypatch, 4, call)
    (folder,) = (path for path in (tmp_path / "state/out").iterdir() if path.is_dir())
    state = torch.load(runs.newest_state(folder), weights_only=True)
    forgery = {"code": state | {"history": Forged(tmp_path / "marker")}, "other": {"content": "other"}}
    runs.save_state(folder, 5, forgery[forged])
    message = {"code": "it calls for posix.mkdir", "other": "is no state of a training here"}[forged]
    with pytest.raises(BusflowError, match=f"{folder}/state-000000005-.*{message}"):
        call()
    assert not (tmp_path / "marker").exists()


def test_finishing_removes_finished_runs_of_other_settings_but_no_unfinished_one(
    inputs, tmp_path, monkeypatch
):
    one_epoch = SETTINGS | {"epochs": 1}
    train(classification, inputs, one_epoch, tmp_path, "out")
    other = functools.partial(
        train, classification, inputs, SETTINGS | {"epochs": 2}, tmp_path, "out", interval=0
    )
    power_cut(monkeypatch, 9, other)
    train(classification, inputs, one_epoch | {"learning_rate": 1e-4}, tmp_path, "out")
    kept = [path for path in (tmp_path / "state/out").iterdir() if path.is_dir()]
    assert len(kept) == 2 and sum((path / "published.json").exists() for path in kept) == 1


def test_other_words_of_the_study_reach_the_weights_without_training(inputs, tmp_path, monkeypatch):
    one_epoch = SETTINGS | {"epochs": 1}
    train(classification, inputs, one_epoch, tmp_path, "out")
    before = load_weights(tmp_path / "out/weights.pth")
    monkeypatch.setattr(trainings, "ORIGIN", trainings.ORIGIN | {"notice": "Not for sale"})
    monkeypatch.setattr(classification.Classifier, "train_step", None)
    train(classification, inputs, one_epoch, tmp_path, "out")
    after = load_weights(tmp_path / "out/weights.pth")
    assert after["meta"] == before["meta"] | {"origin": before["meta"]["origin"] | {"notice": "Not for sale"}}
    assert all(torch.equal(each, after["state_dict"][name]) for name, each in before["state_dict"].items())
    record = json.loads((tmp_path / "out/run.json").read_text())
    assert record["weights_sha256"] == sha256(tmp_path / "out/weights.pth")


def test_a_state_of_another_run_is_refused(inputs, tmp_path, monkeypatch):
    for output, rate in (("one", 1e-3), ("other", 1e-4)):
        call = functools.partial(
            train, classification, inputs, SETTINGS | {"learning_rate": rate}, tmp_path, output, interval=0
        )
        power_cut(monkeypatch, 4, call)
    (foreign,) = (tmp_path / "state/one").glob("*/state-000000004-*")
    (folder,) = (path for path in (tmp_path / "state/other").iterdir() if path.is_dir())
    for state in folder.glob("state-*"):
        state.unlink()
    shutil.copy(foreign, folder)
    with pytest.raises(BusflowError, match=f"{folder} holds a state of another run"):
        call()


def stop_at(monkeypatch, hook_method: str, step: int, number: signal.Signals) -> None:
    def stop(hook, runner, *arguments, **named):
        if runner.iter == step:
            os.kill(os.getpid(), number)

    monkeypatch.setattr(RandomnessHook, hook_method, stop)


# Two training batches make a step of the optimiser; eight batches make an epoch.
@pytest.mark.parametrize(
    ("hook_method", "step", "saved", "number"),
    [
        ("after_train_iter", 2, 4, signal.SIGTERM),
        ("after_train_iter", 11, 12, signal.SIGINT),
        ("after_val_iter", 16, 16, signal.SIGTERM),
        ("after_val_iter", 24, 24, signal.SIGTERM),
    ],
)
def test_a_training_that_is_asked_to_stop_saves_its_state_and_goes_on_later(
    inputs, tmp_path, monkeypatch, hook_method, step, saved, number
):
    train(classification, inputs, SETTINGS, tmp_path, "whole")
    call = functools.partial(train, classification, inputs, SETTINGS, tmp_path, "cut")
    with monkeypatch.context() as patch:
        stop_at(patch, hook_method, step, number)
        with pytest.raises(
            InterruptedRunError, match=rf"\({number.name}\); saved .* {saved} training batches"
        ):
            call()
    (folder,) = (path for path in (tmp_path / "state/cut").iterdir() if path.is_dir())
    progress = json.loads((folder / "progress.json").read_text())
    assert progress["state"] == "interrupted" and progress["steps"] == 24
    call()
    assert_same(tmp_path / "whole", tmp_path / "cut")


def test_a_signal_to_all_processes_of_a_training_lets_it_save_its_state(inputs, tmp_path, monkeypatch):
    train(classification, inputs, SETTINGS, tmp_path, "whole")
    call = functools.partial(train, classification, inputs, SETTINGS, tmp_path, "cut", workers=2)
    others = {*multiprocessing.active_children()}  # of tests before this one, not yet gone

    def stop(hook, runner, *arguments, **named):
        if runner.iter == 11:
            loaders = [str(process.pid) for process in {*multiprocessing.active_children()} - others]
            assert len(loaders) == 2
            subprocess.run(["kill", "-TERM", *loaders, str(os.getpid())], check=True)

    with monkeypatch.context() as patch:
        patch.setattr(RandomnessHook, "after_train_iter", stop)
        with pytest.raises(InterruptedRunError, match="after 12 training batches"):
            call()
    call()
    assert_same(tmp_path / "whole", tmp_path / "cut")
    assert not {*multiprocessing.active_children()} - others


def test_an_interruption_is_told_to_the_scheduler_by_the_exit_status(capsys):
    def main():
        raise InterruptedRunError("asked to stop")

    with pytest.raises(SystemExit) as exit_info:
        run(main)
    assert exit_info.value.code == os.EX_TEMPFAIL and "asked to stop" in capsys.readouterr().err


def test_signals_mean_what_they_did_before_once_the_training_is_over(inputs, tmp_path):
    before = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]
    train(classification, inputs, SETTINGS | {"epochs": 1}, tmp_path, "out")
    assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)] == before


@pytest.mark.parametrize("check_every", [1, hooks.CHECK_EVERY])
def test_a_loss_that_is_no_number_names_the_images_of_its_batch(inputs, tmp_path, monkeypatch, check_every):
    seen = []
    step = classification.Classifier.train_step

    def spoilt(self, data, optim_wrapper):
        losses = step(self, data, optim_wrapper)
        seen.append(data["samples"].tolist())
        return losses | ({"loss": torch.tensor(float("nan"))} if len(seen) == 3 else {})

    monkeypatch.setattr(hooks, "CHECK_EVERY", check_every)
    monkeypatch.setattr(classification.Classifier, "train_step", spoilt)
    with pytest.raises(BusflowError) as error:
        train(classification, inputs, SETTINGS, tmp_path, "out", interval=0)
    batch = ", ".join(f"busi/{sample:02d}" for sample in seen[2])
    assert f"the loss is nan in epoch 1, in the batch of {batch};" in str(error.value)
    assert not (tmp_path / "out").exists()
    assert not list((tmp_path / "state").rglob("state-000000004-*"))  # none that the loss has spoilt
