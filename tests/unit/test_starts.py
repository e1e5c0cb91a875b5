"""What a process imports before it works, and leaves out at its exit: seconds, of each of a study's jobs."""

import subprocess
import sys
from pathlib import Path

import pytest

from busflow.engine.loading import load_task

SCRIPTS = Path(__file__).parents[2] / "scripts"


def said_by(program: str) -> str:
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    return done.stdout.strip()


@pytest.mark.parametrize("script", ["train", "predict"])
def test_arguments_are_read_before_torch_is_imported(script):
    program = f"""
import runpy, sys
sys.argv = ["{script}.py", "--task", "none"]
try:
    runpy.run_path({str(SCRIPTS / script)!r} + ".py", run_name="__main__")
except SystemExit:
    print("torch" in sys.modules)
"""
    assert said_by(program) == "False"


@pytest.mark.parametrize(
    ("module", "package"),
    [
        ("figures.boxes", "seaborn"),
        ("figures.detection", "seaborn"),
        ("figures.masks", "seaborn"),
        ("figures.segmentation", "seaborn"),
        ("figures.timing", "seaborn"),
        ("figures.training", "seaborn"),
        ("models.detectors", "mmdet.datasets"),
        ("models.segmenters", "mmseg.datasets"),
        ("metrics.calibration", "scipy"),  # which trainings begin with
        ("tables.classification", "sklearn"),
        ("tables.data", "scipy"),
        ("tables.detection", "scipy.stats"),
        ("data.splits", "sklearn"),
    ],
)
def test_a_module_does_not_import_what_few_of_its_callers_need(module, package):
    assert said_by(f"import sys, busflow.{module}; print({package!r} in sys.modules)") == "False"


def test_nothing_is_searched_for_garbage_at_the_exit():
    program = """
import atexit, gc
from busflow.cli import run
atexit.register(lambda: print(len(gc.get_objects()), gc.get_freeze_count()))
run(lambda: None)
"""
    searched, left_out = map(int, said_by(program).split())
    assert searched < 100
    assert left_out > 1000


def test_a_task_is_loaded_as_if_optional_packages_were_not_installed(monkeypatch, tmp_path):
    (tmp_path / "optional.py").write_text("")
    monkeypatch.syspath_prepend(tmp_path)
    seen = {}

    def import_module(name):
        for package in ("optional", "json"):
            try:
                seen[package] = __import__(package)
            except ModuleNotFoundError:
                seen[package] = None
        return name

    monkeypatch.setattr("busflow.engine.loading.OPTIONAL", {"detection": ("optional", "json")})
    monkeypatch.setattr("busflow.engine.loading.importlib.import_module", import_module)
    assert load_task("detection") == "busflow.engine.detection"
    assert seen == {"optional": None, "json": sys.modules["json"]}  # what is loaded already stays
    assert __import__("optional")  # and is to be had afterwards


@pytest.mark.slow
@pytest.mark.parametrize("task", ["detection", "segmentation"])
def test_a_task_loads_without_its_optional_packages(task):
    program = f"""
import sys
from busflow.engine.loading import OPTIONAL, load_task
load_task("{task}").build_network
print(*(package in sys.modules for package in OPTIONAL["{task}"]))
"""
    assert "True" not in said_by(program)


def test_torch_is_told_to_compile_nothing_for_torchscript_before_it_is_imported():
    options = "--task classification --settings {} --weights w --images i --packed-images p --packed-index p"
    options += " --split s --output o --threads 1 --gpus 0"
    program = f"""
import os, runpy, sys
sys.argv = ["predict.py", *{options.split()}]
sys.modules["torch"] = None
try:
    runpy.run_path({str(SCRIPTS / "predict.py")!r}, run_name="__main__")
except ModuleNotFoundError:
    print(os.environ["PYTORCH_JIT"])
"""
    assert said_by(program) == "0"
