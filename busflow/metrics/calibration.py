"""One temperature that calibrates a classifier, and thresholds of its probability of malignancy: numpy alone.

A training fits them on its validation images; whoever reads its predictions applies them.
"""

import math

import numpy as np

BOUNDS = (1 / 20, 20.0)  # of temperatures
TARGETS = {"0.90": 0.90, "0.95": 0.95}  # shares of the malignant validation images, by name


def fit(logits: np.ndarray, labels: np.ndarray) -> float:
    """The temperature T that minimises the negative log-likelihood of softmax(logits / T).

    Source: Guo et al., ICML 2017, section 4.2. There is one minimum, as the negative log-likelihood is
    convex in 1 / T; where every image is right there is none, and T ends at the lower bound.

    Args:
        logits: [N, K], or log-probabilities, which are logits too.
        labels: class numbers [N], 0 to K - 1.

    Returns:
        T, from 1/20 to 20; above 1 where the network is too sure of itself.
    """
    # Imported here: a training needs it once, at its end.
    from scipy.optimize import minimize_scalar

    found = minimize_scalar(
        lambda log_t: nll(logits, labels, math.exp(log_t)),
        bounds=tuple(map(math.log, BOUNDS)),
        method="bounded",
        options={"xatol": 1e-8},
    )
    return math.exp(found.x)


def nll(logits: np.ndarray, labels: np.ndarray, temperature: float = 1.0) -> float:
    """Mean negative log-likelihood, in nats, of the labels [N] under softmax(logits [N, K] / temperature)."""
    from scipy.special import log_softmax

    chosen = log_softmax(np.asarray(logits, float) / temperature, axis=1)[np.arange(len(labels)), labels]
    return float(-chosen.mean())


def calibrated(probabilities: np.ndarray, temperature: float) -> np.ndarray:
    """Probabilities [N, K] at a temperature: softmax(log p / T), where a p of 0 stays 0.

    The order of the classes of an image stays, and with it the most probable one; rows sum to 1.
    """
    probabilities = np.asarray(probabilities, float)
    # Shares of the greatest of each row, so that no power of all of them is 0.
    powers = (probabilities / probabilities.max(axis=1, keepdims=True)) ** (1 / temperature)
    return powers / powers.sum(axis=1, keepdims=True)


def thresholds(scores: np.ndarray, malignant: np.ndarray) -> dict[str, float | None]:
    """The greatest threshold that, for each of ``TARGETS``, so many of the malignant images are at or above.

    Args:
        scores: [N], calibrated probabilities of malignancy.
        malignant: [N] (bool).

    Returns:
        By target one of the scores; None without a malignant image.
    """
    ranked = np.sort(np.asarray(scores)[malignant])[::-1]
    if not len(ranked):
        return dict.fromkeys(TARGETS)
    reached = np.arange(1, len(ranked) + 1) / len(ranked)
    return {name: float(ranked[np.argmax(reached >= target)]) for name, target in TARGETS.items()}


def is_calibration(value: object) -> bool:
    """Whether a value is the calibration that a training records; the file that holds it may be any."""
    return (
        isinstance(value, dict)
        and value.keys() == {"temperature", "n", "n_malignant", "nll", "thresholds"}
        and _is_number(value["temperature"])
        and value["temperature"] > 0
        and all(type(value[name]) is int for name in ("n", "n_malignant"))
        and 0 <= value["n_malignant"] <= value["n"]
        and isinstance(value["nll"], dict)
        and value["nll"].keys() == {"before", "after"}
        and all(map(_is_number, value["nll"].values()))
        and isinstance(value["thresholds"], dict)
        and value["thresholds"].keys() == TARGETS.keys()
        and all(each is None or (_is_number(each) and each <= 1) for each in value["thresholds"].values())
    )


def _is_number(value: object) -> bool:
    """A finite number from 0."""
    return type(value) in (int, float) and math.isfinite(value) and value >= 0
