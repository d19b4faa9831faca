"""What must be true of a corpus after any fault: one checker for all fault tests.

Every acknowledged document is there, whole, read back as it was written and found by every arm; no
deleted one is; no document is half there; and the store finds nothing wrong with itself. It holds
for corpora whose vectors are `tests.corpora.vector_of` the chunks' texts, whatever cut the chunks.
"""

from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np
import pytest

from services.retrieve.stores.base import ChunkRecord, CorpusStore, Metadata
from tests.corpora import vector_of, words_of

ARMS = ("bm25", "dense", "sparse")


class Wanted(Protocol):
    """A document as it was acknowledged; a `NewDocument` is one."""

    @property
    def text(self) -> str: ...
    @property
    def title(self) -> str | None: ...
    @property
    def url(self) -> str | None: ...
    @property
    def metadata(self) -> Metadata: ...
    @property
    def readers(self) -> tuple[str, ...] | None: ...


State = Wanted | None  # None: not there


def require_sound(
    store: CorpusStore,
    expected: Mapping[str, Wanted],
    *,
    maybe: Mapping[str, Sequence[State]] | None = None,
    arms: Sequence[str] = ARMS,
) -> dict[str, Wanted]:
    """Fail unless the corpus holds just the expected documents; gives those that are there.

    maybe: what became of is not known, as a request was not answered: by id the states that it may
    be in beside the expected one. arms: those that must find each document; with `bm25` among them
    the store must find nothing wrong with itself, too.
    """
    if "bm25" in arms:
        assert list(store.verify()) == []
    unknown = maybe or {}
    listed = {one.id: one.chunks for one in store.documents(1_000_000, None)}
    found: dict[str, Wanted] = {}
    for id_ in sorted({*listed, *expected, *unknown}):
        there = _state(store, id_, [expected.get(id_), *unknown.get(id_, ())])
        assert (there is None) == (id_ not in listed), id_
        if there is not None:
            found[id_] = there
            records = _chunks(store, id_, there)
            assert listed[id_] == len(records)
            for record in records:
                _require_searchable(store, record, arms)
    assert store.info.documents == len(found)
    assert store.info.chunks == sum(listed.values())
    return found


def _state(store: CorpusStore, id_: str, allowed: Sequence[State]) -> State:
    """Which of the states a document is in; fails where it is in none of them."""
    stored = store.document(id_)
    if stored is None:
        assert None in allowed, f"{id_} is not there"
        assert store.keys_of(id_) == []
        return None
    for wanted in allowed:
        if wanted is not None and stored.text == wanted.text:
            assert (stored.title, stored.url) == (wanted.title, wanted.url)
            assert (stored.metadata, stored.readers) == (wanted.metadata, wanted.readers)
            return wanted
    raise AssertionError(f"{id_} is {stored.text[:80]!r}")


def _chunks(store: CorpusStore, id_: str, wanted: Wanted) -> list[ChunkRecord]:
    """The chunks of a document, once it is sure that they are all of it and nothing else."""
    keys = store.keys_of(id_)
    records = list(store.fetch(keys).values())
    assert [one.key for one in records] == keys
    assert [one.number for one in records] == list(range(len(keys)))
    covered = np.zeros(len(wanted.text), np.bool_)
    for one in records:
        assert one.document_id == id_
        assert one.count == len(keys)
        assert one.text == wanted.text[one.start : one.end]
        covered[one.start : one.end] = True
    left = [letter for letter, there in zip(wanted.text, covered, strict=True) if not there]
    assert not "".join(left).strip(), f"{id_} lacks {''.join(left)!r}"
    vectors = store.vectors(keys)
    for one in records:
        np.testing.assert_allclose(vectors[one.key], vector_of(one.text), atol=1e-3)
    return records


def _require_searchable(store: CorpusStore, record: ChunkRecord, arms: Sequence[str]) -> None:
    """Each arm finds a chunk by its own words as the best of all, or as good as the last one."""
    lists = []
    if "dense" in arms:
        lists.append(store.dense(vector_of(record.text), 20))
        assert lists[0][0][1] == pytest.approx(1.0, abs=1e-3)
    if "bm25" in arms and store.terms(record.text):
        lists.append(store.bm25(record.text, 20))
    if "sparse" in arms and store.info.sparse:
        lists.append(store.sparse(words_of(record.text), 20))
    for hits in lists:
        scores = dict(hits)
        if record.key not in scores:
            assert len(hits) == 20
            key, last = hits[-1]
            own = store.bm25_scores(record.text, [record.key, key])
            assert own[record.key] == pytest.approx(own[key]), (record.id, last)
