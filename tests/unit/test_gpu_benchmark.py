"""The benchmark of GPUs on the CPU, so that it is known to run on the day that a GPU is there."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_the_gpu_benchmark_measures_a_model_on_the_cpu_and_names_what_does_not_fit_its_budget(tmp_path):
    name, absent = "classification/convnext_atto", "interruptions"  # which is taken to last 75 s
    command = [sys.executable, ROOT / "benchmarks/gpu.py", "--small", "--output", tmp_path]
    subprocess.run([*command, "--budget", "74", "--only", name, absent], check=True, cwd=ROOT)
    result = json.loads((tmp_path / "gpu.json").read_text())
    assert {"device", "packages", "operators", "gemm_tflops"} <= result["machine"].keys()
    row = result["rows"][name]
    assert row["finite"] and row["same_step"]["agrees"], row
    rates = {"images_per_s", "validation_images_per_s", "gflop_per_image", "share_of_gemm", "prediction_ms"}
    assert all(row[key] > 0 for key in rates)
    assert 0 <= row["loader_share"] < 1
    assert result["left_out"] == [absent]
