"""Trainings of seconds that are stopped and killed, and go on."""

import itertools
import json
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pandas as pd
import torch

from busflow.engine.checkpoints import load_weights

from .inputs import CUDA, settings_of, write_inputs

ROOT = Path(__file__).parents[2]
# Of each task a model of the study, and what makes it small.
SHORT = {"epochs": 4, "batch_size": 4, "micro_batch": 2, "warmup_epochs": 0.5}
INTERRUPTED = {
    "classification": ("convnext_atto", {"image_size": 64}),
    "detection": (
        "convnext_small_rfla",
        {"image_size": 128, "backbone": "convnext_atto", "clip_grad": 10, "roi_samples": 32}
        | {"train_proposals": 100, "test_proposals": 100},
    ),
    "segmentation": ("segformer_b0", {"image_size": 64}),
}
STATUSES = [os.EX_TEMPFAIL, -signal.SIGKILL, 0]  # asked to stop, killed, finished


def interruptions(config: dict, folder: Path, tasks: list[str], deadline: float) -> dict:
    """Trainings left alone, twice, and one that is asked to stop, then killed, then goes on."""
    chains = {"alone": [None], "again": [None], "cut": [signal.SIGTERM, signal.SIGKILL, None]}
    with ThreadPoolExecutor(max(1, (os.cpu_count() or 1) // 2)) as pool:
        started = {
            (task, name): pool.submit(training_runs, config, folder / task / name, task, stops, deadline)
            for task, (name, stops) in itertools.product(tasks, chains.items())
        }
    return {
        task: compare_runs(folder / task, {name: started[task, name].result() for name in chains})
        for task in tasks
    }


def training_runs(config: dict, folder: Path, task: str, stops: list, deadline: float) -> list[int]:
    """Exit statuses of the processes of one training; each is sent its stop once it saved two states."""
    model, small = INTERRUPTED[task]
    settings = settings_of(config, task, model) | SHORT | small
    inputs = write_inputs(folder, task, settings["image_size"], 4 * settings["batch_size"], 4)
    options = {role.replace("_", "-"): path for role, path in inputs.items()}
    options |= {"task": task, "settings": json.dumps(settings), "seed": 0, "gpus": int(CUDA)}
    options |= {key: config["compute"][key] for key in ("threads", "workers")}
    options |= {"origin": json.dumps({"model": model}), "state": folder / "state", "output": folder}
    options["checkpoint-interval"] = 0 if len(stops) > 1 else 10**9
    command = [
        sys.executable,
        ROOT / "scripts/train.py",
        *(f"--{name}={value}" for name, value in options.items()),
    ]
    paths = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    # In a scheduler's job no GPU is leased: these trainings share one.
    environment = os.environ | {"PYTHONPATH": paths, "SLURM_JOB_ID": "0"}
    statuses = []
    for stop in stops:
        before = seen = set(folder.glob("state/*/state-*.pth"))
        waiting = stop is not None
        with (folder / "log").open("a") as log:
            process = subprocess.Popen(command, stdout=log, stderr=log, env=environment)
            while process.poll() is None:
                seen = seen | set(folder.glob("state/*/state-*.pth"))
                if waiting and len(seen - before) >= 2:
                    process.send_signal(stop)
                    waiting = False
                if time.monotonic() > deadline:
                    process.kill()
                time.sleep(0.02)
        statuses.append(process.returncode)
    return statuses


def compare_runs(folder: Path, statuses: dict[str, list[int]]) -> dict:
    """Whether the weights of the training that was cut are those of the one left alone."""
    row = {
        "exit_statuses": statuses,
        "as_expected": statuses == {"alone": [0], "again": [0], "cut": STATUSES},
    }
    if not row["as_expected"]:
        logs = {name: (folder / name / "log").read_text() for name in statuses}
        return row | {"said": {name: text.splitlines()[-4:] for name, text in logs.items()}}
    weights = {name: load_weights(folder / name / "weights.pth")["state_dict"] for name in statuses}
    for name in ("again", "cut"):
        pairs = [(weights["alone"][key], weights[name][key]) for key in weights["alone"]]
        row[f"{name}_same_bits"] = all(torch.equal(one, other) for one, other in pairs)
        row[f"{name}_apart"] = max((one.double() - other.double()).abs().max().item() for one, other in pairs)
    losses = {n: pd.read_csv(folder / n / "history.csv")["train_loss"].tolist() for n in statuses}
    return row | {"train_losses": losses}
