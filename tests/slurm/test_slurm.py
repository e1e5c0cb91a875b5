"""A study on a real SLURM: where its jobs run, and faults of all kinds that leave no trace in its results."""

import hashlib
import os
import re
import shutil
import signal
import subprocess
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest
from snakemake.utils import update_config

from cluster import ACCOUNT, FEATURE, GPU_TYPE, GPUS, Cluster, Job, missing, wait_until
from studies import (
    CLASSIFIER,
    DETECTOR,
    SEGMENTER,
    copy_checkout,
    copy_study,
    small_study,
    snakemake_command,
    write_overlay,
)

if LACK := missing():
    pytest.skip(LACK, allow_module_level=True)
pytestmark = pytest.mark.slow

# Classifiers that are all the same, each named after what happens to its training.
FAULTS = ["overtime", "cancelled", "preempted", "crashed"]
EPOCHS = 10
TABLES = ["classification", "detection", "segmentation", "table5", "table7"]
UNITS = [f"classification/{name}" for name in FAULTS] + [f"detection/{DETECTOR}", f"segmentation/{SEGMENTER}"]
MINUTE = 60
PRETENCE = Path(__file__).with_name("sitecustomize.py")


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    cluster = Cluster(tmp_path_factory.mktemp("slurm"))
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.stop()


def launch(checkout: Path, *arguments: str | Path, env: dict | None = None) -> subprocess.Popen:
    """Start the study in a checkout; it writes to snakemake.log there."""
    tables = [f"results/tables/{name}.csv" for name in TABLES]
    command = snakemake_command(*tables, "--configfile", checkout / "overlay.yaml", *arguments)
    with (checkout / "snakemake.log").open("w") as log:
        return subprocess.Popen(
            command, cwd=checkout, env=env, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
        )


def write_study(checkout: Path, study: dict) -> None:
    """The overlay of a study with these classifiers in place of its own, and without protocol paper."""
    atto = {"label": "ConvNeXt-Atto", "timm": "convnext_atto", "batch_size": 8, "epochs": EPOCHS}
    changes = {
        "protocols": {"paper": None},
        "compute": {"gpus": 1, "checkpoint_interval": 0},
        "models": {"classification": {CLASSIFIER: None} | dict.fromkeys(FAULTS, atto)},
    }
    update_config(study, changes)
    write_overlay(checkout, study)
    shutil.copy(PRETENCE, checkout)  # which is where the jobs' Python looks first


def adapt_profile(profile: Path) -> None:
    """What config/README.md asks of a site."""
    settings = (profile / "profile.yaml").read_text()
    for key, value in {"account": ACCOUNT, "gpu_type": GPU_TYPE, "constraint": FEATURE}.items():
        assert f"  {key}: null " in settings
        settings = settings.replace(f"  {key}: null ", f"  {key}: {value} ")
    (profile / "profile.yaml").write_text(settings)
    (profile / "partitions.yaml").write_text("partitions: {processors: {}, accelerators: {max_gpu: 2}}")


@pytest.fixture(scope="module")
def study(cluster, request, tmp_path_factory) -> SimpleNamespace:
    """The study, finished on the cluster in spite of all faults, and once more without SLURM."""
    folder = tmp_path_factory.mktemp("studies")
    there = copy_checkout(folder / "there")
    write_study(there, small_study())
    adapt_profile(there / "workflow/profiles/slurm")
    # Tests cannot wait as long as real trainings for the first look at a job.
    polling = ["--slurm-init-seconds-before-status-checks", "3"]
    runs = {
        there: launch(
            there, "--workflow-profile", "workflow/profiles/slurm", *polling, env=cluster.environment
        )
    }
    try:
        disturb(cluster, there)
        # Of this study, the small one has all that precedes the classifiers, and the other tasks.
        here = copy_study(request.getfixturevalue("finished_study"), folder / "here")
        write_study(here, {})
        runs[here] = launch(here, "--cores", "2", "--resources", "gpu=2")
        for checkout, run in runs.items():
            wait_until(f"the study in {checkout} ends", lambda run=run: run.poll() is not None, 15 * MINUTE)
            assert run.returncode == 0, (checkout / "snakemake.log").read_text()
    finally:
        for run in runs.values():
            if run.poll() is None:
                os.killpg(run.pid, signal.SIGKILL)
    # Accounting lags behind.
    wait_until("no job runs", lambda: not {job.state for job in cluster.jobs()} & {"RUNNING", "PENDING"})
    return SimpleNamespace(there=there, here=here, jobs=[job for job in cluster.jobs() if job.rule])


def disturb(cluster: Cluster, checkout: Path) -> None:
    """Each fault once, on the training of its name, all of which are held in the midst of their epochs."""
    held = hold(cluster, checkout, *FAULTS)
    told = held["overtime"]
    # The profile asks for a signal five minutes before the limit; the controller looks twice a minute.
    cluster.run("scontrol", "update", f"JobId={told.id}", "TimeLimit=5")
    cluster.run("scancel", held["cancelled"].id)
    wait_until("it is told to end", lambda: cluster.running(told.wildcards) != told)

    victim = held["preempted"]
    all_gpus = [f"--nodelist={victim.node}", f"--gpus-per-node={GPUS}"]
    cluster.run("sbatch", "--partition=urgent", *all_gpus, "--output=/dev/null", "--wrap=true")
    wait_until("it is preempted", lambda: cluster.running(victim.wildcards) != victim)

    # It may have shared that node, and been preempted too.
    node = hold(cluster, checkout, "crashed")["crashed"].node
    cluster.crash_node(node)
    wait_until("the controller misses the node", lambda: cluster.state(node).startswith("down"))
    cluster.start_node(node)
    wait_until("the node is back", lambda: not cluster.state(node).startswith("down"))

    cluster.restart_controller()


def hold(cluster: Cluster, checkout: Path, *names: str) -> dict[str, Job]:
    """Stop the process of each training after its first epoch; a signal of SLURM's lets it go on."""
    held: dict[str, Job] = {}

    def all_are_held() -> bool:
        for name in set(names) - held.keys():
            log = checkout / f"logs/grouped/classification/{name}/seed0/train.log"
            process = training(checkout, f"runs/grouped/classification/{name}/seed0")
            # A job that was just preempted has a process for a while, and is not running any more.
            job = cluster.running(f"grouped_{name}_0")
            if process and job and "Epoch(val)" in log.read_text():
                process.suspend()
                held[name] = job
        return len(held) == len(names)

    wait_until(f"{', '.join(names)} are trained and held", all_are_held, 10 * MINUTE)
    return held


def training(checkout: Path, state: str) -> psutil.Process | None:
    """The process that trains with its state in this folder of the checkout."""
    for process in psutil.process_iter(["cmdline", "cwd"]):
        arguments = process.info["cmdline"] or []  # of a zombie: none
        if process.info["cwd"] == str(checkout) and {"scripts/train.py", state} <= set(arguments):
            return process
    return None


def runs_of(study, unit: str) -> list[Job]:
    """All runs of the training of a unit, in their order."""
    task, model = unit.split("/")
    jobs = [j for j in study.jobs if (j.rule, j.wildcards) == (f"train_{task}", f"grouped_{model}_0")]
    return sorted(jobs, key=lambda job: job.start)


def test_trainings_and_predictions_run_on_gpu_nodes_and_hold_a_gpu(study):
    # Accounting does not tell what a job held that was queued again before it started.
    completed = [job for job in study.jobs if job.state == "COMPLETED"]
    jobs = [job for job in completed if job.rule.startswith(("train_", "predict_"))]
    assert {job.rule.split("_")[0] for job in jobs} == {"train", "predict"}
    assert {(job.partition, job.gpus, job.constraint) for job in jobs} == {("accelerators", 1, FEATURE)}
    assert {job.node for job in jobs} == {"gpu1", "gpu2"}


def test_all_other_jobs_run_on_the_cpu_node(study):
    jobs = [job for job in study.jobs if not job.rule.startswith(("train_", "predict_"))]
    assert {"unpack_archive", "pack_images", "evaluate_detection", "tabulate_table7"} <= {
        j.rule for j in jobs
    }
    assert {(job.partition, job.node, job.gpus) for job in jobs} == {("processors", "cpu1", 0)}


def test_downloads_stay_on_the_submit_node(study):
    assert (study.there / "data/archives/busi.json").is_file()
    assert "fetch_archive" not in {job.rule for job in study.jobs}


@pytest.mark.parametrize("unit", UNITS)
def test_a_job_knows_its_node_and_sees_its_own_gpu_only(study, unit):
    for verb in ("train", "predict"):
        log = (study.there / f"logs/grouped/{unit}/seed0/{verb}.log").read_text()
        assert re.search(r"on gpu[12], GPUs [01]$", log, re.MULTILINE), log


def test_the_tables_equal_those_of_a_run_without_slurm(study):
    here, there = (
        {name: (checkout / f"results/tables/{name}.csv").read_bytes() for name in TABLES}
        for checkout in (study.here, study.there)
    )
    assert [name for name in TABLES if here[name] != there[name]] == []


@pytest.mark.parametrize("unit", UNITS)
def test_the_weights_equal_those_of_an_undisturbed_training(study, unit):
    digests = [
        hashlib.sha256((place / f"results/grouped/{unit}/seed0/weights.pth").read_bytes()).hexdigest()
        for place in (study.there, study.here)
    ]
    assert digests[0] == digests[1]


@pytest.mark.parametrize(
    ("name", "state"), [("cancelled", "CANCELLED"), ("preempted", "PREEMPTED"), ("crashed", "NODE_FAIL")]
)
def test_a_fault_ends_the_job_and_not_the_training(study, name, state):
    states = [job.state for job in runs_of(study, f"classification/{name}")]
    assert state in states and states[-1] == "COMPLETED"


@pytest.mark.parametrize("name", FAULTS)
def test_after_each_fault_a_training_goes_on_where_it_was(study, name):
    log = (study.there / f"logs/grouped/classification/{name}/seed0/train.log").read_text()
    epochs = {int(epoch) for epoch in re.findall(r"Epoch\(train\)\s+\[(\d+)\]", log)}
    assert EPOCHS in epochs and 1 not in epochs


def test_a_training_near_its_time_limit_is_told_and_ends_by_itself(study):
    states = [job.state for job in runs_of(study, "classification/overtime")]
    assert "FAILED" in states and "TIMEOUT" not in states and states[-1] == "COMPLETED"


def test_jobs_are_charged_to_the_account_of_the_profile(study):
    assert {job.account for job in study.jobs} == {ACCOUNT}


@pytest.mark.parametrize("unit", UNITS)
def test_a_finished_training_is_not_repeated(study, unit):
    assert [job.state for job in runs_of(study, unit)].count("COMPLETED") == 1


def test_a_job_that_failed_asks_for_more(study):
    assert {job.memory for job in runs_of(study, "classification/cancelled")} >= {"16000M", "32000M"}
