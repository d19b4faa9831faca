"""Diversity: passages that say something new before those that say the same again. Pure.

Maximal marginal relevance (Carbonell and Goldstein: The Use of MMR, Diversity-Based Reranking for
Reordering Documents and Producing Summaries, SIGIR 1998): the next passage is the one with the
highest  (1 - diversity) * relevance - diversity * (highest cosine to any that was taken).
"""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from services.retrieve.search.candidates import ChunkKey
from services.retrieve.search.pack import Passage
from services.retrieve.stores.base import Vector


def mmr(
    passages: Sequence[Passage], vectors: Mapping[ChunkKey, Vector], diversity: float, most: int
) -> list[Passage]:
    """At most `most` of the passages (best first) in the order of marginal relevance.

    diversity: 0..1; 0 keeps the order, 1 looks at nothing but novelty after the first. The
    relevance is the shown score, stretched to 0..1 over the passages: fused scores lie so close
    together that cosines would decide alone. Cosines below 0 count as 0, as do those to a passage
    without a vector or with one of another dimension. Equal ones keep their order. Shown scores are
    left as they are: along the new order they may rise.
    """
    if diversity == 0.0 or len(passages) < 2:
        return list(passages[:most])
    scores = np.array([one.ranked.score for one in passages])
    spread = np.ptp(scores)
    relevance = (scores - scores.min()) / spread if spread else np.ones(len(passages))
    cosines = _cosines([vectors.get(one.ranked.key) for one in passages])
    nearest = np.zeros(len(passages))
    left = np.ones(len(passages), np.bool_)
    taken: list[Passage] = []
    while len(taken) < min(most, len(passages)):
        marginal = (1.0 - diversity) * relevance - diversity * nearest
        # The first is the best of all, also where nothing but novelty counts.
        place = int(np.argmax(np.where(left, marginal, -np.inf))) if taken else int(scores.argmax())
        taken.append(passages[place])
        left[place] = False
        nearest = np.maximum(nearest, cosines[place])
    return taken


def _cosines(vectors: Sequence[Vector | None]) -> NDArray[np.float64]:
    """Cosine of each to each, float64 [n, n], none below 0; 0 where they can't be compared."""
    cosines = np.zeros((len(vectors), len(vectors)))
    for size in {len(vector) for vector in vectors if vector is not None}:
        places = [
            n for n, vector in enumerate(vectors) if vector is not None and len(vector) == size
        ]
        block = np.stack(
            [vector for vector in vectors if vector is not None and len(vector) == size]
        )
        cosines[np.ix_(places, places)] = np.clip(block @ block.T, 0.0, 1.0)
    return cosines
