"""The benchmark of GPUs on the CPU, so that it is known to run on the day that a GPU is there."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def measured(folder: Path, *arguments: str) -> dict:
    """What the benchmark writes at the demonstration's sizes."""
    command = [sys.executable, ROOT / "benchmarks/gpu.py", "--small", "--output", folder, *arguments]
    subprocess.run(command, check=True, cwd=ROOT)
    return json.loads((folder / "gpu.json").read_text())


@pytest.mark.slow
def test_the_gpu_benchmark_measures_a_model_on_the_cpu_and_names_what_does_not_fit_its_budget(tmp_path):
    name, absent = "classification/convnext_atto", "interruptions"  # which is taken to last 75 s
    result = measured(tmp_path, "--budget", "74", "--only", name, absent)
    assert {"device", "packages", "operators", "gemm_tflops"} <= result["machine"].keys()
    row = result["rows"][name]
    assert row["finite"] and row["same_step"]["agrees"], row
    rates = {"images_per_s", "validation_images_per_s", "gflop_per_image", "share_of_gemm", "prediction_ms"}
    assert all(row[key] > 0 for key in rates)
    assert 0 <= row["loader_share"] < 1
    assert result["left_out"] == [absent]


@pytest.mark.slow
def test_a_training_that_is_stopped_and_killed_goes_on_and_pyramid_levels_are_those_of_single_precision(
    tmp_path,
):
    rows = measured(tmp_path, "--only", "levels", "interruptions")["rows"]
    trained = rows["interruptions"]["classification"]
    assert trained["as_expected"] and trained["cut_same_bits"] and trained["again_same_bits"], trained
    assert not any(rows["levels"]["sides_at_another_level_than_in_float32"].values())
