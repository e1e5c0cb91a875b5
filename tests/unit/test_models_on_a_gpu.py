"""One model of each kind in config/paper.yaml trains, goes on after a cut and predicts on a pretended GPU."""

import json

import numpy as np
import pandas as pd
import pytest

from busflow.engine.checkpoints import load_weights
from busflow.tasks import TASKS
from pretended import entries

pytestmark = pytest.mark.slow
# Waits and copies of a training batch of two images, at most (python benchmarks/waits.py tells whose they
# are); of detectors, whose steps differ by what they find, a few more than were counted.
LIMITS = {
    "classification/convnext_atto": (1, 4),
    "classification/convnext_tiny": (1, 4),
    "segmentation/segformer_b0": (2, 4),
    "segmentation/convnext_tiny": (3, 4),
    "detection/convnext_tiny": (105, 22),
    "detection/swin_base": (105, 22),
    "detection/detr_r50": (33, 24),
    "detection/convnext_small_rfla": (105, 22),
    "detection/swin_base_rfla": (105, 22),
    "detection/swin_base_detectors_rfla": (105, 22),
}
ENTRIES = [(task, model) for task, models in entries.KINDS.items() for model in models]


@pytest.fixture(scope="module", params=ENTRIES, ids="/".join)
def run(request, tmp_path_factory) -> tuple[str, str, entries.Run]:
    return *request.param, entries.run(*request.param, tmp_path_factory.mktemp("run"))


def test_a_model_trains_goes_on_after_a_cut_and_predicts(run):
    task, _, (output, steps, _, resumed) = run
    history = pd.read_csv(output / "history.csv")
    assert history["epoch"].tolist() == [1, 2]
    assert np.isfinite(history["train_loss"]).all()
    # The first epoch, and a batch that was lost; then the second epoch.
    assert resumed == entries.STEPS and len(steps) == 2 * entries.STEPS + 1
    assert load_weights(output / "weights.pth")["meta"]["epoch"] in (1, 2)
    predictions = (output / TASKS[task].predictions).read_text()
    assert "image" in predictions or task == "detection"  # which may find nothing
    assert json.loads((output / "timing.json").read_text())["test_set"]["n"] == entries.IMAGES[1]


def test_a_training_batch_waits_and_copies_no_more_than_its_limit(run):
    task, model, (_, _, steps, _) = run
    waits = max(step.waits.total() for step in steps)
    copies = max(step.copies.total() for step in steps)
    most_waits, most_copies = LIMITS[f"{task}/{model}"]
    assert waits <= most_waits, steps[-1].waits.most_common()
    assert copies <= most_copies, steps[-1].copies.most_common()


@pytest.mark.parametrize("task", TASKS)
def test_every_entry_of_the_study_is_of_a_kind_that_runs_here(task):
    kinds = {entries.kind(task, model) for model in entries.KINDS[task]}
    models = entries.CONFIG["models"][task]
    compared = [name for name, entry in models.items() if "ablation_of" not in entry]
    # An ablation has the network of one of them and the optimiser of another.
    other = [model for model in compared if entries.kind(task, model) not in kinds]
    assert not other, "name one of each kind in KINDS of tests/pretended/entries.py"
