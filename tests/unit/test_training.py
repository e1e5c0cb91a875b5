"""Training one classifier: it learns, it publishes, and an interruption leaves no trace."""

import functools
import json

import numpy as np
import pandas as pd
import pytest
import torch
from trainings import assert_same, power_cut
from trainings import train as train_task

from busflow.data.packing import PackedImages
from busflow.engine import augmentation, classification, datasets, runs, training
from busflow.engine.checkpoints import load_weights
from busflow.engine.provenance import identity
from busflow.errors import BusflowError
from busflow.files import read_json
from busflow.labels import LABELS
from busflow.models.classifier import Classifier

SETTINGS = {
    "timm": "convnext_atto",
    "image_size": 32,
    "epochs": 3,
    "batch_size": 8,
    "micro_batch": 4,
    "learning_rate": 1e-3,
    "reference_batch": 8,
    "warmup_epochs": 0.5,
    "weight_decay": 0.05,
    "label_smoothing": 0.1,
    "network": {"drop_path_rate": 0.1},
    "augmentation": 1.0,
    "precision": "auto",
    "compile": False,
    "channels_last": False,
    "balance_classes": True,
}


def write_inputs(folder) -> dict:
    """Sixty images whose class is the height of a bright bar."""
    rng = np.random.default_rng(0)
    labels = np.arange(60) % 3
    images = rng.integers(0, 60, (60, 32, 32)).astype(np.uint8)
    for image, label in zip(images, labels, strict=True):
        image[4 + 8 * label : 10 + 8 * label] += 120
    hashes = [f"{k:064x}" for k in range(60)]
    np.save(folder / "images.npy", images)
    pd.DataFrame({"row": range(60), "pixel_sha256": hashes}).to_csv(folder / "packed.csv", index=False)
    ids = [f"busi/{k:02d}" for k in range(60)]
    columns = {"image_id": ids, "source": "busi", "pixel_sha256": hashes, "width": 32, "height": 32}
    pd.DataFrame(columns).to_csv(folder / "images.csv", index=False)
    split = ["train"] * 36 + ["val"] * 12 + ["test"] * 12
    pd.DataFrame(
        {"image_id": ids, "split": split, "label": [LABELS[k] for k in labels], "group": ids}
    ).to_csv(folder / "split.csv", index=False)
    return {
        "images": folder / "images.csv",
        "split": folder / "split.csv",
        "packed_images": folder / "images.npy",
        "packed_index": folder / "packed.csv",
    }


@pytest.fixture
def inputs(tmp_path) -> dict:
    return write_inputs(tmp_path)


def train(inputs: dict, tmp_path, output: str = "out", seed: int = 0, workers: int = 0, **settings) -> None:
    train_task(classification, inputs, SETTINGS | settings, tmp_path, output, seed=seed, workers=workers)


def test_packed_rows_are_found_by_content(inputs):
    packed = PackedImages(inputs["packed_images"], inputs["packed_index"])
    assert packed.rows([f"{5:064x}"]).tolist() == [5]


def test_a_classifier_learns_publishes_and_predicts(inputs, tmp_path):
    out = tmp_path / "out"
    train(inputs, tmp_path)
    history = pd.read_csv(out / "history.csv")
    assert history["epoch"].tolist() == [1, 2, 3] and history["step"].tolist() == [8, 16, 24]
    assert history["train_loss"].iloc[-1] < history["train_loss"].iloc[0]
    best = history["val_macro_f1"].idxmax() + 1
    assert load_weights(out / "weights.pth")["meta"]["epoch"] == best
    record = json.loads((out / "run.json").read_text())
    assert record["seconds"] == history["seconds"].iloc[-1] > 0
    assert record["calibration"] == load_weights(out / "weights.pth")["meta"]["calibration"]
    assert record["settings"]["seed"] == 0 and len(record["inputs"]["split"]["sha256"]) == 64
    (run,) = (path for path in (tmp_path / "state/out").iterdir() if path.is_dir())
    assert {path.name for path in run.iterdir()} == {*runs.PUBLISHED, runs.SEAL}

    classification.predict(
        inputs, out / "weights.pth", {"batch": 5, "warmup": 1, "iterations": 3}, tmp_path / "out"
    )
    predictions = pd.read_csv(out / "predictions.csv")
    assert len(predictions) == 12
    assert np.allclose(predictions[[f"p_{name}" for name in LABELS]].sum(axis=1), 1)
    assert (predictions["prediction"] == predictions["label"]).mean() > 0.5
    assert json.loads((out / "timing.json").read_text())["test_set"]["n"] == 12


# States at every second batch, one step of the optimiser: the cut is in the first epoch, at the border of the
# second, just before its end, and in the last.
@pytest.mark.parametrize("step", [3, 8, 15, 21])
def test_an_interrupted_training_ends_with_the_same_bits(inputs, tmp_path, monkeypatch, step):
    train(inputs, tmp_path, "whole")
    cut = functools.partial(train_task, classification, inputs, SETTINGS, tmp_path, "cut", interval=0)
    power_cut(monkeypatch, step, cut)
    assert not (tmp_path / "cut").exists()
    torch.manual_seed(1234)  # what a new process happens to start with must not matter
    seen = []
    before = classification.Classifier.train_step
    monkeypatch.setattr(
        classification.Classifier, "train_step", lambda *a, **k: seen.append(1) or before(*a, **k)
    )
    cut()
    assert len(seen) == 24 - step // 2 * 2
    assert_same(tmp_path / "whole", tmp_path / "cut")
    records = [json.loads((tmp_path / name / "run.json").read_text()) for name in ("whole", "cut")]
    assert records[0]["calibration"] == records[1]["calibration"]


def test_the_calibration_is_that_of_the_published_weights(inputs, tmp_path, monkeypatch):
    """Which are those of the first epoch here; the network has gone on since."""
    scores = iter([0.9, 0.5, 0.1])
    monkeypatch.setattr(
        classification.ClassificationValidation,
        "compute_metrics",
        lambda self, results: {"macro_f1": next(scores)},
    )
    train(inputs, tmp_path)
    meta = load_weights(tmp_path / "out/weights.pth")["meta"]
    assert meta["epoch"] == 1
    found = meta["calibration"]
    model, _ = classification.load(tmp_path / "out/weights.pth")
    batch = classification.read(inputs, "val").__getitems__(range(12))
    with torch.inference_mode():
        logits, labels = classification.infer(model, batch).double(), batch["labels"]
    malignant = labels == LABELS.index("malignant")
    assert (found["n"], found["n_malignant"]) == (12, int(malignant.sum())) == (12, 4)
    for stage, scaled in {"before": logits, "after": logits / found["temperature"]}.items():
        expected = torch.nn.functional.cross_entropy(scaled, labels).item()
        assert found["nll"][stage] == pytest.approx(expected, rel=1e-5)
    assert found["nll"]["after"] <= found["nll"]["before"]
    probability = torch.softmax(logits / found["temperature"], dim=1)[malignant, LABELS.index("malignant")]
    # Of four images 90 % are all of them.
    assert found["thresholds"] == pytest.approx(dict.fromkeys(("0.90", "0.95"), float(probability.min())))


def test_validation_without_a_malignant_image_gives_no_threshold(inputs, tmp_path):
    split = pd.read_csv(inputs["split"])
    split[~((split["split"] == "val") & (split["label"] == "malignant"))].to_csv(inputs["split"], index=False)
    train(inputs, tmp_path, epochs=1)
    found = load_weights(tmp_path / "out/weights.pth")["meta"]["calibration"]
    assert (found["n"], found["n_malignant"]) == (8, 0)
    assert found["thresholds"] == {"0.90": None, "0.95": None} and found["temperature"] > 0


def test_seeds_give_different_weights(inputs, tmp_path):
    for seed in (0, 1):
        train(inputs, tmp_path, str(seed), seed, epochs=1)
    weights = [load_weights(tmp_path / str(seed) / "weights.pth")["state_dict"] for seed in (0, 1)]
    assert not torch.equal(weights[0]["stem.0.weight"], weights[1]["stem.0.weight"])


def test_balancing_without_an_image_of_a_class_names_the_class(inputs, tmp_path):
    split = pd.read_csv(inputs["split"])
    split[~((split["split"] == "train") & (split["label"] == "normal"))].to_csv(inputs["split"], index=False)
    with pytest.raises(BusflowError, match=r"no training image of class normal.*balance_classes"):
        train(inputs, tmp_path)


def test_an_empty_split_is_named(inputs, tmp_path):
    split = pd.read_csv(inputs["split"])
    split[split["split"] != "val"].to_csv(inputs["split"], index=False)
    with pytest.raises(BusflowError, match=r"no image in its val split"):
        train(inputs, tmp_path)


def test_the_learning_rate_warms_up_and_decays_to_zero(inputs, tmp_path):
    train(inputs, tmp_path, epochs=4, warmup_epochs=2)
    rates = pd.read_csv(tmp_path / "out/history.csv")["learning_rate"]
    assert rates.idxmax() == 1 and rates.max() == pytest.approx(1e-3) and rates.iloc[-1] < 1e-4


def test_the_learning_rate_follows_the_square_root_of_the_batch(monkeypatch, inputs, tmp_path):
    seen = {}

    def stop(self, **arguments):
        seen["lr"] = arguments["optim_wrapper"].optimizer.defaults["lr"]
        raise InterruptedError

    monkeypatch.setattr(training.Runner, "__init__", stop)
    with pytest.raises(InterruptedError):
        train(inputs, tmp_path, reference_batch=32)
    assert seen["lr"] == pytest.approx(0.5e-3)


@pytest.mark.parametrize("kind", ["sgd", "adamw"])
def test_a_step_that_overflows_in_half_precision_leaves_no_trace(kind, monkeypatch):
    # New memory holds what was there before.
    monkeypatch.setattr(torch, "empty_like", lambda like: torch.full_like(like, float("nan")))
    settings = {"batch_size": 2, "reference_batch": 2, "weight_decay": 0.0, "learning_rate": 0.1}
    network = torch.nn.Linear(2, 1)
    before = [parameter.detach().clone() for parameter in network.parameters()]
    optimizer = training.optimizer(network, settings | {"optimizer": kind})
    scaler = torch.amp.GradScaler("cpu")

    def step(factor: float) -> None:
        optimizer.zero_grad()
        scaler.scale(network(torch.ones(2, 2)).sum() * factor).backward()
        scaler.step(optimizer)
        scaler.update()

    step(float("inf"))
    assert all(map(torch.equal, network.parameters(), before))
    step(1.0)
    assert all(parameter.isfinite().all() for parameter in network.parameters())
    moments = [value for state in optimizer.state.values() for value in state.values()]
    assert all(value.isfinite().all() for value in moments)


@pytest.mark.parametrize("step", [10, 17])
def test_with_an_interval_the_last_epoch_is_validated_too_and_a_cut_changes_nothing(
    inputs, tmp_path, monkeypatch, step
):
    settings = {**SETTINGS, "validation_interval": 2}
    train_task(classification, inputs, settings, tmp_path, "whole", interval=0)
    history = pd.read_csv(tmp_path / "whole/history.csv")
    assert history["epoch"].tolist() == [2, 3] and history["step"].tolist() == [16, 24]
    best = history["epoch"][history["val_macro_f1"].idxmax()]
    assert load_weights(tmp_path / "whole/weights.pth")["meta"]["epoch"] == best
    cut = functools.partial(train_task, classification, inputs, settings, tmp_path, "cut", interval=0)
    power_cut(monkeypatch, step, cut)
    cut()
    assert_same(tmp_path / "whole", tmp_path / "cut")


def test_every_epoch_is_shuffled_and_augmented_anew(inputs, tmp_path, monkeypatch):
    shuffled, augmented = [], []
    monkeypatch.setattr(datasets.EpochSampler, "set_epoch", lambda self, epoch: shuffled.append(epoch))
    monkeypatch.setattr(
        augmentation.UltrasoundAugmentation,
        "set_epoch",
        lambda self, epoch: augmented.append(epoch) or setattr(self, "draws", torch.zeros(36, 8)),
    )
    train(inputs, tmp_path)
    assert shuffled == [0, 1, 2] and augmented == [0, 0, 1, 2]  # the first at construction


def test_the_number_of_loader_processes_does_not_change_the_weights(inputs, tmp_path):
    for workers in (0, 2):
        train(inputs, tmp_path, str(workers), workers=workers, epochs=1)
    assert (tmp_path / "0/weights.pth").read_bytes() == (tmp_path / "2/weights.pth").read_bytes()


def test_a_state_of_other_settings_is_not_resumed(inputs, tmp_path, monkeypatch):
    """Interrupted at one learning rate, then run at another: the weights are those of the other alone."""
    first = functools.partial(train_task, classification, inputs, SETTINGS, tmp_path, "out", interval=0)
    power_cut(monkeypatch, 9, first)
    assert list((tmp_path / "state/out").rglob("state-*.pth"))
    train(inputs, tmp_path, "out", learning_rate=5e-4, epochs=2)
    train(inputs, tmp_path, "afresh", learning_rate=5e-4, epochs=2)
    assert_same(tmp_path / "out", tmp_path / "afresh")


def test_the_identity_of_a_run_changes_with_settings_and_contents_but_not_with_places():
    at_home, moved = ({"split": {"path": path, "sha256": "1"}} for path in ("a", "b"))
    changed = {"split": {"path": "a", "sha256": "2"}}
    assert identity(SETTINGS, at_home) == identity(SETTINGS, moved)
    assert identity(SETTINGS, at_home) == identity(SETTINGS | {"micro_batch": 2}, at_home)
    assert identity(SETTINGS, at_home) != identity(SETTINGS, changed)
    assert identity(SETTINGS, at_home) != identity(SETTINGS | {"epochs": 9}, at_home)


PAGE = "CUDA out of memory. Tried to allocate 1.50 GiB. GPU 0 has a total capacity of 23.99 GiB. If ..."
FULL = "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"


@pytest.fixture
def small_gpu(monkeypatch):
    """A device whose memory takes so many images, as a call with their number and that of the passes says."""
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: None)
    forward, passes = Classifier.forward, []

    def limit(takes) -> list[int]:
        def limited(model, inputs, *arguments, **named):
            if len(inputs) > takes(len(passes)):
                # Later it may be a library that finds no room to work in.
                raise RuntimeError(FULL) if passes else torch.OutOfMemoryError(PAGE)
            passes.append(len(inputs))
            return forward(model, inputs, *arguments, **named)

        monkeypatch.setattr(Classifier, "forward", limited)
        return passes

    return limit


def test_what_does_not_fit_is_halved_and_the_training_goes_on_from_its_last_state(
    inputs, tmp_path, small_gpu, caplog
):
    train(inputs, tmp_path, "straight", micro_batch=2)
    # From the start four images fit, and from the twelfth pass on two.
    passes = small_gpu(lambda done: 4 if done < 12 else 2)
    settings = SETTINGS | {"micro_batch": "auto"}
    train_task(classification, inputs, settings, tmp_path, "halved", interval=0)
    assert read_json(tmp_path / "halved/run.json")["settings"]["micro_batch"] == 2
    said = [record.getMessage() for record in caplog.records if "does not fit" in record.getMessage()]
    assert [line.split(" does")[0] for line in said] == [
        f"small, a step of {k} images of 32 x 32 px" for k in (8, 4)
    ]
    straight, halved = (pd.read_csv(tmp_path / name / "history.csv") for name in ("straight", "halved"))
    assert halved["epoch"].tolist() == [1, 2, 3] and halved["step"].iloc[-1] == straight["step"].iloc[-1]
    assert halved["train_loss"].to_numpy() == pytest.approx(straight["train_loss"].to_numpy(), rel=0.1)
    assert passes[:8] == [4] * 8 and 4 not in passes[12:]
    # Nothing was done twice but the step of the optimiser that was cut, and perhaps a validation.
    trained = sum(passes) - 3 * 12 - 12  # but for validation and calibration
    assert 3 * 32 <= trained <= 3 * 32 + 8 + 12


def test_what_cannot_be_halved_is_one_line_that_says_what_helps(inputs, tmp_path, small_gpu):
    train(inputs, tmp_path)
    small_gpu(lambda done: 0)
    with pytest.raises(BusflowError) as refused:
        train(inputs, tmp_path, "too large", epochs=1)
    assert str(refused.value) == (
        "small, a step of 1 images of 32 x 32 px: CUDA out of memory: Tried to allocate 1.50 GiB; "
        "lower micro_batch or image_size of the model in the config"
    )
    with pytest.raises(BusflowError, match=r"a step of 8 images"):  # over which it normalises
        train(inputs, tmp_path, "too few", epochs=1, timm="resnet10t", network={}, micro_batch=8)
    settings = {"batch": 4, "warmup": 1, "iterations": 1}
    with pytest.raises(BusflowError, match=r"a prediction: CUDA out of memory: .* lower timing.batch"):
        classification.predict(inputs, tmp_path / "out/weights.pth", settings, tmp_path / "out")


def test_a_compiled_training_learns_the_same_and_ends_with_the_same_bits_after_a_cut(
    inputs, tmp_path, monkeypatch, traced
):
    train(inputs, tmp_path, "plain", epochs=2)
    assert traced == []
    compiled = {**SETTINGS, "epochs": 2, "compile": True}
    train_task(classification, inputs, compiled, tmp_path, "straight", interval=0)
    assert "forward" in traced and read_json(tmp_path / "straight/run.json")["settings"]["compile"]
    again = functools.partial(train_task, classification, inputs, compiled, tmp_path, "cut", interval=0)
    power_cut(monkeypatch, 9, again)
    again()
    assert_same(tmp_path / "straight", tmp_path / "cut")
    plain, straight = (pd.read_csv(tmp_path / name / "history.csv") for name in ("plain", "straight"))
    assert straight["train_loss"].to_numpy() == pytest.approx(plain["train_loss"].to_numpy(), rel=1e-3)


def test_a_training_with_channels_last_in_memory_ends_with_the_same_bits_after_a_cut(
    inputs, tmp_path, monkeypatch
):
    settings = {**SETTINGS, "epochs": 2, "channels_last": True}
    layouts = []
    forward = Classifier.forward

    def watched(model, *args, **kwargs):
        weights = [p for p in model.network.parameters() if p.ndim == 4 and min(p.shape[1:]) > 1]
        layouts.append(all(p.is_contiguous(memory_format=torch.channels_last) for p in weights))
        return forward(model, *args, **kwargs)

    monkeypatch.setattr(Classifier, "forward", watched)
    train_task(classification, inputs, settings, tmp_path, "straight", interval=0)
    assert layouts and all(layouts)
    again = functools.partial(train_task, classification, inputs, settings, tmp_path, "cut", interval=0)
    power_cut(monkeypatch, 9, again)
    again()
    assert_same(tmp_path / "straight", tmp_path / "cut")


def test_published_weights_lie_plainly_in_memory_whichever_layout_the_training_had(inputs, tmp_path):
    settings = {**SETTINGS, "epochs": 1, "channels_last": True}
    train_task(classification, inputs, settings, tmp_path, "out", interval=0)
    weights = load_weights(tmp_path / "out/weights.pth")["state_dict"]
    assert all(tensor.is_contiguous() for tensor in weights.values())


def test_where_torch_cannot_compile_a_training_says_so_in_a_line_and_runs_as_it_is(
    inputs, tmp_path, monkeypatch, caplog
):
    def broken(*arguments, **named):
        raise RuntimeError("No working C++ compiler found\nand a page about it")

    train(inputs, tmp_path, "plain", epochs=1)
    monkeypatch.setattr(torch, "compile", broken)
    train(inputs, tmp_path, "out", epochs=1, compile=True)
    said = [r.getMessage() for r in caplog.records if "compile" in r.getMessage()]
    assert said == ["compile: true is passed over: No working C++ compiler found"]
    assert read_json(tmp_path / "out/run.json")["settings"]["compile"] is False
    plain, out = (load_weights(tmp_path / name / "weights.pth")["state_dict"] for name in ("plain", "out"))
    assert all(torch.equal(out[name], tensor) for name, tensor in plain.items())
