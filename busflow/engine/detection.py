"""The detection task: what it trains on, how it is validated, and how it predicts."""

import itertools
import json
import logging
from pathlib import Path

import pandas as pd
import torch
from faster_coco_eval import COCO, COCOeval_faster
from mmengine.device import get_device
from mmengine.evaluator import BaseMetric

from busflow.data.packing import PackedImages
from busflow.data.views import load_view
from busflow.engine import timing, training
from busflow.engine.boxes import BoxAugmentation, DetectionDataset
from busflow.engine.checkpoints import load_weights
from busflow.engine.datasets import evaluation_loader, training_loader
from busflow.engine.training import Setup
from busflow.errors import BusflowError
from busflow.files import write_json, write_text
from busflow.labels import LESIONS
from busflow.models.backbones import learning_rate_scale
from busflow.models.detectors import Detector, build_network, prior_sides
from busflow.models.loading import load_network

SELECT_BY = "ap"

logger = logging.getLogger(__name__)


class DetectionValidation(BaseMetric):
    """COCO's AP and AP50 of a validation pass.

    Args:
        dataset: that the pass goes through.
    """

    def __init__(self, dataset: DetectionDataset):
        super().__init__()
        self.dataset = dataset

    def process(self, data_batch: dict, data_samples: list[dict]) -> None:
        for sample, detections in zip(data_batch["samples"].tolist(), data_samples, strict=True):
            self.results.append(self.dataset.results(sample, detections))

    def compute_metrics(self, results: list[list[dict]]) -> dict[str, float]:
        return average_precision(self.dataset.view, list(itertools.chain.from_iterable(results)))


def average_precision(view: dict, results: list[dict]) -> dict[str, float]:
    """``{"ap", "ap50"}``: COCO's mean over categories and IoU 0.50 to 0.95, and at IoU 0.50."""
    ids = {image["file_name"]: image["id"] for image in view["images"]}
    truth = COCO(view)
    found = truth.loadRes(
        [
            {
                "image_id": ids[result["image_id"]],
                "category_id": LESIONS.index(result["label"]) + 1,
                "bbox": result["bbox"],
                "score": result["score"],
            }
            for result in results
        ]
    )
    evaluation = COCOeval_faster(truth, found, "bbox", print_function=logger.debug)
    evaluation.run()
    return {"ap": float(evaluation.stats[0]), "ap50": float(evaluation.stats[1])}


def prepare(inputs: dict[str, Path], settings: dict, workers: int) -> Setup:
    """Everything for the training of one detector.

    Args:
        inputs: paths ``images`` (index), ``train`` and ``val`` (views), ``packed_images``,
            ``packed_index`` and, for a pretrained start, ``pretrained``.
        settings: of the model and its training (config/README.md), and its seed.
        workers: processes that load batches; their number does not change the result.
    """
    samples = {name: _dataset(inputs, name) for name in ("train", "val")}
    pretrained = inputs.get("pretrained")
    if settings["assigner"] == "rfla":
        settings = settings | {"prior_sides": prior_sides(settings, pretrained)}
    seed, batch, micro = (settings[key] for key in ("seed", "batch_size", "micro_batch"))
    network = build_network(settings, pretrained)
    return Setup(
        model=Detector(network, BoxAugmentation(seed, len(samples["train"]), settings["augmentation"])),
        optimizer=_optimizer(network, settings),
        loaders=(
            training_loader(samples["train"], batch, micro, seed, workers),
            evaluation_loader(samples["val"], micro, workers),
        ),
        validation=DetectionValidation(samples["val"]),
        select_by=SELECT_BY,
        settings=settings,
        meta={"settings": settings, "categories": list(LESIONS)},
    )


@torch.inference_mode()
def predict(inputs: dict[str, Path], weights: Path, settings: dict, output: Path) -> None:
    """Predict the test split, one image at a time, and time it: writes predictions.json and timing.json.

    Args:
        inputs: paths ``images`` (index), ``test`` (view), ``packed_images`` and ``packed_index``.
        weights: a published weights.pth.
        settings: key ``warmup`` (untimed calls).
        output: folder of the two files.
    """
    device = torch.device(get_device())
    model, warmup = load_detector(weights).to(device), settings["warmup"]
    dataset = _dataset(inputs, "test")
    loader = evaluation_loader(dataset, 1, workers=0)
    batches = itertools.chain(itertools.islice(itertools.cycle(loader), warmup), loader)
    found: list[dict] = []
    # The test set itself is timed, because a detector's time depends on what it sees.
    times = timing.seconds_of_each(lambda batch: found.extend(infer(model, batch)), batches, device)[warmup:]
    results = [dataset.results(sample, each) for sample, each in enumerate(found[warmup:])]
    # On one line: there may be hundreds of thousands.
    write_text(
        output / "predictions.json", json.dumps(list(itertools.chain(*results)), allow_nan=False) + "\n"
    )
    write_json(output / "timing.json", timing.of_test_set(times, device, dataset.images.shape[1], warmup))


def load_detector(weights: Path) -> Detector:
    """The published detector, in evaluation mode."""
    loaded = load_weights(weights)
    network = load_network(lambda: build_network(loaded["meta"]["settings"]), loaded["state_dict"])
    return Detector(network).eval()


def infer(model: Detector, batch: dict) -> list[dict[str, torch.Tensor]]:
    """Detections of one loader batch, on the CPU."""
    detections = model(**model.data_preprocessor(batch))
    return [{name: tensor.cpu() for name, tensor in each.items()} for each in detections]


def _dataset(inputs: dict[str, Path], name: str) -> DetectionDataset:
    view = load_view(inputs[name])
    ids = [image["file_name"] for image in view["images"]]
    hashes = pd.read_csv(inputs["images"], dtype=str).set_index("image_id")["pixel_sha256"]
    if missing := sorted(set(ids) - set(hashes.index)):
        raise BusflowError(
            f"{inputs[name]} names {missing[0]}, which {inputs['images']} lacks; run the workflow again"
        )
    packed = PackedImages(inputs["packed_images"], inputs["packed_index"])
    return DetectionDataset(view, packed.images, packed.rows(hashes[ids]))


def _optimizer(network: torch.nn.Module, settings: dict) -> torch.optim.Optimizer:
    """AdamW or SGD with momentum, the backbone's learning rates scaled down."""
    sgd = settings["optimizer"] == "sgd"
    rate = training.learning_rate(settings, power=1 if sgd else 0.5)
    groups = training.parameter_groups(
        network,
        rate,
        settings["weight_decay"],
        lambda name: learning_rate_scale(name, settings["backbone_rate"], settings["layer_decay"]),
    )
    # Fused: one pass over the weights instead of ten; some of the networks have 200 million.
    if sgd:
        return torch.optim.SGD(groups, lr=rate, momentum=0.9, fused=True)
    return torch.optim.AdamW(groups, lr=rate, fused=True)
