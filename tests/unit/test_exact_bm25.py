"""The exact arm, and the word index held to it.

rank-bm25's formulas are computed on the terms of the word index. What differs between the two is
the length of a text: the word index keeps it in one byte, as Lucene does. Lengths to 40 are exact,
longer ones are rounded down to 4 significant bits (over 24), by less than a ninth. So:

- with lengths rounded the same way, every score is the same, and so is the order;
- against true lengths, a score of the word index is higher by less than an eighth.
"""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from services.retrieve.search.exact_bm25 import ExactBm25
from services.retrieve.stores.local.lexical import LexicalIndex
from tests.suite import REPOSITORY

Texts = list[tuple[int, str]]


def handbook() -> Texts:
    """The paragraphs of the handbook."""
    pages = [path.read_text() for path in sorted((REPOSITORY / "docs").rglob("*.md"))]
    return list(enumerate((part for page in pages for part in page.split("\n\n")), start=1))


def rounded(length: int) -> int:
    """A length of a text as one byte of Lucene's (SmallFloat.intToByte4) gives it back."""
    over = length - 24
    if over < 16:
        return length
    shift = over.bit_length() - 4
    return 24 + (over >> shift << shift)


def assert_agreement(texts: Texts, queries: Sequence[str]) -> None:
    """The word index agrees with rank-bm25 as the module says."""
    index = LexicalIndex.build(None, "en", texts)
    exact = ExactBm25(texts, index.terms)
    alike = ExactBm25(texts, index.terms)
    assert alike._okapi is not None
    alike._okapi.doc_len = [rounded(length) for length in alike._okapi.doc_len]
    overlap = []
    for query in queries:
        fast, same = index.search(query, len(texts)), alike.search(query, len(texts))
        assert {key for key, _ in fast} == {key for key, _ in same}
        scores = dict(same)
        assert [score for _, score in fast] == pytest.approx([s for _, s in same], rel=1e-5)
        assert [s for _, s in fast] == pytest.approx([scores[key] for key, _ in fast], rel=1e-5)
        true = exact.scores(query, [key for key, _ in fast])
        ratios = np.array([score / true[key] for key, score in fast])
        assert (ratios > 1 - 1e-5).all()
        assert (ratios < 9 / 8).all()
        top = [{key for key, _ in arm} for arm in (fast[:10], exact.search(query, 10))]
        overlap.append(len(top[0] & top[1]) / max(1, len(top[1])))
    assert np.mean(overlap) > 0.95


def test_the_word_index_agrees_with_rank_bm25_on_the_handbook() -> None:
    texts = handbook()
    assert_agreement(texts, [text[:80] for _, text in texts[::60] if text.strip()])


@pytest.mark.long
def test_the_word_index_agrees_with_rank_bm25_on_scientific_abstracts(datasets: Path) -> None:
    def rows(name: str) -> list[dict[str, str]]:
        return [json.loads(line) for line in (datasets / "scifact" / name).open()]

    texts = [
        (number, f"{row.get('title', '')}\n{row['text']}")
        for number, row in enumerate(rows("corpus.jsonl")[:1000], start=1)
    ]
    assert_agreement(texts, [row["text"] for row in rows("queries.jsonl")[:100]])


def words(text: str) -> list[str]:
    return text.split()


def test_only_what_holds_a_term_is_found_ties_by_key() -> None:
    arm = ExactBm25([(3, "a b"), (1, "a b"), (7, "c d"), (9, "")], words)
    assert [key for key, _ in arm.search("a a", 10)] == [1, 3]
    assert arm.search("nothing", 10) == []
    assert arm.search("a", 0) == []
    scores = arm.scores("a", [7, 3, 1000])
    assert scores == {7: 0.0, 3: pytest.approx(arm.search("a", 1)[0][1])}


def test_as_many_as_are_in_scope_are_found() -> None:
    arm = ExactBm25([(key, "word " * key) for key in range(1, 200)], words)
    found = arm.search("word", 5, lambda keys: {key for key in keys if key <= 3})
    assert sorted(key for key, _ in found) == [1, 2, 3]


@pytest.mark.parametrize("bodies", [[], [(1, ""), (2, "")]])
def test_a_corpus_without_words_finds_nothing(bodies: Texts) -> None:
    arm = ExactBm25(bodies, words)
    assert arm.search("word", 5) == []
    assert arm.scores("word", [1]) == {key: 0.0 for key, _ in bodies[:1]}


def test_a_word_that_every_text_holds_still_counts() -> None:
    assert [key for key, _ in ExactBm25([(1, "a")], words).search("a", 5)] == [1]
