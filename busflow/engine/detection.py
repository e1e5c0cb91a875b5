"""The detection task: what it trains on, how it is validated, and how it predicts."""

import itertools
import logging
from pathlib import Path

import pandas as pd
import torch
from faster_coco_eval import COCO, COCOeval_faster
from mmengine.device import get_device
from mmengine.evaluator import BaseMetric

from busflow.data.packing import PackedImages
from busflow.data.views import load_view
from busflow.engine import prediction, training
from busflow.engine.boxes import BoxAugmentation, DetectionDataset
from busflow.engine.checkpoints import load_weights
from busflow.engine.meta import read_meta
from busflow.engine.training import Setup
from busflow.errors import BusflowError
from busflow.labels import LESIONS
from busflow.models.backbones import learning_rate_scale
from busflow.models.detectors import Detector, build_network, layer_place, prior_sides, shaping
from busflow.models.weights import load_trained

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


def read(inputs: dict[str, Path], name: str) -> DetectionDataset:
    """The samples of a split; ``inputs`` as in ``busflow.tasks``.

    Raises:
        BusflowError: the view is of another index than the images.
    """
    view = load_view(inputs[name])
    ids = [image["file_name"] for image in view["images"]]
    hashes = pd.read_csv(inputs["images"], dtype=str).set_index("image_id")["pixel_sha256"]
    if missing := sorted(set(ids) - set(hashes.index)):
        raise BusflowError(
            f"{inputs[name]} names {missing[0]}, which {inputs['images']} lacks; run the workflow again"
        )
    packed = PackedImages(inputs["packed_images"], inputs["packed_index"])
    return DetectionDataset(view, packed.images, packed.rows(hashes[ids]))


def prepare(
    samples: DetectionDataset, validation: DetectionDataset, settings: dict, pretrained: Path | None = None
) -> Setup:
    """Everything for the training of one detector but its batches (see ``training.Engine``)."""
    if settings["assigner"] == "rfla":
        settings = settings | {"prior_sides": prior_sides(settings, pretrained)}
    network = build_network(settings, pretrained)
    augmentation = BoxAugmentation(settings["seed"], len(samples), settings["augmentation"])
    return Setup(
        model=Detector(network, augmentation),
        optimizer=training.optimizer(
            network,
            settings,
            learning_rate_scale(
                network, layer_place, settings["layer_decay"], backbone=settings["backbone_rate"]
            ),
        ),
        validation=DetectionValidation(validation),
        task="detection",
        classes=LESIONS,
        settings=settings,
    )


@torch.inference_mode()
def predict(inputs: dict[str, Path], weights: Path, settings: dict, output: Path) -> None:
    """Predict the test split, one image at a time, and time it: writes predictions.json and timing.json.

    Args:
        inputs: as in ``busflow.tasks``.
        weights: a published weights.pth.
        settings: key ``warmup`` (untimed calls).
        output: folder of the two files.
    """
    model, dataset = load(weights)[0].to(get_device()), read(inputs, "test")
    # The test set itself is timed, because a detector's time depends on what it sees.
    found = prediction.one_by_one(lambda batch: infer(model, batch)[0], dataset, settings["warmup"], output)
    results = [dataset.results(sample, detections) for sample, detections in enumerate(found)]
    prediction.write(output / "predictions.json", itertools.chain(*results))


def load(weights: Path) -> tuple[Detector, dict]:
    """The published detector, in evaluation mode, and what its file says of it (``read_meta``)."""
    loaded = load_weights(weights)
    meta = read_meta(weights, loaded["meta"], "detection", LESIONS, shaping)
    network = load_trained(lambda: build_network(meta["settings"]), loaded["state_dict"], weights)
    return Detector(network).eval(), meta


def infer(model: Detector, batch: dict) -> list[dict[str, torch.Tensor]]:
    """Detections of one loader batch, on the CPU."""
    detections = model(**model.data_preprocessor(batch))
    return [{name: tensor.cpu() for name, tensor in each.items()} for each in detections]
