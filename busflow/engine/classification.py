"""The classification task: what it trains on, how it is validated, and how it predicts."""

import time
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from mmengine.device import get_device
from mmengine.evaluator import BaseMetric

from busflow.data.packing import PackedImages
from busflow.engine import timing, training
from busflow.engine.augmentation import UltrasoundAugmentation
from busflow.engine.checkpoints import load_weights
from busflow.engine.datasets import PackedDataset, evaluation_loader, split_images
from busflow.engine.memory import out_of_memory_is
from busflow.engine.meta import read_meta
from busflow.engine.training import Setup
from busflow.errors import BusflowError
from busflow.files import write_csv, write_json
from busflow.labels import LABELS
from busflow.metrics.calibration import calibrated, fit, is_calibration, nll, thresholds
from busflow.metrics.confusion import summary
from busflow.models.classifier import Classifier, build_network, shaping
from busflow.models.weights import load_trained

DIGITS = 9  # of a probability in predictions.csv


class ClassificationValidation(BaseMetric):
    """Negative log-likelihood, accuracy and macro-F1 of a validation pass."""

    def process(self, data_batch: dict, data_samples: list[dict]) -> None:
        self.results.extend(
            (sample["logits"].float().cpu(), sample["label"].cpu()) for sample in data_samples
        )

    def compute_metrics(self, results: list) -> dict[str, float]:
        logits, labels = (torch.stack(column) for column in zip(*results, strict=True))
        pairs = labels * len(LABELS) + logits.argmax(1)
        matrix = torch.bincount(pairs, minlength=len(LABELS) ** 2).reshape(len(LABELS), -1)
        scores = summary(matrix.numpy())
        return {
            # Not "loss": mmengine prints running means of what is so called.
            "nll": torch.nn.functional.cross_entropy(logits, labels).item(),
            "accuracy": float(scores["accuracy"]),
            "macro_f1": float(scores["macro_f1"]),
        }


def read(inputs: dict[str, Path], name: str) -> PackedDataset:
    """The samples of a split; ``inputs`` as in ``busflow.tasks``."""
    table = _table(inputs, name)
    packed = PackedImages(inputs["packed_images"], inputs["packed_index"])
    labels = table["label"].map(LABELS.index)
    return PackedDataset(
        packed.images,
        packed.rows(table["pixel_sha256"]),
        labels,
        table["image_id"].tolist(),
        table[["width", "height"]].astype(int).to_numpy(),
    )


def prepare(
    samples: PackedDataset, validation: PackedDataset, settings: dict, pretrained: Path | None = None
) -> Setup:
    """Everything for the training of one classifier but its batches (see ``training.Engine``)."""
    counts = np.bincount(samples.labels, minlength=len(LABELS))
    if settings["balance_classes"] and (counts == 0).any():
        missing = LABELS[int(np.argmin(counts))]
        raise BusflowError(
            f"the split has no training image of class {missing}, so that classes cannot be balanced: set "
            "protocols.<name>.balance_classes to false, or split other data"
        )
    network = build_network(settings["timm"], options=settings["network"], weights=pretrained)
    return Setup(
        model=Classifier(
            network,
            UltrasoundAugmentation(settings["seed"], len(samples), settings["augmentation"]),
            settings["label_smoothing"],
            torch.from_numpy(counts) if settings["balance_classes"] else None,
        ),
        optimizer=training.optimizer(network, settings),
        validation=ClassificationValidation(),
        task="classification",
        classes=LABELS,
        settings=settings,
        calibrate=calibrate,
    )


@torch.inference_mode()
def calibrate(model: Classifier, batches: Iterable[dict]) -> dict:
    """What makes the predictions of a trained classifier probabilities and decisions.

    Args:
        model: in evaluation mode.
        batches: of all validation images.

    Returns:
        ``temperature`` (see ``busflow.metrics.calibration.fit``); ``n`` and ``n_malignant``, of how many
        images; ``nll`` (nats) of their logits ``before`` and ``after`` it; ``thresholds`` of the calibrated
        probability of malignancy by the share of the malignant images that are at or above them.
    """
    with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):  # in the precision of a prediction
        found = [(infer(model, batch), batch["labels"]) for batch in batches]
    logits, labels = (torch.cat(column) for column in zip(*found, strict=True))
    # Rounded as those of predictions.csv, to which the thresholds are applied.
    probabilities = softmax(logits).round(DIGITS)
    logits, labels, malignant = logits.numpy(), labels.numpy(), LABELS.index("malignant")
    temperature = fit(logits, labels)
    scores = calibrated(probabilities, temperature)[:, malignant]
    return {
        "temperature": temperature,
        "n": len(labels),
        "n_malignant": int((labels == malignant).sum()),
        "nll": {"before": nll(logits, labels), "after": nll(logits, labels, temperature)},
        "thresholds": thresholds(scores, labels == malignant),
    }


@torch.inference_mode()
@out_of_memory_is("a prediction", "lower timing.batch in the config, or set compute.gpus to 0")
def predict(inputs: dict[str, Path], weights: Path, settings: dict, output: Path) -> None:
    """Predict the test split and time it: writes predictions.csv and timing.json.

    Args:
        inputs: as in ``busflow.tasks``.
        weights: a published weights.pth.
        settings: keys ``batch`` (images at a time), ``warmup`` and ``iterations`` (timed calls).
        output: folder of the two files.
    """
    device = torch.device(get_device())
    model = load(weights)[0].to(device)
    dataset = read(inputs, "test")
    loader = evaluation_loader(dataset, settings["batch"], workers=0)
    infer(model, next(iter(loader)))  # the first call pays for set-up
    start = time.perf_counter()
    logits = torch.cat([infer(model, batch) for batch in loader])
    elapsed = time.perf_counter() - start

    probabilities = softmax(logits)
    table = _table(inputs, "test")[["image_id", "source", "label"]].copy()
    table["prediction"] = [LABELS[k] for k in probabilities.argmax(1)]
    table[[f"p_{name}" for name in LABELS]] = probabilities.round(DIGITS)
    write_csv(output / "predictions.csv", table)

    packed = dataset.images.shape[1]
    example = torch.zeros(settings["batch"], 3, packed, packed, device=device)
    measured = timing.measure(
        lambda n: model(example[:n]), device, settings["batch"], settings["warmup"], settings["iterations"]
    )
    write_json(
        output / "timing.json",
        {
            "device": timing.device_name(device),
            "precision": "fp32",
            "threads": torch.get_num_threads(),
            "image_size": packed,
            **measured,
            "test_set": {"n": len(dataset), "seconds": elapsed},
        },
    )


def load(weights: Path) -> tuple[Classifier, dict]:
    """The published classifier, in evaluation mode, and what its file says of it (``read_meta``)."""
    loaded = load_weights(weights)
    meta = read_meta(
        weights, loaded["meta"], "classification", LABELS, shaping, {"calibration": is_calibration}
    )
    timm, options = (meta["settings"][key] for key in ("timm", "network"))
    network = load_trained(lambda: build_network(timm, options=options), loaded["state_dict"], weights)
    return Classifier(network).eval(), meta


def infer(model: Classifier, batch: dict) -> torch.Tensor:
    """Logits [B, K] of one loader batch, on the CPU."""
    return model(**model.data_preprocessor(batch)).float().cpu()


def softmax(logits: torch.Tensor) -> np.ndarray:
    """Probabilities [N, K] (float64) of logits [N, K]."""
    return torch.softmax(logits.double(), dim=1).numpy()


def _table(inputs: dict[str, Path], name: str) -> pd.DataFrame:
    return split_images(
        inputs["split"], inputs["images"], name, ["source", "pixel_sha256", "width", "height"]
    )
