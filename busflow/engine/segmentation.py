"""The segmentation task: what it trains on, how it is validated, and how it predicts."""

import itertools
import json
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from faster_coco_eval.core import mask as rle
from mmengine.device import get_device
from mmengine.evaluator import BaseMetric

from busflow.data.masks import CLASSES
from busflow.data.packing import PackedImages
from busflow.engine import timing, training
from busflow.engine.checkpoints import load_weights
from busflow.engine.datasets import accumulation_steps, evaluation_loader, split_images, training_loader
from busflow.engine.masks import IGNORED, MaskAugmentation, SegmentationDataset, read_masks, unletterbox
from busflow.engine.training import Setup
from busflow.errors import BusflowError
from busflow.files import write_json, write_text
from busflow.labels import LESIONS
from busflow.models.backbones import learning_rate_scale
from busflow.models.loading import load_network
from busflow.models.segmenters import Segmenter, build_network

SELECT_BY = "miou"


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


def prepare(inputs: dict[str, Path], settings: dict, workers: int) -> Setup:
    """Everything for the training of one segmenter.

    Args:
        inputs: paths ``images`` (index), ``split``, ``packed_images``, ``packed_index``, ``masks`` (folder)
            and, for a pretrained start, ``pretrained``.
        settings: of the model and its training (config/README.md), and its seed.
        workers: processes that load batches; their number does not change the result.
    """
    seed, batch, micro = (settings[key] for key in ("seed", "batch_size", "micro_batch"))
    if settings["segmenter"] == "upernet" and batch == accumulation_steps(batch, micro):
        raise BusflowError(
            f"a UPerNet normalises over the images on the device, and batch_size {batch} with micro_batch "
            f"{micro} puts one there at a time; make both at least 2, the first a multiple of the second"
        )
    samples = {name: _dataset(inputs, name, inputs["masks"])[0] for name in ("train", "val")}
    network = build_network(settings, inputs.get("pretrained"))
    return Setup(
        model=Segmenter(network, MaskAugmentation(seed, len(samples["train"]), settings["augmentation"])),
        optimizer=_optimizer(network, settings),
        loaders=(
            training_loader(samples["train"], batch, micro, seed, workers),
            evaluation_loader(samples["val"], micro, workers),
        ),
        validation=SegmentationValidation(),
        select_by=SELECT_BY,
        settings=settings,
        meta={"settings": settings, "classes": list(CLASSES)},
    )


@torch.inference_mode()
def predict(inputs: dict[str, Path], weights: Path, settings: dict, output: Path) -> None:
    """Predict the test split, one image at a time, and time it: writes predictions.json and timing.json.

    Args:
        inputs: paths ``images`` (index), ``split``, ``packed_images`` and ``packed_index``.
        weights: a published weights.pth.
        settings: key ``warmup`` (untimed calls).
        output: folder of the two files.
    """
    device = torch.device(get_device())
    model, warmup = load_segmenter(weights).to(device), settings["warmup"]
    dataset, table = _dataset(inputs, "test")
    sizes = table[["width", "height"]].astype(int).to_numpy()
    loader = evaluation_loader(dataset, 1, workers=0)
    batches = itertools.chain(itertools.islice(itertools.cycle(loader), warmup), loader)
    masks: list[np.ndarray] = []

    def predict_one(batch: dict) -> None:
        masks.append(infer(model, batch, *sizes[batch["samples"].item()]))

    times = timing.seconds_of_each(predict_one, batches, device)[warmup:]
    results = [
        outlines(image_id, mask) for image_id, mask in zip(table["image_id"], masks[warmup:], strict=True)
    ]
    # On one line, as all long lists of predictions.
    write_text(
        output / "predictions.json", json.dumps(list(itertools.chain(*results)), allow_nan=False) + "\n"
    )
    write_json(output / "timing.json", timing.of_test_set(times, device, dataset.images.shape[1], warmup))


def load_segmenter(weights: Path) -> Segmenter:
    """The published segmenter, in evaluation mode."""
    loaded = load_weights(weights)
    network = load_network(lambda: build_network(loaded["meta"]["settings"]), loaded["state_dict"])
    return Segmenter(network).eval()


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


def _dataset(
    inputs: dict[str, Path], name: str, masks: Path | None = None
) -> tuple[SegmentationDataset, pd.DataFrame]:
    """A split's images, with masks if their folder is given, and its table."""
    table = split_images(inputs["split"], inputs["images"], name, ["pixel_sha256", "width", "height"])
    packed = PackedImages(inputs["packed_images"], inputs["packed_index"])
    loaded = None if masks is None else read_masks(masks, table, packed.images.shape[1])
    rows = packed.rows(table["pixel_sha256"])
    return SegmentationDataset(packed.images, rows, table["image_id"].tolist(), loaded), table


def _optimizer(network: torch.nn.Module, settings: dict) -> torch.optim.Optimizer:
    """AdamW, the learning rates of the backbone's stages scaled down, those of the heads up."""
    rate = training.learning_rate(settings)
    groups = training.parameter_groups(
        network,
        rate,
        settings["weight_decay"],
        lambda name: learning_rate_scale(
            name, layer_decay=settings["layer_decay"], head=settings["head_rate"]
        ),
    )
    # Fused: one pass over the weights instead of ten; some of the networks have 80 million.
    return torch.optim.AdamW(groups, lr=rate, fused=True)
