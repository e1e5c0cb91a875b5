"""Intervals and tests against closed forms, brute force and scipy."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import special, stats

from busflow.metrics.ranking import ranked
from busflow.metrics.shares import holm, mcnemar, swapped, wilson
from busflow.metrics.uncertainty import (
    DISTANCE,
    MIN_GROUPS,
    Estimate,
    apart,
    mean,
    resampled,
    weights,
)


def share(groups) -> Estimate:
    """Hits over images, of rows (hits, images)."""
    groups = np.asarray(groups, float)
    drawn = resampled(groups)
    with np.errstate(invalid="ignore"):
        return Estimate(drawn[:, 0] / drawn[:, 1], groups[:, 1:])


def beta_binomial(rng, groups: int, mean: float = 0.8, size: int = 20) -> np.ndarray:
    """Hits and images of groups that differ in how hard they are."""
    images = np.full(groups, size)
    return np.column_stack([rng.binomial(images, rng.beta(3 * mean, 3 * (1 - mean), groups)), images])


def test_wilson_is_the_closed_form():
    hits, n, z = 2483, 2646, stats.norm.ppf(0.975)
    p = hits / n
    centre = (p + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * math.sqrt(p * (1 - p) / n + z**2 / (4 * n**2))
    assert wilson(hits, n) == pytest.approx([centre - half, centre + half])
    assert wilson(hits, n) == pytest.approx([0.9286, 0.9469], abs=1e-4)  # of the paper's best model


def test_resamples_are_those_of_a_loop_over_the_same_draws():
    groups = np.array([[3, 5], [0, 2], [4, 4], [1, 9], [2, 2]])
    found = share(groups)
    draws = np.random.default_rng(0).multinomial(5, [0.2] * 5, size=2000)
    for draw, value in zip(draws[:50], found.draws, strict=False):
        resample = [groups[g] for g in range(5) for _ in range(draw[g])]
        assert value == pytest.approx(sum(r[0] for r in resample) / sum(r[1] for r in resample))
    assert found.value == 10 / 22 and found.values[-1] == pytest.approx(8 / 20)


def test_the_deviation_of_a_mean_over_images_is_its_standard_error():
    values = np.random.default_rng(5).random(40)
    found = Estimate(resampled(values[:, None])[:, 0] / weights(40).sum(axis=1), np.ones((40, 1)))
    assert found.deviation() == pytest.approx(stats.sem(values), rel=0.05)


def test_the_interval_is_that_of_students_t_on_the_logit_scale():
    found = share(beta_binomial(np.random.default_rng(1), 25))
    logits = special.logit(found.draws)
    deviation = np.std(logits) * math.sqrt(25 / 24)
    ends = stats.t(df=24, loc=special.logit(found.value), scale=deviation).interval(0.95)
    assert found.interval() == pytest.approx(special.expit(ends).tolist())


def test_a_number_nearer_to_its_bound_than_half_a_case_is_within_its_interval():
    positive, scores = np.repeat([True, False], 20), np.r_[np.arange(20, 40), np.arange(20)].astype(float)
    scores[0] = 18.5  # one pair of 400 is the wrong way round
    found = ranked(positive, scores, np.arange(40), weights(40))["auroc"]
    estimate = Estimate(found, np.column_stack([positive, ~positive]))
    low, high = estimate.interval()
    assert estimate.value == pytest.approx(1 - 1 / 400) and low < estimate.value < high < 1
    near = Estimate(0.001 * np.ones(2041) - 0.0005 * (np.arange(2041) % 2), np.ones((40, 1)), (-1, 1))
    low, high = near.interval()
    assert low < near.value < high


def test_a_difference_is_on_a_scale_from_minus_one_to_one():
    one, other = (share(beta_binomial(np.random.default_rng(k), 30)) for k in (1, 2))
    low, high = one.minus(other).interval()
    assert -1 < low < one.value - other.value < high < 1
    assert one.minus(one).interval() == [0, 0]


def test_a_distance_has_an_interval_above_zero_on_the_scale_of_logarithms():
    groups = np.random.default_rng(3).exponential(30, (25, 1))
    found = Estimate(resampled(groups)[:, 0] / weights(25).sum(axis=1), np.ones((25, 1)), DISTANCE)
    deviation = np.log(found.draws).std() * math.sqrt(25 / 24)
    ends = stats.t(df=24, loc=np.log(found.value), scale=deviation).interval(0.95)
    assert found.interval() == pytest.approx(np.exp(ends).tolist())


def test_a_few_large_groups_weigh_as_few():
    """One of 30 groups has half of the images: the effective number is below 4."""
    groups = beta_binomial(np.random.default_rng(2), 30)
    large = np.vstack([groups, [0.8 * 600, 600]])
    effective = 1200**2 / (30 * 20**2 + 600**2)
    found = share(large)
    deviation = np.std(special.logit(found.draws)) * math.sqrt(31 / 30)
    ends = stats.t(df=effective - 1, loc=special.logit(found.value), scale=deviation).interval(0.95)
    assert found.interval() == pytest.approx(special.expit(ends).tolist())


def test_repeating_each_image_in_its_group_does_not_narrow_the_interval():
    groups = beta_binomial(np.random.default_rng(6), 60, mean=0.6)
    assert share(25 * groups).interval() == pytest.approx(share(groups).interval())


def test_all_groups_right_have_the_interval_of_so_many_hits():
    expected = stats.binomtest(20, 20).proportion_ci(0.95, method="exact")
    assert share([[7, 7]] * 20).interval() == pytest.approx([expected.low, 1])
    assert share([[0, 7]] * 20).interval() == pytest.approx([0, 1 - expected.low])


@pytest.mark.parametrize("groups", [1, 2, MIN_GROUPS - 1])
def test_too_few_groups_have_no_interval(groups):
    assert share(beta_binomial(np.random.default_rng(0), groups)).interval() is None
    assert share(beta_binomial(np.random.default_rng(0), MIN_GROUPS)).interval() is not None


def test_a_kind_of_case_that_few_groups_have_leaves_no_interval():
    found = share(beta_binomial(np.random.default_rng(0), 30))
    cases = np.column_stack([np.ones(30), np.arange(30) < 9])
    assert found._replace(cases=cases).n_groups == 9
    assert found._replace(cases=cases).interval() is None


def test_over_seeds_the_interval_is_that_of_the_mean_with_the_same_draws():
    seeds = [beta_binomial(np.random.default_rng(k), 20) for k in range(3)]
    pooled = share(sum(seeds))  # of equal groups the mean of shares is the share of the sums
    assert mean(map(share, seeds)).interval() == pytest.approx(pooled.interval(), abs=1e-3)


def test_contributions_are_each_groups_part_of_the_mean():
    groups = np.array([[3, 5], [0, 2], [4, 4], [1, 9], [2, 2]])
    assert share(groups).contributions() == pytest.approx(groups[:, 0] / 22)


def test_the_interval_of_two_test_sets_difference_is_wider_than_either_and_has_the_textbook_form():
    low, high = apart((0.8, 0.7, 0.85), (0.6, 0.5, 0.75))
    assert low == pytest.approx(0.2 - np.hypot(0.1, 0.15))
    assert high == pytest.approx(0.2 + np.hypot(0.05, 0.1))


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
