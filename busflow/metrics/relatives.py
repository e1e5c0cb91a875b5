"""Test images with a relative in training and without one: what a leak of the split does to the scores."""

import numpy as np
import pandas as pd


def relatives(split: pd.DataFrame, groups: pd.Series) -> dict[str, np.ndarray]:
    """Which test images, of these groups [N], have a relative in training: bool [N] ``with``, ``without``.

    A relative is an image of the same group (patient, video, near copies) in the part ``train`` of the split.
    A group is on one of the two sides with all its test images.

    Nothing where the split has no training image, as that of an external source or of folds taken together:
    it does not say who was trained on.
    """
    trained = split.loc[split["split"] == "train", "group"]
    if trained.empty:
        return {}
    related = groups.isin(trained).to_numpy()
    return {"with": related, "without": ~related}
