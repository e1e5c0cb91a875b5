"""GPUs for one job each: fake devices, real processes."""

import contextlib
import importlib
import logging
import multiprocessing
import os
import runpy
import signal
import stat
import subprocess
import sys
import warnings
from collections.abc import Iterator
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import torch.distributed.run

from busflow.engine import gpu_lease, training
from busflow.engine.gpu_lease import lease
from busflow.errors import BusflowError

VISIBLE = "CUDA_VISIBLE_DEVICES"
PATIENCE = 60  # seconds, for what takes a few milliseconds unless it never happens
SCRIPTS = Path(__file__).parents[2] / "scripts"
forked = multiprocessing.get_context("fork")


@pytest.fixture(autouse=True)
def machine(tmp_path, monkeypatch):
    """A workstation with four GPUs, on which nothing runs."""
    for name in (VISIBLE, "SLURM_JOB_ID", "SLURMD_NODENAME", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(gpu_lease, "LOCKS", tmp_path / "locks")
    monkeypatch.setattr(gpu_lease, "POLL_SECONDS", 0.01)
    monkeypatch.setattr(
        torch.cuda, "device_count", lambda: len(os.environ.get(VISIBLE, "0,1,2,3").split(","))
    )
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    return tmp_path


def hold(gpus: int, visible: str | None, there: Connection) -> None:
    """A job that leases GPUs, tells which, and runs until it is told to end."""
    if visible is not None:
        os.environ[VISIBLE] = visible
    with lease(gpus):
        there.send(os.environ[VISIBLE])
        there.recv()


@contextlib.contextmanager
def job(gpus: int, visible: str | None = None) -> Iterator[tuple[str, BaseProcess]]:
    """A running job that has its GPUs: which, and its process."""
    here, there = forked.Pipe()
    process = forked.Process(target=hold, args=(gpus, visible, there), daemon=True)
    process.start()
    try:
        assert here.poll(PATIENCE), "the job still waits for its GPUs"
        yield here.recv(), process
    finally:
        here.send("end")
        process.join(PATIENCE)


@pytest.mark.parametrize(
    ("listed", "gpus", "given"),
    [
        (None, 1, "0"),
        (None, 4, "0,1,2,3"),
        ("3,1", 1, "3"),
        (" 2 , 0", 2, "2,0"),
        ("GPU-8932f937,GPU-2b7d", 2, "GPU-8932f937,GPU-2b7d"),
        ("MIG-GPU-8932/1/0", 1, "MIG-GPU-8932/1/0"),
    ],
)
def test_a_job_is_given_devices_as_they_are_listed(monkeypatch, listed, gpus, given):
    if listed is not None:
        monkeypatch.setenv(VISIBLE, listed)
    with lease(gpus):
        assert os.environ[VISIBLE] == given
    assert os.environ.get(VISIBLE) == listed


@pytest.mark.parametrize("listed", ["1,0,-1,2", "1,0,x,2", "1,0,,2"])
def test_the_list_ends_at_the_first_entry_that_is_no_device(monkeypatch, listed):
    monkeypatch.setenv(VISIBLE, listed)
    with lease(2):
        assert os.environ[VISIBLE] == "1,0"
    with (
        pytest.raises(BusflowError, match=r"asks for 3 GPUs, and there are 2 \(1,0\): lower compute.gpus"),
        lease(3),
    ):
        pass


@pytest.mark.parametrize("listed", ["", "-1", "none"])
def test_where_all_gpus_are_hidden_a_job_that_asks_for_one_is_refused(machine, monkeypatch, listed):
    monkeypatch.setenv(VISIBLE, listed)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(BusflowError, match=f"sees none; {VISIBLE} is '{listed}': "), lease(1):
        pass
    assert not (machine / "locks").exists()


@pytest.mark.parametrize(("cuda", "build"), [(None, "built without CUDA"), ("13.0", "built for CUDA 13.0")])
def test_a_job_that_asks_for_gpus_and_gets_none_does_not_train_on_the_cpu(machine, monkeypatch, cuda, build):
    def is_available() -> bool:
        if cuda:
            warnings.warn("CUDA initialization: The NVIDIA driver is too old\n(see there)", stacklevel=1)
        return False

    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    monkeypatch.setattr(torch.cuda, "is_available", is_available)
    monkeypatch.setattr(torch.version, "cuda", cuda)
    with (
        pytest.raises(BusflowError, match=r"a job asks for 2 GPUs, and torch .* sees none") as refused,
        lease(2),
    ):
        pass
    assert build in str(refused.value) and "set compute.gpus to 0" in str(refused.value)
    assert ("The NVIDIA driver is too old: see" in str(refused.value)) == (cuda is not None)
    assert not (machine / "locks").exists()


def test_a_job_of_no_gpus_sees_none(machine, caplog):
    caplog.set_level(logging.INFO)
    with lease(0):
        assert os.environ[VISIBLE] == ""
    assert VISIBLE not in os.environ
    assert caplog.messages[0].endswith(", GPUs none") and not (machine / "locks").exists()


def test_under_slurm_a_job_keeps_what_it_was_given(machine, monkeypatch, caplog):
    caplog.set_level(logging.INFO)
    for name, value in (("SLURM_JOB_ID", "17"), ("SLURMD_NODENAME", "node3"), (VISIBLE, "2,3")):
        monkeypatch.setenv(name, value)
    with lease(2):
        assert os.environ[VISIBLE] == "2,3"
    assert caplog.messages == ["on node3, GPUs 2,3"] and not (machine / "locks").exists()


def test_jobs_within_one_allocation_of_slurm_share_its_gpus_out_and_no_others(monkeypatch):
    monkeypatch.setenv("SLURM_JOB_ID", "17")
    with job(1, "0,1") as (first, _), job(1, "0,1") as (second, _):
        assert (first, second) == ("0", "1")
        monkeypatch.setenv("SLURM_JOB_ID", "18")  # counts its own GPUs from 0
        with job(1, "0,1") as (other, _):
            assert other == "0"


@pytest.mark.parametrize(("listed", "there"), [("0,1,2,3", r"4 \(0,1,2,3\)"), ("2,2,0,2", r"2 \(2,0\)")])
def test_more_gpus_than_there_are_is_an_error_that_names_both_numbers(monkeypatch, listed, there):
    monkeypatch.setenv(VISIBLE, listed)
    with pytest.raises(BusflowError, match=rf"asks for 5 GPUs, and there are {there}"), lease(5):
        pass


def test_a_count_that_has_started_cuda_is_an_error_and_leaves_no_lock(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)  # whatever the variable says by then
    with pytest.raises(BusflowError, match="libnvidia-ml is missing"), lease(1):
        pass
    assert VISIBLE not in os.environ
    with job(1, visible="0") as (devices, _):
        assert devices == "0"


def test_a_job_that_fails_leaves_its_devices_and_the_variable_as_they_were(monkeypatch):
    monkeypatch.setenv(VISIBLE, "1,2")
    with pytest.raises(RuntimeError, match="diverged"), lease(2):
        raise RuntimeError("diverged")
    assert os.environ[VISIBLE] == "1,2"
    with job(2) as (devices, _):
        assert devices == "1,2"


@pytest.mark.parametrize(
    ("first", "second", "left"),
    [
        (None, "0,2", "2"),
        ("0", None, "1"),
        ("3,1", "3,2", "2"),
        ("GPU-8932", "GPU-8932,GPU-2b7d", "GPU-2b7d"),
    ],
)
def test_jobs_that_list_devices_differently_mean_the_same_device(first, second, left):
    with job(1, first), job(1, second) as (devices, _):
        assert devices == left


def test_a_job_waits_says_so_once_and_holds_nothing_meanwhile(monkeypatch, caplog):
    caplog.set_level(logging.INFO)
    monkeypatch.setenv(VISIBLE, "0,1")
    others = contextlib.ExitStack()
    others.enter_context(job(1, "0"))
    polls = []

    def poll(seconds: float) -> None:
        polls.append(seconds)
        with job(1, "1"):  # would never be given a device that the waiting job holds
            pass
        if len(polls) == 3:
            others.close()

    monkeypatch.setattr(gpu_lease, "sleep", poll)
    with lease(2):
        assert os.environ[VISIBLE] == "0,1"
    assert len(polls) == 3
    waiting, start = (record.message for record in caplog.records if record.name == gpu_lease.__name__)
    assert waiting == "waits for 2 of the GPUs 0,1: other jobs hold them" and start.endswith(", GPUs 0,1")


def test_a_killed_job_frees_its_devices():
    with job(4) as (_, process):
        os.kill(process.pid, signal.SIGKILL)
        process.join(PATIENCE)
        with job(4) as (devices, _):
            assert devices == "0,1,2,3"


def lease_and_fork(there: Connection) -> None:
    """A job whose worker lives on when it is killed, as a loader's may for a while."""
    with lease(4):
        worker = os.fork()
        if worker:
            there.send(worker)
        signal.pause()


def test_a_worker_that_outlives_a_killed_job_holds_nothing():
    here, there = forked.Pipe()
    process = forked.Process(target=lease_and_fork, args=(there,), daemon=True)
    process.start()
    assert here.poll(PATIENCE)
    worker = here.recv()
    try:
        os.kill(process.pid, signal.SIGKILL)
        os.waitpid(process.pid, 0)  # join would wait for the worker too
        os.kill(worker, 0)  # it lives
        with job(4) as (devices, _):
            assert devices == "0,1,2,3"
    finally:
        os.kill(worker, signal.SIGKILL)


def work(folder, wanted: list[int], start, running, proceed) -> None:
    """Jobs one after the other; each marks its devices while it has them, and fails where a mark is."""
    start.wait(PATIENCE)
    for gpus in wanted:
        with lease(gpus):
            marks = [folder / f"in-use-{device}" for device in os.environ[VISIBLE].split(",")]
            for mark in marks:
                mark.touch(exist_ok=False)
            running.put(len(marks))
            assert proceed.acquire(timeout=PATIENCE)
            for mark in marks:
                mark.unlink()


@pytest.mark.parametrize(
    ("devices", "wanted"),
    [("0,1,2", [[1, 1]] * 8), ("0,1,2", [[2, 2, 2]] * 6), ("0,1,2", [[2, 1], [1, 3], [3, 2], [1, 2]])],
    ids=["one each", "two of three", "mixed"],
)
def test_many_jobs_at_once_all_finish_and_never_share_a_device(machine, monkeypatch, devices, wanted):
    monkeypatch.setenv(VISIBLE, devices)
    start, running, proceed = forked.Barrier(len(wanted)), forked.Queue(), forked.Semaphore(0)
    processes = [
        forked.Process(target=work, args=(machine, sizes, start, running, proceed), daemon=True)
        for sizes in wanted
    ]
    for process in processes:
        process.start()
    for _ in range(sum(map(len, wanted))):
        running.get(timeout=PATIENCE)
        proceed.release()
    for process in processes:
        process.join(PATIENCE)
    assert [process.exitcode for process in processes] == [0] * len(wanted)
    assert list(machine.glob("in-use-*")) == []


def test_as_many_jobs_run_together_as_there_are_devices():
    with job(1) as one, job(1) as two, job(2) as three:
        assert [devices for devices, _ in (one, two, three)] == ["0", "1", "2,3"]


def test_the_locks_are_for_all_users_whatever_the_umask(machine):
    mask = os.umask(0o077)
    try:
        with lease(1):
            pass
        assert os.umask(0o077) == 0o077
    finally:
        os.umask(mask)
    folder = machine / "locks"
    assert stat.S_IMODE(folder.stat().st_mode) == 0o1777
    assert {stat.S_IMODE(lock.stat().st_mode) for lock in folder.iterdir()} == {0o666}


FILES = [f"--{name}={name}" for name in ("images", "packed-images", "packed-index", "split", "output")]
TRAIN = ["train.py", "--seed=0", "--origin={}", "--state=runs", "--workers=0", "--checkpoint-interval=300"]
PREDICT = ["predict.py", "--weights=weights.pth"]


def run_script(monkeypatch, arguments: list[str], gpus: int) -> None:
    options = ["--task=classification", "--settings={}", "--threads=1", f"--gpus={gpus}", *FILES]
    monkeypatch.setattr(sys, "argv", [*arguments, *options])
    runpy.run_path(str(SCRIPTS / arguments[0]), run_name="__main__")


@pytest.mark.parametrize("arguments", [TRAIN, PREDICT], ids=["train", "predict"])
def test_a_script_has_its_device_before_it_loads_what_looks_for_it(monkeypatch, arguments):
    # mmengine looks while it loads, and CUDA reads the variable only once.
    seen = []

    def load(name: str) -> SimpleNamespace:
        seen.append((name, os.environ[VISIBLE]))
        return SimpleNamespace(predict=lambda *arguments: seen.append(os.environ[VISIBLE]))

    monkeypatch.setattr(importlib, "import_module", load)
    monkeypatch.setattr(training, "train", lambda *arguments: seen.append(os.environ[VISIBLE]))
    run_script(monkeypatch, arguments, gpus=1)
    assert seen == [("busflow.engine.classification", "0"), "0"]


def test_a_training_with_several_gpus_starts_a_process_for_each_of_its_own(monkeypatch):
    started = []
    monkeypatch.setattr(
        torch.distributed.run, "main", lambda arguments: started.append((os.environ[VISIBLE], arguments))
    )
    run_script(monkeypatch, TRAIN, gpus=2)
    ((devices, arguments),) = started
    assert devices == "0,1" and arguments[:2] == ["--standalone", "--nproc-per-node=2"]


@pytest.mark.slow
def test_importing_the_lease_asks_cuda_for_nothing():
    program = (
        "import sys, torch\n"
        "torch.cuda.is_available = torch.cuda.device_count = lambda: sys.exit('CUDA was asked')\n"
        "import busflow.engine.gpu_lease"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
