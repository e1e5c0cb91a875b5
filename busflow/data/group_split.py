"""The choice of whole groups for one side of a split, as near as can be to its size and class balance."""

import numpy as np
import pandas as pd

from busflow.errors import BusflowError

SHUFFLES = 200
TARGETS = (1, 1.25, 1.5, 2)


def hold_out_groups(
    images: pd.DataFrame, wanted: np.ndarray, leave: int, tolerance: float, seed: int
) -> np.ndarray:
    """Choose the groups of one split: in ``SHUFFLES`` random orders, take each group that helps.

    A group helps if it has a class that the split lacks, or brings the split nearer to its target, which
    is what is wanted, or up to twice that: large groups may balance only if there are more of them. Of
    the balanced outcomes, the one nearest to what is wanted wins. (Folds of scikit-learn's
    StratifiedGroupKFold are no nearer, and may lack a class that has a handful of groups.)

    Args:
        images: how many images of each stratum, a class of a source (columns), each group has (rows).
        wanted: float [strata], images wanted; distance is the sum of absolute differences to it.
        leave: groups of every class that must not be taken.
        tolerance: see ``excess_imbalance``.

    Returns:
        bool [groups], the groups taken.

    Raises:
        BusflowError: groups of several classes allow no division.
    """
    label_of_stratum = pd.get_dummies(images.columns.get_level_values("label")).to_numpy(int)
    balance = wanted @ label_of_stratum / wanted.sum()
    images = images.to_numpy()
    has = images @ label_of_stratum > 0
    best, lowest = None, (np.inf, np.inf)
    for shuffle in range(SHUFFLES):
        missing = wanted * TARGETS[shuffle % len(TARGETS)]
        taken, covered = np.zeros(len(images), bool), np.zeros(len(balance), bool)
        spare = has.sum(axis=0) - leave
        for group in np.random.default_rng([seed, shuffle]).permutation(len(images)):
            nearer = np.abs(missing - images[group]).sum() < np.abs(missing).sum()
            if (nearer or (has[group] & ~covered).any()) and (spare[has[group]] > 0).all():
                taken[group] = True
                missing, covered, spare = missing - images[group], covered | has[group], spare - has[group]
        held = images[taken].sum(axis=0)
        cost = (excess_imbalance(held @ label_of_stratum, balance, tolerance), np.abs(wanted - held).sum())
        if covered.all() and cost < lowest:
            best, lowest = taken, cost
    if best is None:
        raise BusflowError(
            "protocol grouped finds no division with every class on every side: "
            f"too few of the {len(images)} groups hold one class only"
        )
    return best


def excess_imbalance(counts: np.ndarray, balance: np.ndarray, tolerance: float) -> float:
    """By how many images the worst class is off balance beyond what is allowed, or 0.

    Allowed is ``tolerance`` of the split, and always one image: a small split cannot do better.
    ``counts`` and ``balance`` (shares in the whole) are [classes].
    """
    size = counts.sum()
    return max(0.0, np.abs(counts - size * balance).max() - max(tolerance * size, 1))
