"""Candidates: what each arm of the search finds in each corpus, and their exact scores.

These functions only ask the stores; they are synchronous and meant for one worker thread. A list
is kept per arm, corpus and query, because scores of different lists can't be compared as they are.
"""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cached_property, partial
from itertools import zip_longest
from typing import NamedTuple, TypeVar

from services.retrieve.search.exact_bm25 import ExactArm
from services.retrieve.stores.base import (
    EVERYTHING,
    ChunkRecord,
    CorpusStore,
    Described,
    Extent,
    Scope,
    Vector,
)
from services.retrieve.stores.remote import Batched
from services.retrieve.stores.sparse_vector import Sparse
from services.retrieve.stores.state import rebuilding

Found = TypeVar("Found")


class Arm(StrEnum):
    """One of the ways in which candidates are found.

    bm25: by words. bm25-exact: the same by a plain implementation that reads every chunk, to check
    the other against. dense: by the vector of the query. sparse: by the weights that embed's model
    gives to the query's words.
    """

    BM25 = "bm25"
    BM25_EXACT = "bm25-exact"
    DENSE = "dense"
    SPARSE = "sparse"


# The arms that search with what embed makes of the query; the others do without it.
EMBEDDED = frozenset({Arm.DENSE, Arm.SPARSE})
_AT_ONCE = (Arm.BM25, Arm.DENSE, Arm.SPARSE)  # in the order of `Batched.lists`


class ChunkKey(NamedTuple):
    """A chunk among several corpora: the corpus's name and the store's key in it."""

    corpus: str
    key: int


@dataclass(frozen=True, slots=True)
class Run:
    """A ranked list: what one arm found in one corpus, best first, with the arm's raw scores.

    query: for which of the queries, 0 for the question itself.
    """

    arm: Arm
    corpus: str
    ranked: tuple[tuple[ChunkKey, float], ...]
    query: int = 0

    @classmethod
    def of(cls, arm: Arm, corpus: str, found: Iterable[tuple[int, float]], query: int = 0) -> "Run":
        """The run of a store's own list of (key, score)."""
        ranked = tuple((ChunkKey(corpus, key), score) for key, score in found)
        return cls(arm, corpus, ranked, query)


@dataclass(frozen=True)
class Vectors:
    """What embed made of the queries, by corpus: unit vectors (float32 [d]) and sparse ones, each
    in the order of the queries. Of an arm that does not search there are none."""

    dense: Mapping[str, Sequence[Vector]] = field(default_factory=dict)
    sparse: Mapping[str, Sequence[Sparse]] = field(default_factory=dict)

    def but(self, corpora: Collection[str]) -> "Vectors":
        """Those of the other corpora."""
        return Vectors(
            {name: found for name, found in self.dense.items() if name not in corpora},
            {name: found for name, found in self.sparse.items() if name not in corpora},
        )


@dataclass(frozen=True)
class Shelves:
    """What a search may look into: the corpora by name, and how much of each.

    exact: searches them for the arm `bm25-exact`.
    """

    stores: Mapping[str, CorpusStore]
    scope: Scope
    exact: ExactArm

    @cached_property
    def batched(self) -> frozenset[str]:
        """The corpora that can be searched by several arms in one round trip; the same ones all
        through a search."""
        return frozenset(
            name
            for name, one in self.stores.items()
            if isinstance(one, Batched) and not rebuilding(one)
        )

    def words(
        self, arm: Arm, queries: Sequence[str], limit: int, but: Collection[str] = ()
    ) -> list[Run]:
        """The list of each corpus for each query by an arm of words, `limit` long at most. but:
        corpora that are left out."""
        return [
            Run.of(arm, name, self._by_words(arm, store, query, limit), number)
            for name, store in self.stores.items()
            if name not in but
            for number, query in enumerate(queries)
        ]

    def at_once(
        self, corpora: Collection[str], queries: Sequence[str], vectors: Vectors, limit: int
    ) -> list[Run]:
        """The lists of bm25, dense and sparse of some of `batched`, a round trip for each query."""
        runs: list[Run] = []
        for name, store in self.stores.items():
            if name not in corpora or not isinstance(store, Batched):
                continue
            dense, sparse = vectors.dense.get(name, ()), vectors.sparse.get(name, ())
            for number, asked in enumerate(zip_longest(queries, dense, sparse)):
                words, near, weighed = asked
                found = store.lists(limit, self.scope, words=words, vector=near, sparse=weighed)
                runs += [
                    Run.of(arm, name, one, number)
                    for arm, wanted, one in zip(_AT_ONCE, asked, found, strict=True)
                    if wanted is not None
                ]
        return runs

    def dense(self, vectors: Vectors, limit: int) -> list[Run]:
        """The dense list of each corpus for each of its queries' vectors."""
        return [
            Run.of(Arm.DENSE, name, self.stores[name].dense(vector, limit, self.scope), number)
            for name, of_corpus in vectors.dense.items()
            for number, vector in enumerate(of_corpus)
        ]

    def sparse(self, vectors: Vectors, limit: int) -> list[Run]:
        """The sparse list of each corpus for each of its queries' vectors."""
        return [
            Run.of(Arm.SPARSE, name, self.stores[name].sparse(vector, limit, self.scope), number)
            for name, of_corpus in vectors.sparse.items()
            for number, vector in enumerate(of_corpus)
        ]

    def scores(
        self,
        runs: Sequence[Run],
        keys: Sequence[ChunkKey],
        query: str,
        vectors: Vectors,
    ) -> dict[Arm, dict[ChunkKey, float]]:
        """Every arm's raw score for the question of every chunk in `keys`, also of those that the
        arm did not return.

        Only arms that have a run are scored. A chunk that was deleted meanwhile may be absent.
        """
        scores: dict[Arm, dict[ChunkKey, float]] = {run.arm: {} for run in runs}
        wanted = set(keys)
        for run in runs:
            if run.query:
                continue
            known = scores[run.arm]
            known.update((key, score) for key, score in run.ranked if key in wanted)
            missing = [key.key for key in keys if key.corpus == run.corpus and key not in known]
            if not missing:
                continue
            store = self.stores[run.corpus]
            if run.arm is Arm.BM25:
                found = store.bm25_scores(query, missing)
            elif run.arm is Arm.BM25_EXACT:
                found = self.exact.of(store).scores(query, missing)
            elif run.arm is Arm.SPARSE:
                found = store.sparse_scores(vectors.sparse[run.corpus][0], missing)
            else:
                found = store.dense_scores(vectors.dense[run.corpus][0], missing)
            known.update((ChunkKey(run.corpus, key), score) for key, score in found.items())
        return scores

    def fetch(self, keys: Sequence[ChunkKey]) -> dict[ChunkKey, ChunkRecord]:
        """The chunks of `keys`, one read per corpus; those deleted meanwhile are absent."""
        return self._each(keys, lambda store, own: store.fetch(own))

    def read(self, keys: Sequence[ChunkKey]) -> dict[ChunkKey, ChunkRecord]:
        """The chunks of `keys` that the scope sees; those deleted meanwhile are absent.

        An arm found them in the scope already, by an index of it; here each document's own metadata
        and readers are asked, which have a checksum, so that a damaged index shows nobody anything.
        """
        sees = self.scope.sees
        found = self.fetch(keys)
        return {key: one for key, one in found.items() if sees(one.metadata, one.readers)}

    def chunk_vectors(self, keys: Sequence[ChunkKey]) -> dict[ChunkKey, Vector]:
        """The unit vectors of chunks, float32 [d]; those deleted meanwhile are absent."""
        return self._each(keys, lambda store, own: store.vectors(own))

    def described(self, keys: Sequence[ChunkKey]) -> dict[ChunkKey, Described]:
        """Metadata and date of the chunks' documents; those deleted meanwhile are absent."""
        return self._each(keys, lambda store, own: store.described(own))

    def extents(self, keys: Sequence[ChunkKey], reach: int | None) -> dict[ChunkKey, Extent]:
        """From where to where `neighbours` would reach; those deleted meanwhile are absent."""
        return self._each(keys, lambda store, own: store.extents(own, reach))

    def neighbours(
        self, keys: Sequence[ChunkKey], reach: int | None
    ) -> dict[ChunkKey, Sequence[ChunkRecord]]:
        """Of each chunk those of its document at most `reach` places away (None: all of them),
        itself included, in order."""
        return self._each(keys, lambda store, own: store.neighbours(own, reach))

    def _each(
        self,
        keys: Sequence[ChunkKey],
        ask: Callable[[CorpusStore, list[int]], Mapping[int, Found]],
    ) -> dict[ChunkKey, Found]:
        """What each corpus says of its own among the keys, in one question."""
        answers: dict[ChunkKey, Found] = {}
        for name, store in self.stores.items():
            own = [key.key for key in keys if key.corpus == name]
            if own:
                found = ask(store, own)
                answers.update((ChunkKey(name, key), value) for key, value in found.items())
        return answers

    def _by_words(
        self, arm: Arm, store: CorpusStore, query: str, limit: int
    ) -> list[tuple[int, float]]:
        if arm is Arm.BM25:
            return store.bm25(query, limit, self.scope)
        inside = None if self.scope == EVERYTHING else partial(store.in_scope, scope=self.scope)
        return self.exact.of(store).search(query, limit, inside)
