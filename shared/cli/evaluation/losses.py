"""The queries that lost most against a baseline: what was wanted, and what came up instead."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from shared.cli.evaluation.figures import MAIN, Figures, Qrels, difference

_INSTEAD = 3


@dataclass(frozen=True)
class Judged:
    """A relevant document. rank, baseline_rank: its places from 1, None beyond the first 100."""

    id: str
    relevance: int
    rank: int | None
    baseline_rank: int | None


@dataclass(frozen=True)
class Loss:
    """A query that got worse. value, baseline_value: its nDCG@10.

    judged: its relevant documents, most relevant first. instead: (rank, document) of the best
    that are not relevant, three at most.
    """

    query: str
    value: float
    baseline_value: float
    judged: tuple[Judged, ...]
    instead: tuple[tuple[int, str], ...]


def worst(
    most: int,
    qrels: Qrels,
    values: Figures,
    baseline: Figures,
    rankings: Mapping[str, Sequence[str]],
    baseline_rankings: Mapping[str, Sequence[str]],
) -> list[Loss]:
    """The queries that lost most nDCG@10 against `baseline`, `most` of them, worst first.

    values, baseline: in the order of `qrels`. Queries that lost nothing are not among them.
    """
    lost = difference(values, baseline)
    queries = list(qrels)
    found = []
    for place in np.argsort(lost, kind="stable")[:most]:
        if lost[place] >= 0:
            break
        query = queries[place]
        relevant = {one: grade for one, grade in qrels[query].items() if grade > 0}
        ranks, baseline_ranks = _ranks(rankings[query]), _ranks(baseline_rankings[query])
        judged = [
            Judged(one, grade, ranks.get(one), baseline_ranks.get(one))
            for one, grade in relevant.items()
        ]
        judged.sort(key=lambda one: (-one.relevance, one.baseline_rank or np.inf))
        others = [(rank, one) for one, rank in ranks.items() if one not in relevant]
        found.append(
            Loss(
                query=query,
                value=float(values[MAIN][place]),
                baseline_value=float(baseline[MAIN][place]),
                judged=tuple(judged),
                instead=tuple(others[:_INSTEAD]),
            )
        )
    return found


def _ranks(ranking: Sequence[str]) -> dict[str, int]:
    return {document: rank for rank, document in enumerate(ranking, start=1)}
