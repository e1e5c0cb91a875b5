"""Whether 95 % intervals hold the truth in 95 % of studies, and tests reject in 5 % where nothing differs.

Simulated studies whose truth is known: test images in groups (videos) of one size or of different ones, each
harder or easier than others. Of every scenario the share of 500 studies whose interval holds the true value,
beside that of the percentile interval; of accuracy also of fewer groups, where no interval is given. Then the
share in which two equally good models are told apart at p < 0.05, beside McNemar's test, which takes images
for independent. Last, the seconds for the statistics of a study of the paper's size: 220 units, 3,541 test
images of 38 videos for detection.
"""

import argparse
import time
from collections.abc import Callable, Iterator

import numpy as np
import pandas as pd

from busflow.metrics.classification import of_matrices
from busflow.metrics.comparison import compare
from busflow.metrics.matching import Ranking, average_precision, rank
from busflow.metrics.ranking import ranked
from busflow.metrics.shares import mcnemar
from busflow.metrics.uncertainty import (
    DISTANCE,
    LEVEL,
    MIN_GROUPS,
    Estimate,
    mean,
    resampled,
    sums_of,
    weights,
)

GROUPS = (MIN_GROUPS, 38, 76)
FEW = (3, 5, 8)  # of which there is no interval: what there would be
SKEWS = {"equal": 0.0, "skewed": 0.8}  # standard deviations of the logarithm of the groups' sizes
IMAGES = 8  # of a group, on average
TRUE_PARTS, TRUE_GROUPS = 40, 200  # of the study that tells the truth


def sizes(rng: np.random.Generator, groups: int, skew: float) -> np.ndarray:
    """Images [G] of each group."""
    return np.maximum(1, rng.lognormal(np.log(IMAGES) - skew**2 / 2, skew, groups).round()).astype(int)


def hardness(rng: np.random.Generator, images: np.ndarray) -> np.ndarray:
    """What the images of a group have in common [N], standard normal."""
    return np.repeat(rng.normal(size=len(images)), images)


# Each makes one study: an estimate, of groups that `images` gives the sizes of.


def accuracy(rng: np.random.Generator, images: np.ndarray) -> Estimate:
    """Share of images that are right, about 0.9."""
    return of_matrices(_matrices(rng, images, 2.0))["accuracy"]


def macro_f1(rng: np.random.Generator, images: np.ndarray) -> Estimate:
    """Of three classes."""
    return of_matrices(_matrices(rng, images, 1.0))["macro_f1"]


def auroc(rng: np.random.Generator, images: np.ndarray) -> Estimate:
    """About half of the groups positive."""
    return _ranked(rng, images)["auroc"]


def classifier_ap(rng: np.random.Generator, images: np.ndarray) -> Estimate:
    return _ranked(rng, images)["average_precision"]


def sensitivity(rng: np.random.Generator, images: np.ndarray) -> Estimate:
    """At a specificity of 90 %."""
    return _ranked(rng, images)["sensitivity_at_90"]


def detector_ap(rng: np.random.Generator, images: np.ndarray) -> Estimate:
    return _averaged(_detected(rng, images))


def _detected(rng: np.random.Generator, images: np.ndarray, least: float = -0.5) -> Ranking:
    """A lesion an image, found or not; and two false positives of lower scores."""
    group = np.repeat(np.arange(len(images)), images)
    easy = hardness(rng, images)
    found = rng.normal(easy, 1) > least
    scores = np.concatenate([rng.normal(1.5 + easy[found] / 2, 1), rng.normal(0, 1, 2 * len(group))])
    groups = np.concatenate([group[found], np.tile(group, 2)])
    order = np.argsort(-scores, kind="stable")
    hits = np.flatnonzero(order < found.sum())
    return rank(hits, scores[order], groups[order], images)


def _averaged(ranking: Ranking) -> Estimate:
    lesions = ranking.lesions
    return Estimate(average_precision(ranking, weights(len(lesions))), lesions[:, None])


def dice(rng: np.random.Generator, images: np.ndarray) -> Estimate:
    """Mean over images, about 0.8."""
    values = 1 / (1 + np.exp(-rng.normal(1.8 + hardness(rng, images), 1)))
    return _mean_of(values, images)


def hd95(rng: np.random.Generator, images: np.ndarray) -> Estimate:
    """Mean over images of a distance."""
    return _mean_of(np.exp(rng.normal(2 + hardness(rng, images) / 2, 0.7)), images)._replace(bounds=DISTANCE)


def difference(rng: np.random.Generator, images: np.ndarray) -> Estimate:
    """Of the mean Dice of two models on the same images."""
    shared = hardness(rng, images)
    one, other = (
        1 / (1 + np.exp(-rng.normal(at + shared + hardness(rng, images) / 2, 1))) for at in (1.8, 1.4)
    )
    return _mean_of(one, images).minus(_mean_of(other, images))


def three_seeds(rng: np.random.Generator, images: np.ndarray) -> Estimate:
    """The mean accuracy of three classifiers that find the same groups hard."""
    shared = hardness(rng, images)
    return mean(_mean_of((rng.normal(1.8 + shared, 1) > 0).astype(float), images) for _ in range(3))


NUMBERS: dict[str, Callable] = {
    "accuracy": accuracy,
    "macro F1": macro_f1,
    "AUROC": auroc,
    "AP of a class": classifier_ap,
    "sensitivity at 90 % specificity": sensitivity,
    "AP of a detector": detector_ap,
    "mean Dice": dice,
    "mean HD95": hd95,
    "difference of two models": difference,
    "mean of three seeds": three_seeds,
}


def _matrices(rng: np.random.Generator, images: np.ndarray, skill: float) -> np.ndarray:
    """Confusion matrices [G, 3, 3]; the classes of groups at random, the third rarer."""
    label = rng.choice(3, len(images), p=[0.35, 0.35, 0.3])
    truth, group = np.repeat(label, images), np.repeat(np.arange(len(images)), images)
    right = rng.normal(skill + hardness(rng, images), 1) > 0
    guess = np.where(right, truth, (truth + rng.integers(1, 3, len(truth))) % 3)
    cells = np.zeros((len(truth), 3, 3))
    cells[np.arange(len(truth)), truth, guess] = 1
    return sums_of(cells, group)


def _ranked(rng: np.random.Generator, images: np.ndarray) -> dict[str, Estimate]:
    group = np.repeat(np.arange(len(images)), images)
    label = rng.integers(0, 2, len(images))
    positive = label[group] == 1
    scores = rng.normal(1.5 * positive + hardness(rng, images) / 2, 1)
    cases = np.column_stack([images * (label == k) for k in range(2)])
    found = ranked(positive, scores, group, weights(len(images)))
    return {name: Estimate(values, cases) for name, values in found.items()}


def _mean_of(values: np.ndarray, images: np.ndarray) -> Estimate:
    sums = sums_of(np.column_stack([values, np.ones(len(values))]), np.repeat(np.arange(len(images)), images))
    drawn = resampled(sums)
    return Estimate(drawn[:, 0] / drawn[:, 1], sums[:, 1:])


def truth_of(make: Callable, skew: float) -> float:
    """The number of a study so large that it hardly varies."""
    rng = np.random.default_rng(99)
    parts = [make(rng, sizes(rng, TRUE_GROUPS, skew)) for _ in range(TRUE_PARTS)]
    counted = [each.cases.sum() for each in parts]
    return float(np.average([each.value for each in parts], weights=counted))


def coverages(studies: int) -> Iterator[dict]:
    for name, make in NUMBERS.items():
        for scenario, skew in SKEWS.items():
            truth = truth_of(make, skew)
            for groups in (*FEW, *GROUPS) if make is accuracy else GROUPS:
                rng = np.random.default_rng(groups)
                held, naive = [], []
                for _ in range(studies):
                    estimate = make(rng, sizes(rng, groups, skew))
                    low, high = np.nanquantile(estimate.draws, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
                    naive.append(low <= truth <= high)
                    if interval := estimate.interval(*([2] if groups in FEW else [])):
                        held.append(interval[0] <= truth <= interval[1])
                if len(held) < studies / 2:  # too few groups of a class
                    continue
                yield {
                    "number": name,
                    "sizes": scenario,
                    "groups": groups,
                    "interval": np.mean(held),
                    "percentile": np.mean(naive),
                }


def levels(studies: int) -> Iterator[dict]:
    """Two models that find the same groups hard, and others besides, equally often right."""
    for scenario, skew in SKEWS.items():
        for groups in GROUPS:
            rng = np.random.default_rng(groups)
            told, naive = [], []
            for _ in range(studies):
                images = sizes(rng, groups, skew)
                shared = hardness(rng, images)
                right = [rng.normal(1.5 + shared + hardness(rng, images), 1) > 0 for _ in range(2)]
                pair = compare({str(k): _mean_of(each.astype(float), images) for k, each in enumerate(right)})
                told.append(pair["p"].iloc[0] < 0.05)
                naive.append(mcnemar(*right) < 0.05)
            yield {
                "sizes": scenario,
                "groups": groups,
                "permutation": np.mean(told),
                "McNemar": np.mean(naive),
            }


def seconds_of_a_study() -> dict[str, float]:
    """Seconds of CPU time for the resamples of one unit of each task, and for all pairs of eight models."""
    rng, videos = np.random.default_rng(0), np.full(38, 93)
    images = np.full(220, 12)
    spent = {}

    def clock(name: str, work: Callable) -> None:
        start = time.process_time()
        work()
        spent[name] = time.process_time() - start

    weights(38), weights(220)
    # Ten IoUs, at which fewer and fewer boxes hit, and two classes of half of the lesions; and the thirds by
    # size, which together are as many again.
    halves = np.full(38, 47)
    found = [_detected(rng, halves, least) for least in np.linspace(-0.5, 2.5, 10)]
    clock("detection", lambda: [_averaged(each) for each in found * 4])
    clock("classification", lambda: [_ranked(rng, images) for _ in range(3)] + [macro_f1(rng, images)])
    clock("segmentation", lambda: [dice(rng, np.full(120, 1)) for _ in range(40)])
    models = {str(k): detector_ap(rng, videos) for k in range(8)}
    clock("pairs", lambda: compare(models))
    return spent


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--studies", type=int, default=500, help="simulated studies of each scenario")
    studies = parser.parse_args().studies
    found = pd.DataFrame(coverages(studies))
    print(f"Share of {studies} studies whose 95 % interval holds the truth\n")
    print(found.to_markdown(index=False, floatfmt=".3f"))
    judged = found[found["groups"].isin(GROUPS)].groupby("number")["interval"].agg(["min", "mean", "max"])
    print(f"\nOver all scenarios of {MIN_GROUPS} groups or more\n\n{judged.to_markdown(floatfmt='.3f')}")
    tests = pd.DataFrame(levels(studies))
    print(f"\nShare of {studies} studies in which two equal models are told apart at p < 0.05\n")
    print(tests.to_markdown(index=False, floatfmt=".3f"))
    spent = seconds_of_a_study()
    # 22 models under two protocols with five seeds; pairs of three scores, six tasks and protocols.
    units = {"classification": 80, "detection": 70, "segmentation": 70, "pairs": 18}
    total = sum(number * spent[name] for name, number in units.items())
    print("\nSeconds of CPU time: " + ", ".join(f"{name} {value:.2f}" for name, value in spent.items()))
    print(f"All 220 units of the paper's study: {total:.0f} s on one core, {total / 2:.0f} s on two")


if __name__ == "__main__":
    main()
