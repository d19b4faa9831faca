"""Queries, writes and deletes go on at a steady rate through reindexes, and nothing is lost."""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import httpx
import pytest

from tests.reindexing import Corpus, text_of
from tests.suite import Suite

_PAUSE_S = 0.05  # between two calls of one kind
_SENTENCES = 6  # of a document: more than one chunk of 64 tokens


@dataclass
class Traffic:
    """Those who use a corpus meanwhile. turns: the last acknowledged write of a document. gone:
    documents whose deletion was acknowledged. failures: what was not answered as it should be."""

    url: str
    name: str
    turns: dict[str, int] = field(default_factory=dict)
    gone: set[str] = field(default_factory=set)
    failures: list[str] = field(default_factory=list)
    queries: int = 0
    _over: threading.Event = field(default_factory=threading.Event)
    _threads: list[threading.Thread] = field(default_factory=list)

    def __enter__(self) -> "Traffic":
        for work in (self._query, self._write, self._delete):
            thread = threading.Thread(target=self._steadily, args=(work,))
            thread.start()
            self._threads.append(thread)
        return self

    def __exit__(self, *error: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()

    def _steadily(self, work: Callable[[Corpus, int], None]) -> None:
        with httpx.Client(base_url=self.url, timeout=60) as http:
            corpus = Corpus(http, self.name)
            turn = 0
            while not self._over.is_set():
                turn += 1
                try:
                    work(corpus, turn)
                except (AssertionError, httpx.HTTPError) as error:
                    self.failures.append(repr(error))
                time.sleep(_PAUSE_S)

    def _query(self, corpus: Corpus, turn: int) -> None:
        number = turn % 10  # of documents that nobody changes
        found = corpus.found(f"t0n{number}")
        assert found == [f"d{number}"], found
        assert corpus.found(text_of(number, sentences=1), "dense"), "nothing is found"
        self.queries += 2

    def _write(self, corpus: Corpus, turn: int) -> None:
        number = 10 + turn % 20
        corpus.write({f"d{number}": text_of(number, turn, _SENTENCES)})
        self.turns[f"d{number}"] = turn
        if turn % 3 == 0:
            corpus.write({f"new{turn}": text_of(1000 + turn, turn, sentences=2)})
            self.turns[f"new{turn}"] = turn

    def _delete(self, corpus: Corpus, turn: int) -> None:
        number = 30 + turn
        if number < 80:
            corpus.delete([f"d{number}"])
            self.gone.add(f"d{number}")


@pytest.fixture
def corpus(suite: Suite) -> Corpus:
    http = httpx.Client(base_url=suite.url("retrieve"), timeout=120)
    corpus = Corpus.made(http, chunk_tokens=256)
    corpus.write({f"d{number}": text_of(number, 0, _SENTENCES) for number in range(80)})
    return corpus


def check(corpus: Corpus, traffic: Traffic) -> None:
    """Everything that was acknowledged holds."""
    assert traffic.failures == []
    assert traffic.queries > 20
    assert len(traffic.turns) > 10
    assert traffic.gone
    assert set(corpus.ids()) == {f"d{n}" for n in range(80)} - traffic.gone | set(traffic.turns)
    for id_, turn in traffic.turns.items():
        number = 1000 + turn if id_.startswith("new") else int(id_[1:])
        assert corpus.found(f"t{turn}n{number}") == [id_]
        for old in range(0, turn, 20):  # earlier turns of the same document
            if (turn - old) % 20 == 0:
                assert corpus.found(f"t{old}n{number}") == []
    for id_ in traffic.gone:
        assert corpus.found(f"t0n{id_[1:]}") == []


def test_nothing_is_lost_or_stale_while_a_corpus_is_cut_anew_and_then_its_language_changed(
    corpus: Corpus, suite: Suite
) -> None:
    with Traffic(suite.url("retrieve"), corpus.name) as traffic:
        time.sleep(0.5)
        first = corpus.succeeded(corpus.reindex(chunk_tokens=64))
        second = corpus.succeeded(corpus.reindex(language="de"))
        third = corpus.succeeded(corpus.rollback())
        time.sleep(0.5)
    assert [one["generation"] for one in (first, second, third)] == [2, 3, 4]
    check(corpus, traffic)
    info = corpus.info()
    assert (info["language"], info["chunk_tokens"], info["generation"]) == ("en", 64, 4)
