"""The benchmark of GPUs on the CPU, so that it is known to run on the day that a GPU is there."""

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_gpu_benchmark_measures_a_model_on_the_cpu_and_names_what_does_not_fit_its_budget(tmp_path):
    name, absent = "classification/convnext_atto", "detection/detr_r50"
    command = [sys.executable, ROOT / "benchmarks/gpu.py", "--small", "--output", tmp_path, "--only"]
    subprocess.run([*command, name], check=True, cwd=ROOT)
    result = json.loads((tmp_path / "gpu.json").read_text())
    assert {"device", "packages", "operators", "gemm_tflops"} <= result["machine"].keys()
    row = result["rows"][name]
    assert row["finite"] and row["same_step"]["agrees"], row
    assert (
        min(
            row[key]
            for key in (
                "images_per_s",
                "ms_per_micro_step",
                "gflop_per_image",
                "share_of_gemm",
                "validation_images_per_s",
                "prediction_ms",
            )
        )
        > 0
    )
    assert 0 <= row["loader_share"] < 1
    subprocess.run([*command, absent, "--budget", "0"], check=True, cwd=ROOT)
    assert json.loads((tmp_path / "gpu.json").read_text())["left_out"] == [absent]
