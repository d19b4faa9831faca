"""What a difference between two runs over the same queries is worth.

Pure functions on paired differences, one per query: no clock, and a random generator of a fixed
seed, so that the same runs always give the same figures.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Differences = NDArray[np.float64]

RESAMPLES = 10_000
_SEED = 20_070
_LOW, _HIGH = 0.025, 0.975
# With so few queries that differ, every way to swap them is counted: 2^13 are fewer than RESAMPLES.
_EXACT_UP_TO = 13
_BLOCK = 4_000_000  # random numbers held at once: 32 MB
# Sums of the same numbers in another order differ by rounding, and a tie must count as one.
_ROUNDING = 1e-9


@dataclass(frozen=True)
class Comparison:
    """How a run does against a baseline in one measure, over the same queries.

    difference: mean of run - baseline. low, high: its 95 % interval by bootstrap. p: of a
    two-sided randomisation test. better, worse, equal: queries. mean_loss: how much those that got
    worse lost on average, 0 or more.
    """

    difference: float
    low: float
    high: float
    p: float
    better: int
    worse: int
    equal: int
    mean_loss: float


def compare(differences: Differences) -> Comparison:
    """Judge `differences`, float64 [n]: run - baseline of each query, n at least 1."""
    low, high = bootstrap_interval(differences)
    lost = differences[differences < 0]
    return Comparison(
        difference=float(differences.mean()),
        low=low,
        high=high,
        p=randomisation_p(differences),
        better=int((differences > 0).sum()),
        worse=len(lost),
        equal=int((differences == 0).sum()),
        mean_loss=float(-lost.mean()) if len(lost) else 0.0,
    )


def bootstrap_interval(differences: Differences, resamples: int = RESAMPLES) -> tuple[float, float]:
    """The 95 % percentile interval of the mean of `differences`, float64 [n].

    Efron and Tibshirani, An Introduction to the Bootstrap, 1993, chapter 13.
    """
    count = len(differences)
    random = np.random.default_rng(_SEED)
    means = np.concatenate(
        [
            differences[random.integers(count, size=(rows, count), dtype=np.int32)].mean(axis=1)
            for rows in _blocks(resamples, count)
        ]
    )
    low, high = np.quantile(means, [_LOW, _HIGH])
    return float(low), float(high)


def randomisation_p(differences: Differences, resamples: int = RESAMPLES) -> float:
    """The chance, 0..1, of a mean at least as far from 0 if run and baseline were alike.

    If they were, the sign of each difference would be a coin's. Exact where at most 13 differ from
    0, else from `resamples` throws with the observed one counted among them, so that p is never 0.
    Smucker, Allan, Carterette: A Comparison of Statistical Significance Tests for Information
    Retrieval Evaluation, CIKM 2007.
    """
    sizes = np.abs(differences[differences != 0])
    count = len(sizes)
    if not count:
        return 1.0
    total = sizes.sum()
    observed = abs(differences.sum()) - _ROUNDING * total
    if count <= _EXACT_UP_TO:
        signs = (np.arange(2**count)[:, None] >> np.arange(count)) & 1
        return float((np.abs(total - 2 * (signs @ sizes)) >= observed).mean())
    # Of equal sizes only the number that is flipped matters.
    values, counts = np.unique(sizes, return_counts=True)
    random = np.random.default_rng(_SEED)
    as_far = 0
    for rows in _blocks(resamples, len(values)):
        flipped = random.binomial(counts, 0.5, size=(rows, len(values)))
        as_far += int((np.abs(total - 2 * (flipped @ values)) >= observed).sum())
    return (as_far + 1) / (resamples + 1)


def _blocks(rows: int, columns: int) -> list[int]:
    """`rows` in parts, none of which has over `_BLOCK` cells unless it is a single row."""
    most = max(1, _BLOCK // columns)
    return [min(most, rows - start) for start in range(0, rows, most)]
