"""The exact arm: BM25 by the library rank-bm25, over all of a corpus's texts in memory.

It is for small corpora and for checking: the word index keeps the length of a text in one byte, and
this arm to the word. Otherwise both compute the same (k1 1.2, b 0.75, Lucene's IDF, which unlike
Okapi's own is never negative), so their scores can be compared.
"""

import math
import sys
import threading
import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray
from rank_bm25 import BM25Okapi

from services.retrieve.stores.base import CorpusStore
from shared.errors import ApiError

# Of 130 words each: 0.5 GB of dictionaries, 20 s to build, 0.3 s a search (5,000, scaled up).
MOST_CHUNKS = 100_000
_CHUNKS_PER_S = 5_000  # that are built

K1, B = 1.2, 0.75

InScope = Callable[[Sequence[int]], set[int]]


class _Okapi(BM25Okapi):  # type: ignore[misc]  # the library has no types
    """With Lucene's IDF, ln(1 + (N - n + 0.5) / (n + 0.5)), in place of one that has a floor."""

    def _calc_idf(self, nd: Mapping[str, int]) -> None:
        self.idf = {
            term: math.log(1 + (self.corpus_size - n + 0.5) / (n + 0.5)) for term, n in nd.items()
        }


class ExactBm25:
    """The texts of a corpus as they were after one of its writes. Searches may run at any time."""

    def __init__(
        self, bodies: Iterable[tuple[int, str]], terms: Callable[[str], list[str]]
    ) -> None:
        """bodies: (key, title and text) of each chunk, by ascending key; terms: the analyser."""
        self._terms = terms
        keys: list[int] = []
        texts: list[list[str]] = []
        for key, body in bodies:
            keys.append(key)
            # One string for each word of the corpus, not one for each time that it occurs.
            texts.append([sys.intern(term) for term in terms(body)])
        self._keys = np.array(keys, np.int64)
        self._places = {key: place for place, key in enumerate(keys)}
        # The library divides by the mean length, which must not be 0.
        self._okapi = _Okapi(texts, k1=K1, b=B) if any(texts) else None

    def __len__(self) -> int:
        return len(self._keys)

    def search(
        self, query: str, limit: int, in_scope: InScope | None = None
    ) -> list[tuple[int, float]]:
        """At most `limit` (key, BM25 score) of chunks that hold a term, best first, ties by key.

        in_scope: which of some keys may be given (None: all); asked until there are enough.
        """
        if limit <= 0:
            return []
        scores = self._all_scores(query)
        order = np.lexsort((self._keys, -scores))[: np.count_nonzero(scores)]
        found: list[tuple[int, float]] = []
        at, step = 0, limit
        while at < len(order) and len(found) < limit:
            part = order[at : at + step]
            keys = self._keys[part].tolist()
            within = in_scope(keys) if in_scope is not None else None
            found += [
                hit
                for hit in zip(keys, scores[part].tolist(), strict=True)
                if within is None or hit[0] in within
            ]
            at, step = at + step, step * 2
        return found[:limit]

    def scores(self, query: str, keys: Sequence[int]) -> dict[int, float]:
        """The BM25 scores of given chunks, 0.0 where no term matches; unknown keys are absent."""
        places = {key: self._places[key] for key in keys if key in self._places}
        if not places:
            return {}
        if self._okapi is None:
            return dict.fromkeys(places, 0.0)
        batch = self._okapi.get_batch_scores(self._known_terms(query), list(places.values()))
        return dict(zip(places, map(float, batch), strict=True))

    def _all_scores(self, query: str) -> NDArray[np.float64]:
        if self._okapi is None:
            return np.zeros(len(self._keys))
        scores: NDArray[np.float64] = self._okapi.get_scores(self._known_terms(query))
        return scores

    def _known_terms(self, query: str) -> list[str]:
        # The library goes through every text for each term: not for those that no text holds.
        return [term for term in self._terms(query) if self._okapi and term in self._okapi.idf]


class ExactArm:
    """The exact arm of every corpus, each built when it is first asked for. Safe for threads.

    Of each corpus one state is held, and never more than `most_chunks` in all, those that are
    being built among them: the one that was built longest ago goes first. Nobody waits for a build,
    which takes seconds: threads are few, and other searches need them.
    """

    def __init__(self, most_chunks: int = MOST_CHUNKS) -> None:
        self._most = most_chunks
        # By store: a corpus that is deleted and made anew counts its writes from 0. Weakly:
        # with the store of a deleted corpus goes what was built of it.
        self._built: WeakKeyDictionary[CorpusStore, tuple[int, ExactBm25]] = WeakKeyDictionary()
        self._building: dict[CorpusStore, int] = {}
        self._lock = threading.Lock()

    def of(self, store: CorpusStore) -> ExactBm25:
        """The arm over the corpus as it is now.

        Raises ApiError 422 `corpus_too_large` for one of more chunks than may be held, and 503
        `arm_busy` with Retry-After while it is being built for another, or others are that leave
        no room beside them.
        """
        info = store.info
        if info.chunks > self._most:
            raise ApiError(
                422,
                "corpus_too_large",
                f"arm bm25-exact holds a corpus in memory, and '{info.name}' has {info.chunks:,} "
                f"chunks, more than {self._most:,}: use arm bm25",
                param="arms",
            )
        with self._lock:
            held = self._built.get(store)
            if held is not None and held[0] == info.writes:
                return held[1]
            room = self._most - sum(self._building.values()) - info.chunks
            if store in self._building or room < 0:
                raise _busy(info.name, sum(self._building.values()))
            self._built.pop(store, None)
            self._make_room(room)
            self._building[store] = info.chunks
        try:
            arm = ExactBm25(store.bodies(), _terms_of(store))
        except BaseException:
            with self._lock:
                del self._building[store]
            raise
        with self._lock:
            del self._building[store]
            self._built[store] = (info.writes, arm)
        return arm

    def _make_room(self, most: int) -> None:
        """Let go what was built longest ago, until there are at most `most` chunks."""
        held = [(store, len(arm)) for store, (_, arm) in self._built.items()]
        excess = sum(chunks for _, chunks in held) - most
        for store, chunks in held:
            if excess <= 0:
                return
            self._built.pop(store, None)
            excess -= chunks


def _terms_of(store: CorpusStore) -> Callable[[str], list[str]]:
    """A corpus's analyser, which does not keep its store; used only by who holds the store."""
    weak = weakref.ref(store)

    def terms(text: str) -> list[str]:
        held = weak()
        return held.terms(text) if held is not None else []

    return terms


def _busy(corpus: str, chunks: int) -> ApiError:
    seconds = max(1, math.ceil(chunks / _CHUNKS_PER_S))
    return ApiError(
        503,
        "arm_busy",
        f"arm bm25-exact reads corpora into memory just now, and has no room or not yet an answer "
        f"for '{corpus}': ask again in {seconds} s, or use arm bm25",
        param="arms",
        headers={"Retry-After": str(seconds)},
    )
