"""The word index: searching within allowed chunks, in any language, with any query."""

import numpy as np
import pytest

from services.retrieve.stores.local.lexical import Keys, LexicalIndex
from tests.unspaced import PASSAGES

CHUNKS = 3000


@pytest.fixture(scope="module")
def index() -> LexicalIndex:
    """Texts of words that are rarer the higher their number; keys have gaps."""
    random = np.random.default_rng(1)
    words = np.minimum(random.zipf(1.4, (CHUNKS, 60)), 5000)
    return LexicalIndex.build(
        None, "en", ((3 * key, " ".join(f"w{n}" for n in row)) for key, row in enumerate(words))
    )


def some(share: float) -> Keys:
    random = np.random.default_rng(2)
    return np.flatnonzero(random.random(3 * CHUNKS) < share).astype(np.int64)


@pytest.mark.parametrize("limit", [1, 10, 100, 10**6])
@pytest.mark.parametrize("share", [0.0, 0.001, 0.01, 0.1, 0.5, 1.0])
@pytest.mark.parametrize("query", ["w7", "w1 w30 w500", "w4000 w3999 w2 w2", "nowhere"])
def test_within_allowed_chunks_is_all_of_it_with_the_same_scores(
    index: LexicalIndex, query: str, share: float, limit: int
) -> None:
    allowed = some(share)
    keys = set(allowed.tolist())
    expected = [hit for hit in index.search(query, CHUNKS) if hit[0] in keys]
    found = index.search(query, limit, allowed)
    wanted = expected[:limit]
    assert [score for _, score in found] == pytest.approx([score for _, score in wanted])
    # Among those that share the last score, any may be given.
    last = wanted[-1][1] * (1 + 1e-6) if wanted else 0.0
    assert {k for k, score in found if score > last} == {k for k, score in wanted if score > last}
    assert {key for key, _ in found} <= {key for key, _ in expected}


def test_allowed_chunks_that_are_the_worst_of_all_are_found(index: LexicalIndex) -> None:
    worst = sorted(key for key, _ in index.search("w1 w2 w3", CHUNKS)[-600:])
    found = index.search("w1 w2 w3", 50, np.array(worst, np.int64))
    assert len(found) == 50
    assert {key for key, _ in found} <= set(worst)


def test_keys_that_are_no_more_allow_nothing(index: LexicalIndex) -> None:
    assert index.search("w1", 10, np.array([1, 2, 10**12], np.int64)) == []


def test_an_index_without_chunks_finds_nothing() -> None:
    index = LexicalIndex.build(None, "en", [])
    assert index.search("word", 10) == []
    assert index.search("word", 10, np.array([1], np.int64)) == []
    assert index.scores("word", [1]) == {}


def test_a_built_index_takes_changes() -> None:
    index = LexicalIndex.build(None, "en", [(1, "apple"), (2, "pear")])
    index.write([1], [(3, "apples")])
    index.reload()
    assert [key for key, _ in index.search("apple", 10)] == [3]
    index.close()


@pytest.mark.parametrize(
    "query",
    [
        "",
        " \t\n",
        "the of and to",
        "🚀 👩‍👩‍👧 1️⃣",
        ".*(a+)+$ [^\\w]{1,9999} (?<!x)",
        "'; DROP TABLE chunks; -- %s ${x} {{y}}",
        'body:w7 AND key:[0 TO 9] OR "w7 w8"~3 -w9 *',
        "w7\x00\x00w8",
        "\ufeff\u200b\u202e\ufffe",
        "Z" + "\u0301" * 5000,
        "w1 " * 350_000,
        "図" * 300_000,
        "x" * 1_000_000,
    ],
)
def test_any_query_is_words_or_nothing(index: LexicalIndex, query: str) -> None:
    found = index.search(query, 10)
    assert len(found) <= 10
    assert all(score > 0 for _, score in found)
    allowed = some(0.001)
    assert {key for key, _ in index.search(query, 10, allowed)} <= set(allowed.tolist())


@pytest.mark.parametrize("language", ["en", "mul", "zh"])
@pytest.mark.parametrize("written", PASSAGES)
def test_languages_without_spaces_are_searched_in_any_corpus(written: str, language: str) -> None:
    pairs = PASSAGES[written]
    english = ((100 + key, f"A passage in English, number {key}.") for key in range(50))
    index = LexicalIndex.build(
        None, language, [*enumerate((passage for passage, _ in pairs)), *english]
    )
    best = [index.search(question, 1)[0][0] for _, question in pairs]
    assert best == list(range(len(pairs)))


@pytest.mark.parametrize(
    ("stored", "query"),
    [
        ("我家的猫很可爱", "猫"),
        ("東京都庁の受付", "都庁"),
        ("ｶﾀｶﾅとＡＢＣ", "カタカナ abc"),
        ("정보보안교육", "보안"),
        ("refdesk的安装方法", "安装 refdesk"),
        ("第2章 契約", "2"),
    ],
)
def test_a_part_of_what_is_written_together_finds_it(stored: str, query: str) -> None:
    index = LexicalIndex.build(None, "en", [(1, stored), (2, "something else")])
    terms = index.terms(query)
    assert terms
    assert set(terms) <= set(index.terms(stored))
    assert [key for key, _ in index.search(query, 10)] == [1]
