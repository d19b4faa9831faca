"""Verified answers, kept in memory for whoever asks the same again with the same rights.

Passages are retrieved before it is looked into, under the caller's own rights, and are part of the
key: a hit never shows what this caller could not retrieve just now. See key.py for the key.

`find` is exact. Where a similarity is set, an answer to another wording counts, too, if all else of
the key is equal, the vectors of both questions are that close, and they ask the same by their
words; see paraphrase.py.
"""

import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from prometheus_client import Counter, Gauge

from services.generate.answer.outcome import Cached, Found, Outcome
from services.generate.cache.key import Key
from services.generate.cache.paraphrase import asks_the_same
from services.generate.routing.decision import Decision

_MOST_ENTRIES = 20_000
_MOST_COMPARED = 512  # wordings of one key, the newest, that a question is compared with
_OVERHEAD = 2048  # bytes of an entry beside its texts
_LOOKUPS = Counter(
    "refdesk_generate_cache_lookups_total", "Lookups in the cache of answers", ["found"]
)
_BYTES = Gauge("refdesk_generate_cache_bytes", "Bytes of cached answers")

Vector = NDArray[np.float32]


@dataclass(frozen=True)
class _Entry:
    """outcome: as it was given. record: its place in the audit trail. until: of the clock."""

    outcome: Outcome
    record: str | None
    vector: Vector | None
    until: float
    size: int


class AnswerCache:
    """The answers of one process; for use in one thread.

    limit: bytes that all of them may take; the one unused the longest goes first. seconds: that an
    answer is kept. similarity: cosine, 0..1, from which another wording counts; None for never.
    clock: seconds that only go forward.
    """

    def __init__(
        self,
        *,
        limit: int,
        seconds: float,
        similarity: float | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._limit = limit
        self._seconds = seconds
        self._similarity = similarity
        self._clock = clock
        self._entries: OrderedDict[Key, _Entry] = OrderedDict()
        self._wordings: dict[str, OrderedDict[Key, None]] = {}  # of each `rest`
        self._size = 0

    def find(self, key: Key, vector: Vector | None, decision: Decision) -> Outcome | None:
        """The answer for a key, as the outcome of this decision; None where there is none.

        vector: the question's embedding, of length 1, float32 [d]; None where there is none.
        """
        found = Found.EXACT
        place: Key | None = key if self._live(key) else None
        if place is None and self._similarity is not None and vector is not None:
            found, place = Found.SEMANTIC, self._closest(key, vector, self._similarity)
        _LOOKUPS.labels(found.value if place else "miss").inc()
        if place is None:
            return None
        self._entries.move_to_end(place)
        entry = self._entries[place]
        return _again(entry.outcome, decision, Cached(found, entry.record))

    def keep(
        self,
        key: Key,
        vector: Vector | None,
        decision: Decision,
        outcome: Outcome,
        record: str | None,
    ) -> None:
        """Keep an answer if it was verified; others are not worth giving twice.

        record: its place in the audit trail, None where there is none.
        """
        if not _is_verified(outcome, decision):
            return
        kept = vector if self._similarity is not None else None
        size = _OVERHEAD + 2 * len(repr(outcome)) + (kept.nbytes if kept is not None else 0)
        if size > self._limit:
            return
        self._drop(key)
        self._entries[key] = _Entry(outcome, record, kept, self._clock() + self._seconds, size)
        self._wordings.setdefault(key.rest, OrderedDict())[key] = None
        self._size += size
        while self._size > self._limit or len(self._entries) > _MOST_ENTRIES:
            self._drop(next(iter(self._entries)))
        _BYTES.set(self._size)

    def _live(self, key: Key) -> bool:
        entry = self._entries.get(key)
        if entry is not None and entry.until <= self._clock():
            self._drop(key)
            _BYTES.set(self._size)
            return False
        return entry is not None

    def _closest(self, key: Key, vector: Vector, similarity: float) -> Key | None:
        """The key with the most alike question that asks the same."""
        close: list[tuple[float, Key]] = []
        for other in list(reversed(self._wordings.get(key.rest, {})))[:_MOST_COMPARED]:
            theirs = self._entries[other].vector if self._live(other) else None
            # Vectors of another model can't be compared; embed may have changed its own meanwhile.
            if theirs is None or theirs.shape != vector.shape:
                continue
            cosine = float(theirs @ vector)
            if cosine >= similarity and asks_the_same(key.question, other.question):
                close.append((cosine, other))
        return max(close, key=lambda one: one[0])[1] if close else None

    def _drop(self, key: Key) -> None:
        entry = self._entries.pop(key, None)
        if entry is None:
            return
        self._size -= entry.size
        wordings = self._wordings[key.rest]
        del wordings[key]
        if not wordings:
            del self._wordings[key.rest]


def _is_verified(outcome: Outcome, decision: Decision) -> bool:
    """Whether an answer's own text passed its checks, and nothing was missing on the way to it."""
    profiles = {decision.checks, *(step.checks for step in decision.escalation)}
    # The last verdict is the answer's, unless the last resort wrote it: that is kept only where no
    # draft failed before it, for another time a model may do better.
    return (
        outcome.answered
        and outcome.cached is None
        and all(one.passed for one in outcome.verified[-1:])
        and "off" not in profiles
        and not outcome.degraded
        and not outcome.ruled_out
        and not outcome.tool_calls
    )


def _again(outcome: Outcome, decision: Decision, cached: Cached) -> Outcome:
    """An answer as it is given again: nobody was asked for it this time, and nothing failed."""
    return replace(
        outcome,
        reasons=decision.reasons,
        passed=True,
        failures=(),
        escalated_from=None,
        verified=(),
        hops=(),
        attempts=(),
        draft_ms=0.0,
        verify_ms=0.0,
        shown=False,
        cached=cached,
    )
