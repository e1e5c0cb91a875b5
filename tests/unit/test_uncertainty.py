"""Intervals and tests against closed forms, brute force and scipy."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from busflow.metrics.shares import holm, mcnemar, swapped, wilson
from busflow.metrics.uncertainty import cluster_bootstrap


def share(counts: np.ndarray) -> dict[str, np.ndarray]:
    """Hits over images, of counts [R, 2]."""
    return {"share": counts[:, 0] / counts[:, 1]}


def test_wilson_is_the_closed_form():
    hits, n, z = 2483, 2646, stats.norm.ppf(0.975)
    p = hits / n
    centre = (p + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * math.sqrt(p * (1 - p) / n + z**2 / (4 * n**2))
    assert wilson(hits, n) == pytest.approx([centre - half, centre + half])
    assert wilson(hits, n) == pytest.approx([0.9286, 0.9469], abs=1e-4)  # of the paper's best model


def test_bootstrap_is_that_of_a_loop_over_the_same_draws():
    groups = np.array([[3, 5], [0, 2], [4, 4], [1, 9], [2, 2]])
    draws = np.random.default_rng(0).multinomial(5, [0.2] * 5, size=1000)
    values = []
    for draw in draws:
        resample = [groups[g] for g in range(5) for _ in range(draw[g])]
        values.append(sum(r[0] for r in resample) / sum(r[1] for r in resample))
    expected = np.percentile(values, [2.5, 97.5])
    assert cluster_bootstrap(groups, share)["share"] == pytest.approx(expected.tolist())


def test_bootstrap_of_single_images_agrees_with_scipy():
    right = np.random.default_rng(5).random(400) < 0.8
    groups = np.stack([right, np.ones(400)], axis=1)
    expected = stats.bootstrap(
        (right,), np.mean, method="percentile", n_resamples=1000, rng=1
    ).confidence_interval
    assert cluster_bootstrap(groups, share)["share"] == pytest.approx(list(expected), abs=0.01)


def test_repeating_each_image_in_its_group_does_not_narrow_the_interval():
    right = np.random.default_rng(6).random(60) < 0.7
    single = np.stack([right, np.ones(60)], axis=1)
    assert cluster_bootstrap(25 * single, share) == cluster_bootstrap(single, share)


def test_one_group_has_no_interval():
    assert cluster_bootstrap(np.array([[3, 4]]), share) == {"share": None}


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=40))
def test_mcnemar_is_the_two_sided_binomial_sum(pairs):
    a, b = np.array(pairs).T
    only_a, only_b = int((a & ~b).sum()), int((b & ~a).sum())
    n = only_a + only_b
    tail = sum(math.comb(n, k) for k in range(min(only_a, only_b) + 1)) / 2**n
    assert mcnemar(a, b) == pytest.approx(min(1.0, 2 * tail))
    assert mcnemar(b, a) == pytest.approx(mcnemar(a, b))


def test_two_images_more_of_2646_can_at_best_give_half():
    images = np.arange(2646)
    assert mcnemar(images < 2483, images < 2481) == pytest.approx(0.5)


@given(st.lists(st.integers(-9, 9), min_size=2, max_size=9))
def test_models_are_swapped_in_every_way_over_few_groups(differences):
    d = np.array(differences, float)
    every = [np.sum(d * signs) for signs in itertools.product([1, -1], repeat=len(d))]
    expected = np.mean(np.abs(every) >= abs(d.sum()) - 1e-9)
    assert swapped(d + 3, np.full(len(d), 3.0)) == pytest.approx(min(1, expected))
    assert swapped(np.full(len(d), 3.0), d + 3) == pytest.approx(min(1, expected))


def test_five_groups_tell_no_two_models_apart_whatever_they_hold():
    assert swapped(np.full(5, 100), np.zeros(5)) == pytest.approx(2 / 2**5)


def test_clusters_of_many_frames_are_no_evidence_when_two_models_are_alike():
    rng = np.random.default_rng(0)
    p_values = {"groups": [], "frames": []}
    for _ in range(150):
        easy = rng.beta(1, 1, (2, 20))  # of each model in each of 20 videos of 135 frames
        right = rng.random((2, 20, 135)) < easy[..., None]
        p_values["groups"].append(swapped(*right.sum(axis=2)))
        p_values["frames"].append(mcnemar(*right.reshape(2, -1)))
    rejected = {name: np.mean(np.array(each) < 0.05) for name, each in p_values.items()}
    assert rejected["groups"] < 0.1 and rejected["frames"] > 0.5


def test_holm_on_a_worked_example():
    assert holm(np.array([0.01, 0.04, 0.03, 0.005])) == pytest.approx([0.03, 0.06, 0.06, 0.02])


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_holm_lies_between_raw_and_bonferroni_and_keeps_the_order(p_values):
    p = np.array(p_values)
    adjusted = holm(p)
    assert (adjusted >= p).all()
    assert (adjusted <= np.minimum(1, len(p) * p) + 1e-12).all()
    assert (np.diff(adjusted[np.argsort(p, kind="stable")]) >= 0).all()


def test_holm_of_no_tests_is_empty():
    assert holm(np.array([])).shape == (0,)
