"""How long the scoring of a segmenter takes, as a ratio to arrays: every mask decoded, image by image.

Synthetic masks of about the size of the BUSI test set. Both sides begin with the same run-length codes and
give the same confusion matrix, Dice, IoU and HD95 of every image, which is asserted; in this process, one
after the other, in seconds of CPU time. Once with HD95, most of the work, and once without.
"""

import argparse
import json
import statistics
import time

import numpy as np
import pandas as pd
from faster_coco_eval.core import mask as rle
from scipy.ndimage import binary_erosion, distance_transform_edt

from busflow.data.masks import CLASSES
from busflow.labels import LABELS, LESIONS
from busflow.metrics.segmentation import confusions, overlap, surface_distances, two_classes

SHARES = (0.56, 0.27, 0.17)  # of benign, malignant and normal images in BUSI


def make_masks(images: int) -> tuple[pd.DataFrame, dict[str, list[dict]]]:
    """Elliptic lesions, and predictions that lie beside them, some with a part of the other class."""
    rng = np.random.default_rng(0)
    rows, predicted = [], {label: [] for label in LESIONS}
    for i in range(images):
        shape = rng.integers((310, 300), (720, 1050))
        down, across = np.mgrid[: shape[0], : shape[1]]
        centre, radii = rng.uniform(0.3, 0.7, 2) * shape, rng.uniform(0.05, 0.25, 2) * shape

        def ellipse(shift, down=down, across=across, centre=centre, radii=radii):
            y, x = centre + shift
            return ((down - y) / radii[0]) ** 2 + ((across - x) / radii[1]) ** 2 < 1

        label = rng.choice(LABELS, p=SHARES)
        lesion = ellipse(0) & (label in LESIONS)
        found, other = ellipse(rng.normal(0, 12, 2)), ellipse(rng.normal(0, 40, 2))
        parts = [found & ~other, found & other] if rng.random() < 0.2 else [found, np.zeros_like(found)]
        for each, part in zip(rng.permutation(LESIONS), parts, strict=True):
            predicted[each].append(rle.encode(part.astype(np.uint8)))
        code = rle.encode(lesion.astype(np.uint8))
        rows.append((f"busi/{i}", label, code, lesion.size, np.count_nonzero(lesion)))
    return pd.DataFrame(rows, columns=["image_id", "label", "rle", "n_pixels", "area"]), predicted


def by_runs(truth: pd.DataFrame, masks: dict[str, list[dict]], distances: bool) -> dict[str, np.ndarray]:
    """As the workflow does it."""
    matrices = confusions(truth, masks)
    scores = overlap(two_classes(matrices))
    result = {"matrices": matrices, "dice": scores["dice"][:, 1], "iou": scores["iou"][:, 1]}
    return result | ({"hd95": surface_distances(truth, masks)} if distances else {})


def by_arrays(truth: pd.DataFrame, masks: dict[str, list[dict]], distances: bool) -> dict[str, np.ndarray]:
    """The same from whole frames."""
    result = {name: [] for name in ("matrices", "dice", "iou", *(["hd95"] if distances else []))}
    for i, image in enumerate(truth.itertuples()):
        lesion = rle.decode(image.rle).astype(bool)
        benign, malignant = (rle.decode(masks[label][i]) for label in LESIONS)
        predicted = benign + 2 * malignant
        true = lesion * np.uint8(CLASSES.index(image.label) if lesion.any() else 0)
        found = predicted > 0
        both, either = np.count_nonzero(lesion & found), np.count_nonzero(lesion | found)
        result["matrices"].append(np.bincount((3 * true + predicted).ravel(), minlength=9).reshape(3, 3))
        result["dice"].append(2 * both / (both + either) if either else np.nan)
        result["iou"].append(both / either if either else np.nan)
        if distances:
            result["hd95"].append(hd95(lesion, found) if lesion.any() and found.any() else np.nan)
    return {name: np.array(values) for name, values in result.items()}


def hd95(a: np.ndarray, b: np.ndarray) -> float:
    edges = [mask & ~binary_erosion(mask) for mask in (a, b)]
    away = [distance_transform_edt(~edge) for edge in edges]
    return max(np.percentile(away[0][edges[1]], 95), np.percentile(away[1][edges[0]], 95))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=156)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    masks = make_masks(arguments.images)
    report = {"images": arguments.images}
    for name, distances in {"without_hd95": False, "with_hd95": True}.items():
        seconds = {"arrays": [], "runs": []}
        for _ in range(arguments.rounds):
            results = []
            for side, call in {"arrays": by_arrays, "runs": by_runs}.items():
                start = time.process_time()
                results.append(call(*masks, distances))
                seconds[side].append(time.process_time() - start)
        for key, values in results[0].items():
            np.testing.assert_allclose(results[1][key], values, rtol=0, atol=1e-9, err_msg=key)
        median = {side: statistics.median(values) for side, values in seconds.items()}
        report[name] = {
            "cpu_seconds": {side: round(value, 3) for side, value in median.items()},
            "ratio": round(median["runs"] / median["arrays"], 3),
        }
    print(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
