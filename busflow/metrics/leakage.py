"""How far a test set leaks into the training set, and how far the class is the scanner.

A random division of video frames leaves a sibling of every test frame in train; a classifier that only
looks up the most similar training image then scores far above what it would on new patients. The share
of such images, and the score of that very classifier, say how much of a result may be recognition. And where
each source has its own mix of classes, to tell the sources apart is to tell classes apart.
"""

import numpy as np
import pandas as pd
import sklearn
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import NearestNeighbors
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from busflow.data.packing import PackedImages
from busflow.data.thumbnails import WORKING_MEMORY_MIB, thumbnails
from busflow.errors import BusflowError
from busflow.metrics.ranking import ranked
from busflow.metrics.uncertainty import Estimate, mean_of, sums_of, weights

SHARES = ("exact_duplicate", "near_duplicate", "same_group")
PAIRS = 4  # of each source that are named
# Inverse strength of the penalty: with 1,000 and more numbers of an image the classes of a small study can
# always be separated.
PENALTY = 0.01


def measure_leakage(
    images: pd.DataFrame,
    duplicates: pd.DataFrame,
    split: pd.DataFrame,
    packed: PackedImages,
    features: np.ndarray | None = None,
) -> dict:
    """Measure what of the test set is already in the training set.

    Args:
        images: ``image_id, source, pixel_sha256`` of ``data/index/images.csv``.
        duplicates: ``image_a, image_b`` of ``data/index/duplicates.csv``.
        split: ``image_id, split, label, group``.
        packed: the packed array with all images of the split.
        features: of a frozen network, float [N, C], in the rows of that array; None: the study has none.

    Returns:
        The measures of the whole test set, and under ``sources`` of each source's part of it:

        * ``n_train, n_test, n_groups``: images, and groups of the test images; in ``sources``, of it alone;
        * ``exact_duplicate``, ``near_duplicate``, ``same_group``: share (0..1) of the test images of
          which train holds an image with equal pixels, one with equal pixels or a listed duplicate, one
          of the same group (frames of a video are not listed as each other's duplicates);
        * ``nearest_neighbour``: by what images are compared, ``pixels`` (correlation of 32 × 32 thumbnails)
          and ``features`` (their cosine): ``accuracy``, the share of test images whose label is that of the
          most similar training image of any source, and its 95 % ``interval`` over groups;
          ``nearest_neighbour_accuracy`` is that by pixels;
        * ``majority_accuracy``: the same for always answering the most frequent label in train;
        * ``source_auroc``, in ``sources``: how well a logistic regression, fitted to train by either
          comparison, tells this source's test images from the others': ``auroc`` and ``interval``;

        and of the whole test set alone:

        * ``class_from_source``: ``auroc`` of malignancy, and ``interval``, where an image's score is the
          share of malignant ones among the training images of its source;
        * ``pairs``: of each source the ``PAIRS`` test images, each of another group, that are most like a
          training image by pixels: ``test``, ``train``, ``source``, ``correlation``, ``same_group``.

        A share of nothing is None, and so is what one source, or one class, leaves undefined.

    Raises:
        BusflowError: the tables name an image that is not in the index or not in the packed array, or the
            features are those of another array.
    """
    named = pd.concat([split["image_id"], duplicates["image_a"], duplicates["image_b"]])
    unknown = named[~named.isin(images["image_id"])]
    if len(unknown):
        raise BusflowError(f"images.csv lacks {unknown.iloc[0]}, which the split or duplicates.csv names")
    if features is not None and len(features) != len(packed.images):
        raise BusflowError(
            f"features of {len(features)} images for {len(packed.images)} packed ones; extract them again"
        )
    table = split.merge(images[["image_id", "source", "pixel_sha256"]], on="image_id")
    train, test = (table[table["split"] == name].reset_index(drop=True) for name in ("train", "test"))
    _mark_relatives(train, test, images, duplicates)
    views = {"pixels": (thumbnails(packed, train["pixel_sha256"]), thumbnails(packed, test["pixel_sha256"]))}
    if features is not None:
        views["features"] = tuple(features[packed.rows(part["pixel_sha256"])] for part in (train, test))
    nearest = {view: _nearest(*arrays) for view, arrays in views.items()}
    for view, (found, _) in nearest.items():
        test[f"right.{view}"] = train["label"].to_numpy()[found] == test["label"] if len(train) else None
    recognised = {view: _recognised(train, test, *arrays) for view, arrays in views.items()}

    def of_source(source: str) -> dict:
        here = test["source"] == source
        by_view = {view: _auroc(here, scores.get(source), test) for view, scores in recognised.items()}
        return _summary(train[train["source"] == source], test, here) | {"source_auroc": by_view}

    return _summary(train, test, pd.Series(True, test.index)) | {
        "class_from_source": _auroc(test["label"] == "malignant", _malignant_shares(train, test), test),
        "pairs": _pairs(train, test, *nearest["pixels"]),
        "sources": {source: of_source(source) for source in sorted(table["source"].unique())},
    }


def _mark_relatives(
    train: pd.DataFrame, test: pd.DataFrame, images: pd.DataFrame, duplicates: pd.DataFrame
) -> None:
    """Give ``test`` its columns of ``SHARES`` (bool)."""
    pixels = images.set_index("image_id")["pixel_sha256"]
    first, second = (pixels[duplicates[side]].to_list() for side in ("image_a", "image_b"))
    near = pd.Series(first + second)[pd.Series(second + first).isin(train["pixel_sha256"])]
    test["exact_duplicate"] = test["pixel_sha256"].isin(train["pixel_sha256"])
    test["near_duplicate"] = test["exact_duplicate"] | test["pixel_sha256"].isin(near)
    test["same_group"] = test["group"].isin(train["group"])


def _nearest(train: np.ndarray, test: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Of each test image the place of the most similar training image, and their cosine; [n] each."""
    if not len(train) or not len(test):
        return np.zeros(len(test), int), np.full(len(test), np.nan)
    with sklearn.config_context(working_memory=WORKING_MEMORY_MIB):
        distances, found = NearestNeighbors(n_neighbors=1, metric="cosine").fit(train).kneighbors(test)
    return found[:, 0], 1 - distances[:, 0]


def _recognised(
    train: pd.DataFrame, test: pd.DataFrame, seen: np.ndarray, shown: np.ndarray
) -> dict[str, np.ndarray]:
    """Probability of each source for the test images [n], by source; none of one source."""
    if train["source"].nunique() < 2 or test.empty:
        return {}
    model = make_pipeline(StandardScaler(), LogisticRegression(C=PENALTY, max_iter=1000))
    probabilities = model.fit(seen, train["source"]).predict_proba(shown)
    return dict(zip(model.classes_, probabilities.T, strict=True))


def _malignant_shares(train: pd.DataFrame, test: pd.DataFrame) -> np.ndarray | None:
    """The score of each test image [n] that its source alone gives; None of one source."""
    if test["source"].nunique() < 2:
        return None
    shares = (train["label"] == "malignant").groupby(train["source"]).mean()
    return test["source"].map(shares).fillna(0).to_numpy()


def _auroc(positive: pd.Series, scores: np.ndarray | None, test: pd.DataFrame) -> dict:
    """``{"auroc", "interval"}``, both None where one of the two kinds, or the score, is missing."""
    if scores is None or positive.nunique() < 2:
        return {"auroc": None, "interval": None}
    positive, group = positive.to_numpy(), pd.factorize(test["group"], sort=True)[0]
    cases = sums_of(np.column_stack([positive, ~positive]), group)
    found = Estimate(ranked(positive, scores, group, weights(len(cases)))["auroc"], cases)
    return {"auroc": found.value, "interval": found.interval()}


def _pairs(train: pd.DataFrame, test: pd.DataFrame, found: np.ndarray, cosine: np.ndarray) -> list[dict]:
    if train.empty:
        return []
    other = train.iloc[found].reset_index(drop=True)
    table = pd.DataFrame(
        {
            "test": test["image_id"],
            "train": other["image_id"],
            "source": test["source"],
            "correlation": cosine.round(4),
            "same_group": test["group"] == other["group"],
            "group": test["group"],
        }
    ).sort_values(["source", "correlation", "test"], ascending=[True, False, True])
    chosen = table.drop_duplicates(["source", "group"]).groupby("source").head(PAIRS)
    return chosen.drop(columns="group").to_dict("records")


def _summary(train: pd.DataFrame, test: pd.DataFrame, here: pd.Series) -> dict:
    """Of the test images that are ``here``; resamples are of all groups."""
    part, views = test[here], [name for name in test if name.startswith("right.")]
    neighbours = {name.removeprefix("right."): _share(test[name], here, test["group"]) for name in views}
    majority = sorted(train["label"].mode())[:1]
    return {
        "n_train": len(train),
        "n_test": len(part),
        "n_groups": part["group"].nunique(),
        **{name: float(part[name].mean()) if len(part) else None for name in SHARES},
        "nearest_neighbour_accuracy": neighbours["pixels"]["accuracy"],
        "nearest_neighbour": neighbours,
        "majority_accuracy": float((part["label"] == majority[0]).mean()) if majority and len(part) else None,
    }


def _share(right: pd.Series, here: pd.Series, groups: pd.Series) -> dict:
    if not here.any() or right.isna().any():
        return {"accuracy": None, "interval": None}
    found = mean_of(right.astype(float).where(here), pd.factorize(groups, sort=True)[0])
    return {"accuracy": found.value, "interval": found.interval()}
