"""Segmenters on anyone's images: index masks, and run lengths in COCO's formats."""

import itertools
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from faster_coco_eval.core import mask as rle
from PIL import Image, PngImagePlugin

from busflow.data.masks import CLASSES
from busflow.engine.masks import unletterbox
from busflow.files import atomic
from busflow.inference.coco import write_coco
from busflow.inference.job import Job
from busflow.inference.overlays import Overlay
from busflow.inference.pictures import Opened, stem
from busflow.labels import LESIONS


class Found(NamedTuple):
    """Of one image: logits [K, S, S] of each member, of its packed form."""

    logits: list[torch.Tensor]


def infer(job: Job, opened: list[Opened]) -> list[Found]:
    """Logits of each image; ``finish``, in the background, makes masks of them."""
    every = []
    for member in job.members:
        batch = member.model.data_preprocessor({"images": member.images(opened)})
        every.append(member.model(**batch).cpu())
    return [Found(list(logits)) for logits in zip(*every, strict=True)]


def finish(job: Job, opened: Opened, found: Found) -> tuple[dict, list[dict], Overlay]:
    """Columns of the summary, the image's COCO results, and what an overlay shows; writes the mask."""
    height, width = opened.grey.shape
    logits = [unletterbox(each, width, height) for each in found.logits]
    masks = [_mask(each, job.threshold) for each in logits]
    mean = sum(logits) / len(logits)
    mask = _mask(mean, job.threshold) if len(masks) > 1 else masks[0]
    _write_mask(job.output / "masks" / f"{stem(opened.name)}.png", mask, job.notice)
    results = [_result(k, mask == k, mean) for k in range(1, len(CLASSES)) if (mask == k).any()]
    areas = {f"{CLASSES[k]}_pixels": int((mask == k).sum()) for k in range(1, len(CLASSES))}
    largest = max(LESIONS, key=lambda label: areas[f"{label}_pixels"])
    row = {"prediction": largest if mask.any() else "no lesion", **areas}
    row["lesion_share"] = round(float((mask > 0).mean()), 6)
    if len(job.members) > 1:
        row["disagreement"] = round(_disagreement(masks), 6)
    return row, results, Overlay([(None if not mask.any() else largest, row["prediction"])], mask=mask)


def _mask(logits: torch.Tensor, threshold: float | None) -> np.ndarray:
    """Classes uint8 [H, W]: the most probable, or from a probability of lesion on the likelier of the two."""
    if threshold is None:
        return logits.argmax(dim=0).byte().numpy()
    lesion = 1 - logits.softmax(dim=0)[0] >= threshold
    return torch.where(lesion, logits[1:].argmax(dim=0) + 1, 0).byte().numpy()


def _disagreement(masks: list[np.ndarray]) -> float:
    """One less the smallest Dice of two members' lesions of either kind; 0 where neither sees any."""
    pairs = itertools.combinations([mask > 0 for mask in masks], 2)
    shares = [2 * (a & b).sum() / total if (total := a.sum() + b.sum()) else 1 for a, b in pairs]
    return float(1 - min(shares, default=1))


def _result(k: int, area: np.ndarray, logits: torch.Tensor) -> dict:
    """COCO's result of a class; its score is the mean probability of the class in its pixels."""
    runs = rle.encode(np.asfortranarray(area, np.uint8))
    score = logits[:, torch.from_numpy(area)].softmax(dim=0)[k].mean()
    return {
        "category_id": k,
        "segmentation": {"size": list(area.shape), "counts": runs["counts"].decode("ascii")},
        "score": round(float(score), 6),
    }


def _write_mask(path: Path, mask: np.ndarray, notice: str) -> None:
    """As PNG of grey levels 0 background, 1 benign, 2 malignant."""
    words = PngImagePlugin.PngInfo()
    words.add_itxt("Comment", notice)
    with atomic(path) as temporary:
        Image.fromarray(mask).save(temporary, pnginfo=words)


write = write_coco
