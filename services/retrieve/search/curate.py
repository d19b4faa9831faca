"""Curation: the first candidates are read by the curator and put in a better order.

The curator's judgement is blended with the scores that brought a candidate here, not put in their
place: alone it is worse than the blend. All functions are pure.

What is blended of the curator are the log-odds of its relevance. A calibrated model's own score is
linear in them, so that its z-scores are exactly those of the log-odds, whatever the calibration:
the relevance itself is flat where most of a window lies, and would blend otherwise.

Several corpora in a window. The curator's scores mean the same everywhere, and so do cosines and
sparse scores by one model: their z-scores are taken over the whole window. BM25 scores mean
something in their own corpus alone (a word that is rare in one may be in every document of
another): their z-scores are taken per corpus, so that they order a corpus's chunks and say nothing
of one corpus against another. Of n values no z-score is above sqrt(n - 1): a corpus with one chunk
in the window gets 0. A chunk of which an arm has no score gets 0 there, the mean.

The shown score. Every ranked candidate carries a `score` in 0..1 that never rises along the
ranking, and a threshold is applied to exactly this number.

* In the window it is the blend, expressed on the curator's own scale: the relevance whose log-odds
  are mean + deviation * blend, with the mean and the standard deviation of the curator's log-odds
  in this window. It is therefore read like a relevance of the curator (a window of poor passages
  has poor scores), and equal to it where the arms judge as the curator does. Where dates count,
  what they added is part of the blend, and so of this number.
* Below the window, which no curator has read, it is the window's lowest score, scaled by the
  candidate's fused score over that of the window's last.
* Without curation it is the fused score: a share of the best possible rank score, which tells how
  well the arms agree, not how relevant the chunk is.
"""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from services.retrieve.search.candidates import Arm, ChunkKey
from services.retrieve.search.fusion import Fused, comparable

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
    (``curator``, of the relevance's log-odds, and each arm), without those of arms that have no
    score of it. recency: what its date adds, in z-scores. blended: the mean over all columns
    plus recency, by which the window is ordered.
    """

    relevance: float
    z: Mapping[str, float]
    blended: float
    recency: float = 0.0


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


def arm_z_scores(
    arm: Arm,
    keys: Sequence[ChunkKey],
    scores: Mapping[ChunkKey, float],
    spaces: Mapping[str, Hashable],
) -> NDArray[np.float64]:
    """An arm's z-scores of the chunks, float64 [n], each among those that it may be compared with;
    0 where the arm has no score. `spaces` as in `FusionSettings`."""
    groups: dict[Hashable, list[int]] = {}
    for place, key in enumerate(keys):
        if key in scores:
            groups.setdefault(comparable(arm, key.corpus, spaces), []).append(place)
    z = np.zeros(len(keys))
    for places in groups.values():
        z[places] = z_scores([scores[keys[place]] for place in places])
    return z


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
    bonus: Mapping[ChunkKey, float] | None = None,
    spaces: Mapping[str, Hashable] | None = None,
) -> list[Ranked]:
    """Reorder the window by the blend; everything else follows below in fused order.

    The window is what `relevance` has (the curator's scores, 0..1); `arm_scores` has each arm's raw
    score of each of them, as far as there is one. bonus: what the date of a chunk adds to its
    blend, in z-scores; see recency.py. spaces: which corpora's vectors are comparable; see
    `FusionSettings`. Equal blends keep their fused order.
    """
    before = uncurated(fused)
    window = [one for one in before if one.key in relevance]
    if not window:
        return before
    keys = [one.key for one in window]
    judgement = log_odds([relevance[key] for key in keys])
    columns = {CURATOR: z_scores(judgement.tolist())}
    for arm, scores in arm_scores.items():
        columns[arm.value] = arm_z_scores(arm, keys, scores, spaces or {})
    known = {CURATOR: relevance} | {arm.value: scores for arm, scores in arm_scores.items()}
    added = np.array([(bonus or {}).get(key, 0.0) for key in keys])
    blended = np.mean(list(columns.values()), axis=0) + added
    shown = 1.0 / (1.0 + np.exp(-(judgement.mean() + judgement.std() * blended)))

    reordered = []
    for place in np.argsort(-blended, kind="stable"):
        one = window[place]
        judged = Curation(
            relevance[one.key],
            {name: float(z[place]) for name, z in columns.items() if one.key in known[name]},
            float(blended[place]),
            float(added[place]),
        )
        score = round(float(shown[place]), _DECIMALS)
        reordered.append(Ranked(one.key, score, one.fused, one.fused_rank, judged))

    floor, last = reordered[-1].score, window[-1].fused.score
    below = [
        Ranked(
            one.key,
            round(floor * _share(one.fused.score, last), _DECIMALS),
            one.fused,
            one.fused_rank,
            None,
        )
        for one in before
        if one.key not in relevance
    ]
    return reordered + below


def _share(score: float, last: float) -> float:
    """A fused score as a share of that of the window's last, at most 1."""
    return min(1.0, score / last) if last > 0.0 else 0.0
