"""What a difference between two runs is worth: intervals and chances, held to exact ones."""

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.cli.evaluation.significance import (
    Differences,
    bootstrap_interval,
    compare,
    randomisation_p,
)

# Differences of measures lie in -1..1 and are often 0; steps keep ties among their sums exact.
differences = st.lists(st.integers(-8, 8), min_size=1, max_size=30).map(
    lambda steps: np.array(steps, np.float64) / 8
)


def exact_p(values: Differences) -> float:
    """The share of all ways to swap run and baseline that differ at least as much."""
    observed = abs(values.sum())
    sums = [abs(float(np.dot(signs, values))) for signs in product((-1, 1), repeat=len(values))]
    return float(np.mean([one >= observed - 1e-9 for one in sums]))


@given(differences)
@settings(max_examples=50)
def test_swapping_run_and_baseline_mirrors_everything(values: Differences) -> None:
    there, back = compare(values), compare(-values)
    assert back.difference == pytest.approx(-there.difference)
    assert (back.low, back.high) == pytest.approx((-there.high, -there.low))
    assert back.p == there.p
    assert (back.better, back.worse, back.equal) == (there.worse, there.better, there.equal)


@given(differences)
@settings(max_examples=50)
def test_the_figures_are_within_their_bounds(values: Differences) -> None:
    found = compare(values)
    assert values.min() - 1e-12 <= found.low <= found.high <= values.max() + 1e-12
    assert 0 < found.p <= 1
    assert found.better + found.worse + found.equal == len(values)
    assert found.mean_loss >= 0
    assert (found.mean_loss > 0) == (found.worse > 0)


@given(st.integers(1, 400))
@settings(max_examples=20)
def test_identical_runs_differ_by_nothing_with_certainty(queries: int) -> None:
    found = compare(np.zeros(queries))
    assert (found.difference, found.low, found.high, found.p) == (0, 0, 0, 1)
    assert (found.better, found.worse, found.equal, found.mean_loss) == (0, 0, queries, 0)


@given(st.lists(st.integers(-8, 8), min_size=1, max_size=9))
@settings(max_examples=60)
def test_few_differences_are_judged_by_every_way_to_swap_them(steps: list[int]) -> None:
    values = np.array(steps, np.float64) / 8
    assert randomisation_p(values) == pytest.approx(exact_p(values))


@pytest.mark.parametrize(
    ("values", "p"),
    [([0.5], 1.0), ([1, 1], 0.5), ([1, 1, 1, 1, 1], 2 / 32), ([1, -1], 1.0), ([3, 1, 0], 0.5)],
)
def test_known_chances(values: list[float], p: float) -> None:
    assert randomisation_p(np.array(values, np.float64)) == p


@pytest.mark.parametrize("seed", range(3))
def test_many_differences_are_judged_nearly_as_exactly(seed: int) -> None:
    values = np.random.default_rng(seed).normal(0.1 * seed, 0.3, 15)
    # Ten thousand throws: a standard error of 0.005 at most.
    assert randomisation_p(values) == pytest.approx(exact_p(values), abs=0.02)


def test_a_difference_that_no_throw_reaches_has_a_small_chance_that_is_not_0() -> None:
    assert randomisation_p(np.ones(200)) == 1 / 10_001


def test_the_interval_of_many_queries_is_that_of_the_normal_distribution() -> None:
    values = np.random.default_rng(1).normal(0.02, 0.2, 400)
    half = 1.96 * values.std() / np.sqrt(len(values))
    low, high = bootstrap_interval(values)
    assert (low, high) == pytest.approx((values.mean() - half, values.mean() + half), abs=0.002)


def test_the_same_differences_give_the_same_figures() -> None:
    values = np.random.default_rng(2).normal(0, 1, 50)
    assert compare(values) == compare(values.copy())


def test_what_got_worse_is_counted_and_its_mean_given() -> None:
    found = compare(np.array([0.5, -0.25, -0.75, 0.0]))
    assert (found.better, found.worse, found.equal, found.mean_loss) == (1, 2, 1, 0.5)
    assert found.difference == -0.125
