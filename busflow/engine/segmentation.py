"""The segmentation task: what it trains on, how it is validated, and how it predicts."""

import itertools
from pathlib import Path

import numpy as np
import torch
from faster_coco_eval.core import mask as rle
from mmengine.device import get_device
from mmengine.evaluator import BaseMetric

from busflow.data.masks import CLASSES
from busflow.data.packing import PackedImages
from busflow.engine import prediction, training
from busflow.engine.checkpoints import load_weights
from busflow.engine.datasets import accumulation_steps, split_images
from busflow.engine.masks import IGNORED, MaskAugmentation, SegmentationDataset, read_masks, unletterbox
from busflow.engine.meta import read_meta
from busflow.engine.training import Setup
from busflow.errors import BusflowError
from busflow.labels import LESIONS
from busflow.models.backbones import learning_rate_scale
from busflow.models.segmenters import Segmenter, build_network, shaping, stage_place
from busflow.models.weights import load_trained


class SegmentationValidation(BaseMetric):
    """IoU of a validation pass, all its pixels together, in the packed images."""

    def process(self, data_batch: dict, data_samples: list[dict]) -> None:
        self.results.extend(
            confusion(each["mask"], each["logits"].argmax(dim=0)).cpu() for each in data_samples
        )

    def compute_metrics(self, results: list[torch.Tensor]) -> dict[str, float]:
        return scores(sum(results).double().numpy())


def confusion(truth: torch.Tensor, predicted: torch.Tensor) -> torch.Tensor:
    """Pixels by true (rows) and predicted class, int64 [3, 3]; those whose truth is 255 are left out."""
    counted = truth != IGNORED
    pairs = truth[counted] * len(CLASSES) + predicted[counted]
    return torch.bincount(pairs, minlength=len(CLASSES) ** 2).view(len(CLASSES), len(CLASSES))


def scores(counts: np.ndarray) -> dict[str, float]:
    """``{"miou", "lesion_iou"}`` of a confusion matrix [3, 3]; NaN where undefined.

    The first is the mean over the three classes, without those that are neither there nor predicted; the
    second that of lesions of either kind against the background.
    """
    lesion, any_lesion = counts[1:, 1:].sum(), counts.sum() - counts[0, 0]
    unions = counts.sum(axis=0) + counts.sum(axis=1) - counts.diagonal()
    return {
        "miou": float((counts.diagonal()[unions > 0] / unions[unions > 0]).mean()),
        "lesion_iou": float(lesion / any_lesion) if any_lesion else float("nan"),
    }


def read(inputs: dict[str, Path], name: str) -> SegmentationDataset:
    """The samples of a split, with masks if their folder is given; ``inputs`` as in ``busflow.tasks``."""
    table = split_images(inputs["split"], inputs["images"], name, ["pixel_sha256", "width", "height"])
    packed = PackedImages(inputs["packed_images"], inputs["packed_index"])
    masks = read_masks(inputs["masks"], table, packed.images.shape[1]) if "masks" in inputs else None
    return SegmentationDataset(
        packed.images,
        packed.rows(table["pixel_sha256"]),
        table["image_id"].tolist(),
        table[["width", "height"]].astype(int).to_numpy(),
        masks,
    )


def prepare(
    samples: SegmentationDataset,
    validation: SegmentationDataset,
    settings: dict,
    pretrained: Path | None = None,
) -> Setup:
    """Everything for the training of one segmenter but its batches (see ``training.Engine``)."""
    batch, micro = settings["batch_size"], settings["micro_batch"]
    if settings["segmenter"] == "upernet" and batch == accumulation_steps(batch, micro):
        raise BusflowError(
            f"a UPerNet normalises over the images on the device, and batch_size {batch} with micro_batch "
            f"{micro} puts one there at a time; make both at least 2, the first a multiple of the second"
        )
    network = build_network(settings, pretrained)
    augmentation = MaskAugmentation(settings["seed"], len(samples), settings["augmentation"])
    return Setup(
        model=Segmenter(network, augmentation),
        optimizer=training.optimizer(
            network,
            settings,
            learning_rate_scale(network, stage_place, settings["layer_decay"], head=settings["head_rate"]),
        ),
        validation=SegmentationValidation(),
        task="segmentation",
        classes=CLASSES,
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

    def mask_of(batch: dict) -> np.ndarray:
        return infer(model, batch, *dataset.sizes[batch["samples"].item()])

    masks = prediction.one_by_one(mask_of, dataset, settings["warmup"], output)
    results = [outlines(image_id, mask) for image_id, mask in zip(dataset.image_ids, masks, strict=True)]
    prediction.write(output / "predictions.json", itertools.chain(*results))


def load(weights: Path) -> tuple[Segmenter, dict]:
    """The published segmenter, in evaluation mode, and what its file says of it (``read_meta``)."""
    loaded = load_weights(weights)
    meta = read_meta(weights, loaded["meta"], "segmentation", CLASSES, shaping)
    network = load_trained(lambda: build_network(meta["settings"]), loaded["state_dict"], weights)
    return Segmenter(network).eval(), meta


def infer(model: Segmenter, batch: dict, width: int, height: int) -> np.ndarray:
    """Classes uint8 [height, width] of the one image of a loader batch, in pixels of the original image."""
    (logits,) = model(**model.data_preprocessor(batch))
    return unletterbox(logits, width, height).argmax(dim=0).byte().cpu().numpy()


def outlines(image_id: str, mask: np.ndarray) -> list[dict]:
    """Of each lesion label, ``{"image_id", "label", "segmentation"}``: COCO's compressed run lengths.

    A label that is nowhere in the mask [H, W] has runs too, so that no image is without a prediction.
    """
    encoded = [rle.encode(np.asfortranarray(mask == k, np.uint8)) for k in range(1, len(CLASSES))]
    return [
        {
            "image_id": image_id,
            "label": label,
            "segmentation": {"size": list(mask.shape), "counts": runs["counts"].decode("ascii")},
        }
        for label, runs in zip(LESIONS, encoded, strict=True)
    ]
