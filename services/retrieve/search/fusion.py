"""Fusion: several ranked lists become one.

Pure functions on values. A method is one entry of `METHODS`; it is given the lists with their
weights and returns every candidate once, best first, equal scores by ascending key.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from services.retrieve.search.candidates import Arm, ChunkKey, Run


class FusionMethod(StrEnum):
    """How lists are fused."""

    RRF = "rrf"


@dataclass(frozen=True, slots=True)
class FusionSettings:
    """What a request asks of the fusion: the method, its constant k, and each arm's weight."""

    method: FusionMethod
    k: float
    weights: Mapping[Arm, float]


@dataclass(frozen=True, slots=True)
class Fused:
    """A candidate of the fused list.

    score: share of the highest fused score that any chunk could have reached, 0..1; it is 1.0 for
    a chunk that every requested arm ranks first. It tells how well the arms agree on the chunk,
    not how relevant it is. parts: what each arm contributed to it (they sum to `score`).
    """

    key: ChunkKey
    score: float
    parts: Mapping[Arm, float]


def rrf(runs: Sequence[Run], settings: FusionSettings) -> list[Fused]:
    """Reciprocal rank fusion: score(d) = sum over lists of weight / (k + rank of d), rank from 1.

    Divided by sum of weight / (k + 1) over all requested arms, so that it is a share of the best
    possible: an arm that failed still counts there, and its absence shows as lower scores.
    (Cormack, Clarke, Buettcher: Reciprocal Rank Fusion outperforms Condorcet and individual Rank
    Learning Methods, SIGIR 2009.)
    """
    best = sum(settings.weights.values()) / (settings.k + 1)
    parts: dict[ChunkKey, dict[Arm, float]] = {}
    for run in runs:
        weight = settings.weights[run.arm] / best
        for rank, (key, _) in enumerate(run.ranked, start=1):
            parts.setdefault(key, {})[run.arm] = weight / (settings.k + rank)
    fused = [Fused(key, min(1.0, sum(shares.values())), shares) for key, shares in parts.items()]
    return sorted(fused, key=lambda candidate: (-candidate.score, candidate.key))


METHODS: Mapping[FusionMethod, Callable[[Sequence[Run], FusionSettings], list[Fused]]] = {
    FusionMethod.RRF: rrf,
}


def fuse(runs: Sequence[Run], settings: FusionSettings) -> list[Fused]:
    """Fuse by the method that `settings` names."""
    return METHODS[settings.method](runs, settings)
