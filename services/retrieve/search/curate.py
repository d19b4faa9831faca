"""Curation: the first candidates are read by the curator and put in a better order.

The curator's judgement is blended with the scores that brought a candidate here, not put in their
place: alone it is worse than the blend. All functions are pure.

What is blended of the curator are the log-odds of its relevance. A calibrated model's own score is
linear in them, so that its z-scores are exactly those of the log-odds, whatever the calibration:
the relevance itself is flat where most of a window lies, and would blend otherwise.

The shown score. Every ranked candidate carries a `score` in 0..1 that never rises along the
ranking, and a threshold is applied to exactly this number.

* In the window it is the blend, expressed on the curator's own scale: the relevance whose log-odds
  are mean + deviation * blend, with the mean and the standard deviation of the curator's log-odds
  in this window. It is therefore read like a relevance of the curator (a window of poor passages
  has poor scores), and equal to it where the arms judge as the curator does.
* Below the window, which no curator has read, it is the window's lowest score, scaled by the
  candidate's fused score over that of the window's last.
* Without curation it is the fused score: a share of the best possible rank score, which tells how
  well the arms agree, not how relevant the chunk is.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from services.retrieve.search.candidates import Arm, ChunkKey
from services.retrieve.search.fusion import Fused

CURATOR = "curator"
# Scores closer together than this are one score: z-scores would blow float32 noise up to opinions.
_SAME = 1e-5
# A relevance of 0 or 1 has no log-odds: it is taken for a rounded one, as far from the end as a
# server that rounds to four decimals means at most, or nearer where others of the window are.
_END = 1e-4
_NEAREST = 1e-12  # no calibrated float64 is so near to an end
# Decimals of a shown score; rounded before thresholds are applied, so that what counts is shown.
_DECIMALS = 6


@dataclass(frozen=True, slots=True)
class Curation:
    """How a candidate of the window was judged.

    relevance: the curator's own score, 0..1. z: the z-score over the window of each column
    (``curator``, of the relevance's log-odds, ``bm25``, ``dense``). blended: their mean, by which
    the window is ordered.
    """

    relevance: float
    z: Mapping[str, float]
    blended: float


@dataclass(frozen=True, slots=True)
class Ranked:
    """A candidate at its final place. fused_rank: its place before curation, from 1."""

    key: ChunkKey
    score: float
    fused: Fused
    fused_rank: int
    curation: Curation | None


def z_scores(column: Sequence[float]) -> NDArray[np.float64]:
    """(x - mean) / standard deviation of the population, float64 [n]; zeros if all are equal."""
    values = np.asarray(column, dtype=np.float64)
    if values.size == 0 or np.ptp(values) <= _SAME:
        return np.zeros(values.shape)
    standardised: NDArray[np.float64] = (values - values.mean()) / values.std()
    return standardised


def log_odds(relevance: Sequence[float]) -> NDArray[np.float64]:
    """log(p / (1 - p)) of each relevance in 0..1, float64 [n], finite also at the ends."""
    p = np.asarray(relevance, dtype=np.float64)
    inner = p[(p > 0.0) & (p < 1.0)]
    low = min(_END, float(inner.min(initial=1.0)) / 2)
    high = max(1.0 - _END, (1.0 + float(inner.max(initial=0.0))) / 2)
    p = np.where(p <= 0.0, low, np.where(p >= 1.0, high, p))
    p = np.clip(p, _NEAREST, 1.0 - _NEAREST)
    odds: NDArray[np.float64] = np.log(p) - np.log1p(-p)
    return odds


def blend(columns: Mapping[str, Sequence[float]]) -> NDArray[np.float64]:
    """Mean of the columns' z-scores, float64 [n]; columns are aligned and at least one is given."""
    mean: NDArray[np.float64] = np.mean([z_scores(column) for column in columns.values()], axis=0)
    return mean


def uncurated(fused: Sequence[Fused]) -> list[Ranked]:
    """The fused list as it is, with fused scores shown."""
    return [
        Ranked(candidate.key, round(candidate.score, _DECIMALS), candidate, rank, None)
        for rank, candidate in enumerate(fused, start=1)
    ]


def curated(
    fused: Sequence[Fused],
    relevance: Mapping[ChunkKey, float],
    arm_scores: Mapping[Arm, Mapping[ChunkKey, float]],
) -> list[Ranked]:
    """Reorder the window by the blend; everything else follows below in fused order.

    The window is what `relevance` has (the curator's scores, 0..1); `arm_scores` has each arm's raw
    score of each of them. Equal blends keep their fused order.
    """
    before = uncurated(fused)
    window = [one for one in before if one.key in relevance]
    if not window:
        return before
    judgement = log_odds([relevance[one.key] for one in window])
    columns: dict[str, Sequence[float]] = {CURATOR: judgement.tolist()}
    for arm, scores in arm_scores.items():
        columns[arm.value] = [scores[one.key] for one in window]
    standardised = {name: z_scores(column) for name, column in columns.items()}
    blended = blend(columns)
    shown = 1.0 / (1.0 + np.exp(-(judgement.mean() + judgement.std() * blended)))

    reordered = []
    for place in np.argsort(-blended, kind="stable"):
        one = window[place]
        judged = Curation(
            relevance[one.key],
            {name: float(column[place]) for name, column in standardised.items()},
            float(blended[place]),
        )
        score = round(float(shown[place]), _DECIMALS)
        reordered.append(Ranked(one.key, score, one.fused, one.fused_rank, judged))

    floor, last = reordered[-1].score, window[-1].fused.score
    below = [
        Ranked(
            one.key,
            round(floor * one.fused.score / last, _DECIMALS),
            one.fused,
            one.fused_rank,
            None,
        )
        for one in before
        if one.key not in relevance
    ]
    return reordered + below
