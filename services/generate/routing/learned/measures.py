"""What a router would have been worth on recorded outcomes. Pure functions.

A router orders the questions by how much they need the strong writer; the share of questions that
go there, from none to all, draws a curve of right answers. The measures are those of RouteLLM
(Ong et al., RouteLLM: Learning to Route LLMs with Preference Data, arXiv 2406.18665, section 3):
the performance gap recovered (PGR) is 0 where the weak writer answers all and 1 where the strong
one does.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from services.generate.routing.learned.outcomes import OutcomesError

RESAMPLES = 1000
_SEED = 20_240
_LOW, _HIGH = 0.025, 0.975

Scores = NDArray[np.float64]


@dataclass(frozen=True)
class Measured:
    """A router's figures. apgr: the area under PGR over the share of strong calls: 0.5 for chance.

    low, high: its 95 % interval. cpt50, cpt80: the least share of strong calls, 0..1, that recovers
    50 and 80 % of the gap. oracle_gap: how much less its apgr is than that of a router that knows
    the outcomes, which is above 1: that one never asks the strong writer where the weak one is
    right alone. over_length, over_low, over_high: apgr less that of the prompt's length, on the
    same questions, with its interval.
    """

    apgr: float
    low: float
    high: float
    cpt50: float
    cpt80: float
    oracle_gap: float
    over_length: float
    over_low: float
    over_high: float


class Curve:
    """The share of strong calls and the gap recovered, for one router's scores.

    scores: the higher, the more a question needs the strong writer, float64 [n]. Questions of one
    score can't be told apart: between the ends of such a run the curve is straight, which is what
    an order of chance gives on average.
    """

    def __init__(self, scores: Scores, gain: NDArray[np.float64]) -> None:
        self._order = np.argsort(-scores, kind="stable")
        ordered = scores[self._order]
        self._ends = np.append(np.flatnonzero(np.diff(ordered)), len(ordered) - 1)
        self._gain = gain[self._order]

    def points(
        self, times: NDArray[np.float64] | None = None
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Shares and PGR, both from 0 to 1 at the end, float64 [m].

        times: how often each question counts, float64 [n]; once if not given. PGR is NaN where the
        strong writer is no better on those.
        """
        counted = np.ones(len(self._order)) if times is None else times[self._order]
        share = np.cumsum(counted)[self._ends]
        recovered = np.cumsum(counted * self._gain)[self._ends]
        gap = recovered[-1] if recovered[-1] > 0 else np.nan
        return np.append(0.0, share / share[-1]), np.append(0.0, recovered / gap)

    def apgr(self, times: NDArray[np.float64] | None = None) -> float:
        """The area under the curve."""
        share, recovered = self.points(times)
        return float(np.trapezoid(recovered, share))

    def cpt(self, wanted: float) -> float:
        """The least share of strong calls with a PGR of `wanted`, 0..1."""
        share, recovered = self.points()
        at = int(np.argmax(recovered >= wanted))
        part = (wanted - recovered[at - 1]) / (recovered[at] - recovered[at - 1])
        return float(share[at - 1] + part * (share[at] - share[at - 1]))


def measure(
    routers: Mapping[str, Scores],
    length: str,
    gain: NDArray[np.float64],
    groups: NDArray[np.intp],
) -> dict[str, Measured]:
    """The figures of every router by its name. length: the name of the one to compare with.

    The intervals are of 1,000 bootstrap samples of whole groups of near-duplicates, the same for
    every router. Raises OutcomesError where the strong writer is no better than the weak one.
    """
    if gain.sum() <= 0:
        raise OutcomesError(
            "the strong writer was right no more often than the weak one: there is no gap "
            "to recover"
        )
    curves = {name: Curve(scores, gain) for name, scores in routers.items()}
    oracle = Curve(gain, gain).apgr()
    _, group = np.unique(groups, return_inverse=True)
    random = np.random.default_rng(_SEED)
    count = int(group.max()) + 1
    drawn: dict[str, list[float]] = {name: [] for name in curves}
    for _ in range(RESAMPLES):
        times = np.bincount(random.integers(count, size=count), minlength=count)[group]
        for name, curve in curves.items():
            drawn[name].append(curve.apgr(times.astype(np.float64)))
    samples = {name: np.array(values) for name, values in drawn.items()}
    found = {}
    for name, curve in curves.items():
        own = curve.apgr()
        low, high = _interval(samples[name])
        over_low, over_high = _interval(samples[name] - samples[length])
        found[name] = Measured(
            apgr=own,
            low=low,
            high=high,
            cpt50=curve.cpt(0.5),
            cpt80=curve.cpt(0.8),
            oracle_gap=oracle - own,
            over_length=own - curves[length].apgr(),
            over_low=over_low,
            over_high=over_high,
        )
    return found


def _interval(values: NDArray[np.float64]) -> tuple[float, float]:
    low, high = np.nanquantile(values, [_LOW, _HIGH])
    return float(low), float(high)
