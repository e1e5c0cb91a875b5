"""Ranks of weighted images against scikit-learn on images that are copied."""

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score, roc_curve

from busflow.metrics.ranking import SPECIFICITIES, ranked


@pytest.fixture
def images():
    """Sixty images of eight groups, many scores equal."""
    rng = np.random.default_rng(0)
    positive = rng.random(60) < 0.4
    return positive, (rng.normal(positive, 1)).round(1), rng.integers(0, 8, 60)


@pytest.mark.parametrize("times", [(1,) * 8, (2, 0, 1, 3, 0, 1, 1, 4), (0, 5, 0, 1, 0, 0, 2, 0)])
def test_weights_give_what_scikit_learn_gives_of_images_copied_so_often(images, times):
    found = {name: values[0] for name, values in ranked(*images, np.array([times], float)).items()}
    copies = np.array(times)[images[2]]
    truth, scores = (np.repeat(each, copies) for each in images[:2])
    assert found["auroc"] == pytest.approx(roc_auc_score(truth, scores))
    assert found["average_precision"] == pytest.approx(average_precision_score(truth, scores), abs=1e-6)
    false, true, _ = roc_curve(truth, scores, drop_intermediate=False)
    for name, specificity in SPECIFICITIES.items():
        assert found[f"sensitivity_at_{name}"] == pytest.approx(true[1 - false >= specificity - 1e-9].max())


def test_without_a_positive_or_a_negative_image_nothing_is_defined(images):
    positive, scores, groups = images
    weights = np.ones((3, 8))
    for labels in (np.zeros_like(positive), np.ones_like(positive)):
        assert all(np.isnan(values).all() for values in ranked(labels, scores, groups, weights).values())
