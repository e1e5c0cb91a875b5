"""COCO's formats: a file of images, and one of results that refer to it."""

import pandas as pd

from busflow.engine.prediction import write
from busflow.files import write_json
from busflow.inference.job import Job
from busflow.labels import LESIONS


def write_coco(job: Job, images: pd.DataFrame, results: list[dict]) -> None:
    """Write images.json, which ``COCO`` takes, and predictions.json, which its ``loadRes`` takes.

    Args:
        job: at hand.
        images: ``image, width, height``, one row an image; their ids are their positions, from 1.
        results: each with ``image`` and what COCO wants of its kind.
    """
    ids = {name: k for k, name in enumerate(images["image"], 1)}
    described = [
        {"id": ids[each.image], "file_name": each.image, "width": each.width, "height": each.height}
        for each in images.itertuples()
    ]
    categories = [{"id": k, "name": label} for k, label in enumerate(LESIONS, 1)]
    content = {"info": {"description": job.notice}, "images": described, "categories": categories}
    write_json(job.output / "images.json", content | {"annotations": []})
    write(
        job.output / "predictions.json",
        ({"image_id": ids[each.pop("image")], **each, "notice": job.notice} for each in results),
    )
