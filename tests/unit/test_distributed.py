"""One training in several processes, as torchrun starts them."""

import os
import subprocess
import sys

import pandas as pd
import pytest
import test_training
import torch
from test_training import write_inputs
from trainings import train

from busflow.engine import classification
from busflow.engine.checkpoints import load_weights

# Without dropped paths, which differ from process to process.
SETTINGS = test_training.SETTINGS | {"network": {}}
PROGRAM = """
import sys
from pathlib import Path
import torch
from busflow.engine import classification
from test_distributed import SETTINGS
from test_training import write_inputs
from trainings import train

torch.set_num_threads(1)
folder = Path(sys.argv[1])
names = {"images": "images.csv", "split": "split.csv"}
names |= {"packed_images": "images.npy", "packed_index": "packed.csv"}
inputs = {role: folder / name for role, name in names.items()}
train(classification, inputs, SETTINGS, folder, "shared", interval=0)
"""


@pytest.mark.slow
def test_two_processes_end_where_one_ends(tmp_path):
    inputs = write_inputs(tmp_path)
    train(classification, inputs, SETTINGS | {"micro_batch": 8}, tmp_path, "alone")
    (tmp_path / "program.py").write_text(PROGRAM)
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    command += [tmp_path / "program.py", tmp_path]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr

    histories = [pd.read_csv(tmp_path / name / "history.csv") for name in ("alone", "shared")]
    steps = ["epoch", "step", "learning_rate"]
    assert histories[0][steps].equals(histories[1][steps])
    weights = [load_weights(tmp_path / name / "weights.pth") for name in ("alone", "shared")]
    assert [each["meta"]["epoch"] for each in weights] == [weights[0]["meta"]["epoch"]] * 2
    assert [each["meta"]["calibration"]["n"] for each in weights] == [12, 12]  # not a share of them
    for name, tensor in weights[0]["state_dict"].items():
        torch.testing.assert_close(weights[1]["state_dict"][name], tensor, rtol=0, atol=5e-3)
