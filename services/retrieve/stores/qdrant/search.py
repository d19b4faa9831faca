"""Searching points, and holding what is found against the documents that are live.

Points of a write that is under way, and of documents that are gone, may be found; they are dropped
here. So more is asked for than is wanted, and again where too little is left. Where documents were
replaced between the search and the check, their new points may not have been there yet: the search
is done once more.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from services.retrieve.stores.base import EVERYTHING, Scope, Vector
from services.retrieve.stores.qdrant.filters import asked_of
from services.retrieve.stores.qdrant.points import DENSE, Asking, Points, number_of
from services.retrieve.stores.qdrant.required import models
from services.retrieve.stores.qdrant.rows import Live
from services.retrieve.stores.qdrant.words import Weights
from services.retrieve.stores.remote import Hits
from shared.errors import ApiError

# What is live now: the documents of some numbers, and the count of writes; of one state.
Look = Callable[[set[int]], tuple[dict[int, Live], int]]

_MARGIN = 8  # hits asked for beyond those wanted
_TIES = 1000  # equal scores that are put in order; of more of them any are given
_TRIES = 50
_MOST = 100_000  # hits of one list; more would be a copy of the corpus


@dataclass(frozen=True)
class Wanted:
    """A list that is wanted: the vector's name, the query, and how many at most."""

    using: str
    query: Vector | Weights
    limit: int


def search(
    points: Points,
    wanted: Sequence[Wanted],
    scope: Scope,
    look: Look,
    writes: int,
    *,
    exact: bool,
) -> list[Hits]:
    """The lists, each as its limit wants, of documents that are live and in the scope.

    All of them go in one request. writes: a count of writes that was read before. exact: search
    vectors without the graph's shortcuts.
    Raises ApiError 503 where the documents change faster than they can be searched.
    """
    asked = asked_of(scope)
    found: list[Hits] = [[] for _ in wanted]
    if asked.nothing:
        return found
    for field in sorted(asked.ranges):
        points.index(field, models.PayloadSchemaType.FLOAT)
    left = {
        place: Asking(one.using, one.query, one.limit + _MARGIN, asked.condition, exact)
        for place, one in enumerate(wanted)
        if one.limit > 0 and not _is_empty(one.query)
    }
    for _ in range(_TRIES):
        if not left:
            return found
        places = list(left)
        answers = points.search([left[place] for place in places])
        live, now = look({number_of(key) for hits in answers for key, _ in hits})
        moved, writes = now != writes, now
        for place, hits in zip(places, answers, strict=True):
            kept = [
                hit
                for hit in hits
                if (owner := live.get(number_of(hit[0]))) is not None
                and (scope == EVERYTHING or owner.within(scope))
            ]
            gone = any(number_of(key) not in live for key, _ in hits)
            asking = left[place]
            if gone and moved:
                continue
            if len(hits) < asking.limit and asking.using == DENSE and not asking.exact:
                # The graph may have stopped early within a narrow scope.
                left[place] = replace(asking, exact=True)
            elif _enough(hits, kept, asking.limit, wanted[place].limit):
                found[place] = kept[: wanted[place].limit]
                del left[place]
            else:
                left[place] = replace(asking, limit=asking.limit * 4)
    raise ApiError(
        503,
        "store_unavailable",
        "documents of the corpus change faster than it can be searched: try again",
        headers={"Retry-After": "1"},
    )


def _enough(hits: Hits, kept: Hits, asked: int, limit: int) -> bool:
    """Whether what is kept of the hits is the answer."""
    if len(hits) < asked or asked >= _MOST:
        return True
    if len(kept) < limit:
        return False
    # Which of equal scores are the last ones given is Qdrant's choice; it is to be the keys'.
    return hits[-1][1] != kept[limit - 1][1] or asked >= limit + _TIES


def _is_empty(query: Vector | Weights) -> bool:
    return isinstance(query, tuple) and not len(query[0])
