"""Which fold tests each image: whole groups, classes and sources balanced, official folds where there are."""

import logging
import re
import warnings

import pandas as pd

from busflow.errors import BusflowError

NUMBER = re.compile(r"(?:fold[ _-]?)?(\d+)", re.IGNORECASE)

logger = logging.getLogger(__name__)


def assign_folds(table: pd.DataFrame, of: int, seed: int) -> pd.Series:
    """The fold of each image, int 1 ... ``of``; the same whichever fold is asked for.

    A source whose ``upstream_split`` numbers just so many folds (``1`` or ``fold1``, from 0 or 1) keeps
    them. A group that they would divide goes whole to the fold of most of its images (the first of
    several). All other groups are divided by scikit-learn's StratifiedGroupKFold.

    Args:
        table: ``source, label, group, upstream_split``, sorted by image_id.
        of: number of folds, 2 or more.
        seed: of the shuffle.

    Raises:
        BusflowError: fewer groups than folds.
    """
    from sklearn.model_selection import StratifiedGroupKFold  # a second, which other splits need not wait

    if table["group"].nunique() < of:
        raise BusflowError(
            f"{table['group'].nunique()} independent groups cannot make {of} folds: "
            "ask for fewer, or add images"
        )
    official = official_folds(table, of)
    of_group = official.dropna().groupby(table["group"]).agg(lambda numbers: numbers.mode()[0])
    fold = table["group"].map(of_group)
    moved = official.notna() & (fold != official)
    if moved.any():
        logger.warning("%d images leave their official fold to stay with their group", moved.sum())
    rest = table[fold.isna()]
    if len(rest):
        strata = rest["label"] + " of " + rest["source"]
        splitter = StratifiedGroupKFold(of, shuffle=True, random_state=seed)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", UserWarning)  # of a stratum with fewer groups than folds
                parts = [tested for _, tested in splitter.split(rest, strata, rest["group"])]
        except ValueError as error:
            raise BusflowError(f"{len(rest)} images cannot be divided into {of} folds: {error}") from error
        for number, tested in enumerate(parts, start=1):
            fold[rest.index[tested]] = number
    return fold.astype(int)


def official_folds(table: pd.DataFrame, of: int) -> pd.Series:
    """The fold (1 ... ``of``) that upstream gave each image; NaN in sources without just so many."""
    numbers = table["upstream_split"].str.extract(f"^{NUMBER.pattern}$", NUMBER.flags)[0].astype(float)
    found = pd.Series(float("nan"), table.index)
    for source, part in numbers.groupby(table["source"]):
        first = part.min()
        if part.notna().all() and first in (0, 1) and set(part) == {first + k for k in range(of)}:
            found[part.index] = part - first + 1
        elif part.notna().any():
            logger.warning("%s has other official folds than %d: they are not followed", source, of)
    return found
