"""How many lesions are found at how many false positives: free-response ROC, and the same by video.

Localisation alone: a lesion is found by a box of either class. The sensitivities are given at the seven
rates of false positives of LUNA16 (Setio et al. 2017, Med. Image Anal. 42), with an image for a scan; their
mean is the competition performance metric (Niemeijer et al. 2011, IEEE Trans. Med. Imaging 30(2)).
"""

import numpy as np
import pandas as pd

from busflow.labels import LESIONS
from busflow.metrics.detection_inputs import Truth
from busflow.metrics.matching import overlaps

IOU = 0.5
RATES = (0.125, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0)  # false positives per image
CURVE_RATES = 2.0 ** np.arange(-4, 4.01, 0.25)
SCORE = 0.3  # from which a box counts as shown; the figures draw such boxes


def froc(truth: Truth, detections: pd.DataFrame) -> dict:
    """Sensitivity against false positives per image, ready for JSON.

    * A lesion is found at a threshold when a box of at least that score has an IoU of 0.5 or more with it.
    * A false positive is a box without such a lesion; more boxes on one lesion are neither.
    * The sensitivity at rate r is that of the lowest threshold with at most r false positives per image,
      test images without a lesion included.
    * A video is found when at least one lesion in at least one of its frames is; videos without any lesion
      do not count.

    Values are null where there is no lesion.
    """
    pairs = overlaps(truth.boxes, detections, IOU)
    scores = detections["score"].to_numpy()
    is_false = np.ones(len(detections), bool)
    is_false[pairs["detection"]] = False
    found_at = np.full(len(truth.boxes), -np.inf)
    np.maximum.at(found_at, pairs["lesion"].to_numpy(), scores[pairs["detection"]])
    lesions = pd.DataFrame(
        {
            "video": truth.images["video"].to_numpy()[truth.boxes["image"]],
            "label": truth.boxes["label"],
            "found_at": found_at,
        }
    )
    videos = lesions.groupby(["video", "label"], as_index=False)["found_at"].max()
    false_scores = np.sort(scores[is_false])[::-1]

    def at(rates: np.ndarray | tuple) -> np.ndarray:
        return thresholds(false_scores, len(truth.images), rates)

    return {
        "iou": IOU,
        "score": SCORE,
        "rates": list(RATES),
        "false_positives_per_image": is_false.sum() / len(truth.images),
        "lesions": _block(lesions, at(RATES)),
        "videos": _block(videos, at(RATES)),
        "curve": {
            "rates": CURVE_RATES.tolist(),
            "lesions": _shares(lesions["found_at"], at(CURVE_RATES)),
            "videos": _shares(videos["found_at"], at(CURVE_RATES)),
        },
    }


def thresholds(false_scores: np.ndarray, n_images: int, rates: np.ndarray | tuple | float) -> np.ndarray:
    """The score that a box must exceed, per rate: that of the first false positive too many.

    Args:
        false_scores: those of the false positives [F], falling.
        n_images: test images.
        rates: false positives per image that are allowed.
    """
    allowed = np.floor(np.asarray(rates) * n_images).astype(int)
    return np.append(false_scores, -1.0)[np.minimum(allowed, len(false_scores))]


def _block(found: pd.DataFrame, thresholds: np.ndarray) -> dict:
    """Sensitivities of lesions or videos: at the rates, their mean, at the fixed score, and by class."""
    sensitivity = _shares(found["found_at"], thresholds)
    by_class = {label: found.loc[found["label"] == label, "found_at"] for label in LESIONS}
    return {
        "n": len(found),
        "sensitivity": sensitivity,
        "mean": float(np.mean(sensitivity)) if len(found) else None,
        "at_score": float((found["found_at"] >= SCORE).mean()) if len(found) else None,
        "per_class": {
            label: {"n": len(part), "sensitivity": _shares(part, thresholds)}
            for label, part in by_class.items()
        },
    }


def _shares(found_at: pd.Series, thresholds: np.ndarray) -> list[float | None]:
    """Share of the lesions or videos that are found above each threshold."""
    if found_at.empty:
        return [None] * len(thresholds)
    return [float((found_at > threshold).mean()) for threshold in thresholds]
