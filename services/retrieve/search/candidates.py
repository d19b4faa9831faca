"""Candidates: what each arm of the search finds in each corpus, and their exact scores.

These functions only ask the stores; they are synchronous and meant for one worker thread. A list
is kept per arm and corpus, because scores of different lists can't be compared as they are.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

from services.retrieve.stores.base import ChunkRecord, CorpusStore, Vector


class Arm(StrEnum):
    """One of the ways in which candidates are found."""

    BM25 = "bm25"
    DENSE = "dense"


class ChunkKey(NamedTuple):
    """A chunk among several corpora: the corpus's name and the store's key in it."""

    corpus: str
    key: int


@dataclass(frozen=True, slots=True)
class Run:
    """A ranked list: what one arm found in one corpus, best first, with the arm's raw scores."""

    arm: Arm
    corpus: str
    ranked: tuple[tuple[ChunkKey, float], ...]

    @classmethod
    def of(cls, arm: Arm, corpus: str, found: Iterable[tuple[int, float]]) -> "Run":
        """The run of a store's own list of (key, score)."""
        return cls(arm, corpus, tuple((ChunkKey(corpus, key), score) for key, score in found))


def search_words(stores: Mapping[str, CorpusStore], query: str, limit: int) -> list[Run]:
    """The BM25 list of each corpus, `limit` long at most."""
    return [Run.of(Arm.BM25, name, store.bm25(query, limit)) for name, store in stores.items()]


def search_vectors(
    stores: Mapping[str, CorpusStore], vectors: Mapping[str, Vector], limit: int
) -> list[Run]:
    """The dense list of each corpus that has a query vector (unit, float32 [d]) in `vectors`."""
    return [
        Run.of(Arm.DENSE, name, stores[name].dense(vector, limit))
        for name, vector in vectors.items()
    ]


def exact_scores(
    stores: Mapping[str, CorpusStore],
    runs: Sequence[Run],
    keys: Sequence[ChunkKey],
    query: str,
    vectors: Mapping[str, Vector],
) -> dict[Arm, dict[ChunkKey, float]]:
    """Every arm's raw score of every chunk in `keys`, also of those that the arm did not return.

    Only arms that have a run are scored. A chunk that was deleted meanwhile may be absent.
    """
    scores: dict[Arm, dict[ChunkKey, float]] = {run.arm: {} for run in runs}
    wanted = set(keys)
    for run in runs:
        known = scores[run.arm]
        known.update((key, score) for key, score in run.ranked if key in wanted)
        missing = [key.key for key in keys if key.corpus == run.corpus and key not in known]
        if not missing:
            continue
        store = stores[run.corpus]
        found = (
            store.bm25_scores(query, missing)
            if run.arm is Arm.BM25
            else store.dense_scores(vectors[run.corpus], missing)
        )
        known.update((ChunkKey(run.corpus, key), score) for key, score in found.items())
    return scores


def fetch(
    stores: Mapping[str, CorpusStore], keys: Sequence[ChunkKey]
) -> dict[ChunkKey, ChunkRecord]:
    """The chunks of `keys`, one read per corpus; those deleted meanwhile are absent."""
    records: dict[ChunkKey, ChunkRecord] = {}
    for name, store in stores.items():
        own = [key.key for key in keys if key.corpus == name]
        if own:
            found = store.fetch(own)
            records.update((ChunkKey(name, key), record) for key, record in found.items())
    return records
