"""What every engine behind `CorpusStore` must do: writing, searching, reading."""

import math
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from services.retrieve.stores.base import CorpusStore, NewChunk, NewDocument
from shared.errors import ApiError
from tests.corpora import DIMENSION, document, vector_of


def ids(store: CorpusStore, hits: list[tuple[int, float]]) -> list[str]:
    """The chunk ids of a list of hits, in its order."""
    return [record.id for record in store.fetch([key for key, _ in hits]).values()]


def test_an_empty_corpus_finds_nothing(store: CorpusStore) -> None:
    assert store.bm25("anything", 10) == []
    assert store.dense(vector_of("anything"), 10) == []
    assert store.bm25_scores("anything", [1]) == {}
    assert store.dense_scores(vector_of("anything"), [1]) == {}
    assert store.fetch([1, 2]) == {}
    assert store.documents(10, None) == []
    assert store.document("d") is None
    assert (store.info.documents, store.info.chunks, store.info.writes) == (0, 0, 0)


def test_what_was_written_is_found_by_both_arms_and_read_back(store: CorpusStore) -> None:
    written = document("a/b c", ["rivers flow", "mountains stand"], "Earth", {"tag": ["x", "y"]})
    result = store.write([written, document("d2", ["engines turn"])])
    assert [(one.id, one.status, one.chunks) for one in result.results] == [
        ("a/b c", "created", 2),
        ("d2", "created", 1),
    ]
    assert (result.documents, result.chunks, result.writes) == (2, 3, 1)
    assert ids(store, store.bm25("a mountain", 5)) == ["a/b c#1"]
    key = store.dense(vector_of("mountains stand"), 1)[0][0]
    record = store.fetch([key])[key]
    assert (record.id, record.document_id, record.title) == ("a/b c#1", "a/b c", "Earth")
    assert (record.text, record.number, record.count) == ("mountains stand", 1, 2)
    assert written.text[record.start : record.end] == record.text
    assert record.metadata == {"tag": ["x", "y"]}
    stored = store.document("a/b c")
    assert stored is not None
    assert (stored.text, stored.version, stored.chunks) == (written.text, 1, 2)


def test_the_title_is_searched_with_every_chunk(store: CorpusStore) -> None:
    store.write([document("d", ["one", "two"], "Lighthouses"), document("e", ["other"])])
    assert ids(store, store.bm25("lighthouse", 5)) == ["d#0", "d#1"]


def test_replacing_removes_all_of_the_old_version(store: CorpusStore) -> None:
    store.write([document("d", ["apples", "pears", "plums"]), document("e", ["apples and tea"])])
    old_keys = [key for key, _ in store.bm25("apples pears plums", 10)]
    result = store.write([document("d", ["cherries"])])
    assert result.results[0].status == "replaced"
    assert (result.documents, result.chunks) == (2, 2)
    assert ids(store, store.bm25("apples pears plums cherries", 10)) == ["d#0", "e#0"]
    assert {record.id for record in store.fetch(old_keys).values()} == {"e#0"}
    near = ids(store, store.dense(vector_of("pears"), 10))
    assert sorted(near) == ["d#0", "e#0"]
    stored = store.document("d")
    assert stored is not None
    assert stored.version == 2


def test_a_deleted_document_is_gone_and_its_keys_come_never_again(store: CorpusStore) -> None:
    store.write([document("d", ["apples"]), document("e", ["pears"])])
    (key,) = (key for key, _ in store.bm25("pears", 1))
    assert store.delete(["e"])
    assert not store.delete(["e"])
    assert store.bm25("pears", 1) == []
    assert store.dense_scores(vector_of("pears"), [key]) == {}
    assert store.bm25_scores("pears", [key]) == {}
    store.write([document("e", ["pears"])])
    assert store.bm25("pears", 1)[0][0] > key
    assert store.fetch([key]) == {}


def test_deleting_what_is_not_there_changes_nothing(store: CorpusStore) -> None:
    store.write([document("d", ["apples"])])
    assert not store.delete(["nobody"])
    assert store.info.writes == 1


def test_the_count_of_writes_rises_by_one_with_each_change(store: CorpusStore) -> None:
    store.write([document("d", ["a"]), document("e", ["b"])])
    store.write([document("d", ["c"])])
    store.delete(["e"])
    assert store.info.writes == 3
    store.write([])
    assert store.info.writes == 3


def test_dense_is_the_exact_cosine_in_falling_order(store: CorpusStore) -> None:
    texts = [f"text {number}" for number in range(300)]
    store.write([document(f"d{number}", [text]) for number, text in enumerate(texts)])
    query = vector_of("question")
    hits = store.dense(query, 20)
    expected = sorted((float(vector_of(text) @ query) for text in texts), reverse=True)[:20]
    assert [score for _, score in hits] == pytest.approx(expected, abs=1e-6)


def test_bm25_is_the_textbook_formula(store: CorpusStore) -> None:
    # Every length is below 40 terms, which Tantivy keeps exactly.
    texts = ["red fox", "red red hen pecks", "blue hen", "red " + "grain " * 7]
    store.write([document(f"d{number}", [text]) for number, text in enumerate(texts)])
    # Okapi BM25 as in Robertson and Zaragoza, 2009, with Lucene's idf.
    bags = [Counter(store.terms(text)) for text in texts]
    average = sum(bag.total() for bag in bags) / len(bags)

    def score(query: list[str], bag: Counter[str]) -> float:
        total = 0.0
        for term in query:
            frequency = sum(term in other for other in bags)
            idf = math.log(1 + (len(bags) - frequency + 0.5) / (frequency + 0.5))
            weight = bag[term] + 1.2 * (0.25 + 0.75 * bag.total() / average)
            total += idf * bag[term] * 2.2 / weight
        return total

    records = store.fetch([key for key, _ in store.dense(vector_of("any"), 4)])
    scores = store.bm25_scores("red hen", list(records))
    assert len(scores) == 4
    for key, value in scores.items():
        bag = bags[int(records[key].document_id[1:])]
        assert value == pytest.approx(score(["red", "hen"], bag), rel=1e-5)


def test_chosen_keys_get_the_very_scores_of_the_lists(store: CorpusStore) -> None:
    words = ["red", "blue", "green", "hen", "fox", "grain", "stone"]
    for start in range(0, 120, 10):  # several segments of the word index
        store.write(
            [
                document(f"d{n}", [" ".join(words[(n * k) % 7] for k in range(1, 9)) + f" x{n}"])
                for n in range(start, start + 10)
            ]
        )
    for number in range(0, 120, 9):
        store.delete([f"d{number}"])
    query, vector = "red red hen stone x7 x8", vector_of("question")
    words_list, dense_list = store.bm25(query, 60), store.dense(vector, 60)
    assert store.bm25_scores(query, [key for key, _ in words_list]) == dict(words_list)
    assert store.dense_scores(vector, [key for key, _ in dense_list]) == dict(dense_list)
    keys = [key for key, _ in store.dense(vector, 1000)]
    unmatched = set(keys) - {key for key, _ in store.bm25(query, 1000)}
    scores = store.bm25_scores(query, keys)
    assert set(scores) == set(keys)
    assert all(scores[key] == 0.0 for key in unmatched)


def test_equal_scores_come_in_the_order_of_their_keys(store: CorpusStore) -> None:
    store.write([document(f"d{number}", ["the same words"]) for number in range(5)])
    for hits in (store.bm25("same words", 5), store.dense(vector_of("the same words"), 5)):
        assert [key for key, _ in hits] == sorted(key for key, _ in hits)
        assert len({score for _, score in hits}) == 1


def test_a_term_named_twice_counts_twice(store: CorpusStore) -> None:
    store.write([document("d", ["red hen"]), document("e", ["blue fox"])])
    (once,) = store.bm25("red", 1)
    (twice,) = store.bm25("red red", 1)
    assert twice[1] == pytest.approx(2 * once[1], rel=1e-6)


@pytest.mark.parametrize(
    "query",
    [
        '"red',
        "red AND (hen",
        "title:hen",
        "hen~2 ^5 [a TO",
        "NOT hen",
        "-hen",
        "\\",
        "hen*",
        "日本",
    ],
)
def test_a_query_is_words_and_never_a_language(store: CorpusStore, query: str) -> None:
    store.write([document("d", ["red hen"]), document("e", ["日本"])])
    wanted = ["e#0"] if query == "日本" else [] if query == "\\" else ["d#0"]
    assert ids(store, store.bm25(query, 5)) == wanted


@pytest.mark.parametrize("query", ["the and of", "   ", "!?…", "\u200b", "🦊"])
def test_a_query_without_terms_finds_nothing_by_words(store: CorpusStore, query: str) -> None:
    store.write([document("d", ["the red hen"])])
    assert store.terms(query) == []
    assert store.bm25(query, 5) == []
    keys = store.keys_of("d")
    assert store.bm25_scores(query, keys) == dict.fromkeys(keys, 0.0)


def test_a_query_may_be_very_long(store: CorpusStore) -> None:
    store.write([document("d", ["the red hen"]), document("e", ["w1500"])])
    assert len(store.bm25(" ".join(f"w{n}" for n in range(2000)) + " hen", 5)) == 2


def test_asking_for_no_hits_gives_none(store: CorpusStore) -> None:
    store.write([document("d", ["red hen"])])
    assert store.bm25("hen", 0) == []
    assert store.dense(vector_of("hen"), 0) == []


def test_terms_are_those_of_the_index(store: CorpusStore) -> None:
    assert store.terms("The Cafés were running, running!") == ["cafe", "were", "run", "run"]


@pytest.mark.parametrize(
    "vector",
    [
        np.zeros(DIMENSION + 1, np.float32),
        np.full(DIMENSION, np.nan, np.float32),
        np.full(DIMENSION, np.inf, np.float32),
    ],
)
def test_a_vector_that_can_not_be_compared_is_refused(
    store: CorpusStore, vector: np.ndarray
) -> None:
    store.write([document("d", ["a"])])
    with pytest.raises(ValueError, match=r"vector"):
        store.dense(vector, 1)
    with pytest.raises(ValueError, match=r"vector"):
        store.dense_scores(vector, [1])


def test_vectors_that_do_not_fit_are_refused_and_nothing_is_written(store: CorpusStore) -> None:
    good = document("good", ["a"])
    chunk = NewChunk("b", 0, 1, 1)
    for vectors in (
        np.zeros((1, DIMENSION - 1), np.float32),
        np.zeros((2, DIMENSION), np.float32),
        np.full((1, DIMENSION), np.nan, np.float32),
    ):
        bad = NewDocument("bad", "h", None, None, "text", {}, "b", [chunk], vectors)
        with pytest.raises(ValueError, match=r"vector"):
            store.write([good, bad])
    assert store.info.documents == 0


def test_documents_are_listed_page_by_page_in_the_order_of_their_ids(store: CorpusStore) -> None:
    names = ["b", "a", "ä", "a/1", "Z", "c"]
    store.write([document(name, ["x"], title=name.upper()) for name in names])
    listed: list[str] = []
    after = None
    while page := store.documents(2, after):
        listed += [summary.id for summary in page]
        after = page[-1].id
    assert listed == sorted(names)


def test_known_tells_hash_and_chunks_of_stored_documents_only(store: CorpusStore) -> None:
    written = document("d", ["x", "y"])
    store.write([written])
    known = store.known(["d", "e"])
    assert list(known) == ["d"]
    assert (known["d"].content_hash, known["d"].chunks) == (written.content_hash, 2)


def test_readers_see_a_document_whole_while_it_is_replaced(store: CorpusStore) -> None:
    versions = [[f"version {n} part {part}" for part in range(4)] for n in range(40)]
    store.write([document("d", versions[0])])
    done = threading.Event()

    def read() -> int:
        seen = 0
        while not done.is_set():
            keys = {key for key, _ in store.bm25("version", 50)}
            keys |= {key for key, _ in store.dense(vector_of("version"), 50)}
            records = store.fetch(sorted(keys)).values()
            assert len({record.text.split()[1] for record in records}) <= 1
            assert len(records) in (0, 4)
            stored = store.document("d")
            assert stored is not None
            assert stored.text in {"\n".join(texts) for texts in versions}
            seen += 1
        return seen

    with ThreadPoolExecutor(3) as pool:
        readers = [pool.submit(read) for _ in range(3)]
        for texts in versions[1:]:
            store.write([document("d", texts)])
        done.set()
        assert all(reader.result() > 0 for reader in readers)


def test_writes_from_several_threads_all_take_effect(store: CorpusStore) -> None:
    with ThreadPoolExecutor(4) as pool:
        writes = [pool.submit(store.write, [document(f"d{n}", [f"word{n}"])]) for n in range(24)]
        for write in writes:
            write.result()
    assert (store.info.documents, store.info.writes) == (24, 24)
    for number in range(24):
        assert ids(store, store.bm25(f"word{number}", 2)) == [f"d{number}#0"]


def test_a_closed_store_says_that_the_corpus_is_gone(store: CorpusStore) -> None:
    store.write([document("d", ["a"])])
    store.close()
    store.close()
    for use in (lambda: store.fetch([1]), lambda: store.write([document("e", ["b"])])):
        with pytest.raises(ApiError) as failure:
            use()
        assert failure.value.status == 404
