"""Every two models on the same images, and the ranks that this leaves open: the same for all tasks."""

import itertools
from collections.abc import Mapping

import numpy as np
import pandas as pd

from busflow.metrics.shares import holm, swapped
from busflow.metrics.uncertainty import Estimate

ALPHA = 0.05
COLUMNS = ["model", "other", "n_groups", "difference", "low", "high", "p", "p_holm"]


def compare(models: Mapping[str, Estimate]) -> pd.DataFrame:
    """A row for every two of the models, of which greater is better.

    Columns: ``model, other``; ``n_groups``; ``difference``, the first's number less the second's, with the
    ends of its interval, ``low, high`` (NaN of too few groups), of resamples in which both meet the same
    groups; ``p``, of the permutation test `swapped` of what each group contributes, and ``p_holm``,
    adjusted for all pairs. NaN where a number is undefined.
    """
    rows = []
    for (name, one), (other_name, other) in itertools.combinations(models.items(), 2):
        difference = one.minus(other)
        low, high = difference.interval() or (np.nan, np.nan)
        parts = one.contributions(), other.contributions()
        p = np.nan if np.isnan(parts).any() else swapped(*parts)
        rows.append([name, other_name, one.n_groups, difference.value, low, high, p])
    table = pd.DataFrame(rows, columns=COLUMNS[:-1])
    return table.assign(p_holm=adjusted(table["p"]))


def adjusted(p_values: pd.Series) -> np.ndarray:
    """Holm-adjusted p-values of the known ones."""
    values = p_values.to_numpy(float, copy=True)
    known = ~np.isnan(values)
    values[known] = holm(values[known])
    return values


def against_best(pairs: pd.DataFrame, values: pd.Series) -> pd.DataFrame:
    """How each model of ``values`` (by name) stands to the one with the greatest: rows of `compare` by model.

    Differences are the model's number less the best's. The best itself has no row.
    """
    best = values.idxmax()
    turned = pairs.rename(columns={"model": "other", "other": "model"}).assign(
        difference=-pairs["difference"], low=-pairs["high"], high=-pairs["low"]
    )
    both = pd.concat([pairs, turned])
    return both[both["other"] == best].set_index("model")


def rank_sets(pairs: pd.DataFrame, models: list[str]) -> pd.DataFrame:
    """The ranks that a model may have, by model: ``rank_low`` (the best) and ``rank_high``.

    One more than as many as are better than it, and as many as there are less those that are worse, where
    the test tells the two apart. As the tests are adjusted for all pairs, all sets hold the true ranks at
    once with 95 % confidence. Models with a common rank are not told apart from all between them. Source:
    Mogstad, Romano, Shaikh & Wilhelm 2024, Rev. Econ. Stud. 91(1).
    """
    told = pairs[pairs["p_holm"] < ALPHA]
    first = told["difference"] > 0
    winners = told["model"].where(first, told["other"]).value_counts()
    losers = told["other"].where(first, told["model"]).value_counts()
    return pd.DataFrame(
        {
            "rank_low": 1 + losers.reindex(models, fill_value=0),
            "rank_high": len(models) - winners.reindex(models, fill_value=0),
        },
        index=models,
    )
