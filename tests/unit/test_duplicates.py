"""Near-duplicates: what is the same goes behind the best of them, and nothing else does."""

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.retrieve.corpus.chunk import TokenCounter, chunk
from services.retrieve.search.duplicates import SAME, collapse, resemblance
from tests.passages import passage
from tests.suite import REPOSITORY

FOOTERS = (
    "Published by the documentation team. Was this page helpful? Copyright 2024, all rights "
    "reserved, version three.",
    "Imprint, privacy, terms of use. Last reviewed in March by the editors; print this page, or "
    "send it to a friend.",
)
PAGES = [page.read_text() for page in sorted((REPOSITORY / "docs").rglob("*.md"))]


@pytest.fixture(scope="module")
def counter(minilm_dir: Path) -> TokenCounter:
    return TokenCounter((minilm_dir / "tokenizer.json").read_bytes())


def texts(page: str, counter: TokenCounter, tokens: int, overlap: int) -> list[str]:
    return [one.text for one in chunk(page, None, counter, tokens, overlap)]


def kept(*passages: str) -> list[tuple[int, list[int]]]:
    """The numbers of the passages that are kept, each with those behind it."""
    found = collapse([passage(number, text=text) for number, text in enumerate(passages)])
    return [(one.record.number, [other.record.number for other in behind]) for one, behind in found]


def test_equal_texts_go_behind_the_best_whatever_their_case_and_white_space() -> None:
    assert kept("One  page", "another", "one\npage", "ONE PAGE ") == [(0, [2, 3]), (1, [])]


def test_a_short_text_is_the_same_only_if_it_is_equal() -> None:
    assert kept("Yes.", "No.", "yes.") == [(0, [2]), (1, [])]
    assert kept("", "  ", "a") == [(0, [1]), (2, [])]


def test_texts_of_different_parts_of_speech_in_common_are_not_the_same() -> None:
    assert kept("the gate opens at nine in the morning", "the gate closes at nine at night") == [
        (0, []),
        (1, []),
    ]


def test_nothing_is_behind_a_passage_that_it_does_not_itself_resemble() -> None:
    words = [f"w{number}" for number in range(100)]
    first, second, third = (" ".join(words[start : start + 60]) for start in (0, 18, 36))
    both = resemblance([one.split() for one in (first, second, third)])
    assert both[0, 1] >= SAME
    assert both[1, 2] >= SAME
    assert both[0, 2] < SAME
    assert kept(first, second, third) == [(0, [1]), (2, [])]


def test_scripts_without_spaces_are_read_by_their_characters() -> None:
    page = "退職金制度については就業規則の第五章に定めがあります。"
    assert kept(page, page + "更新日三月", "有給休暇の申請は上長へ。") == [(0, [1]), (2, [])]


@pytest.mark.parametrize(("tokens", "overlap"), [(256, 32), (128, 16), (256, 120)])
def test_neighbouring_chunks_of_the_handbook_are_not_duplicates(
    counter: TokenCounter, tokens: int, overlap: int
) -> None:
    for page in PAGES:
        cut = texts(page, counter, tokens, overlap)
        pairs = resemblance([one.casefold().split() for one in cut])
        assert all(pairs[a, b] < 0.4 for a, b in pairwise(range(len(cut))))
        assert len(collapse([passage(n, text=one) for n, one in enumerate(cut)])) == len(cut)


def test_pages_published_again_with_another_footer_are_duplicates(counter: TokenCounter) -> None:
    same = []
    for page in PAGES:
        first, again = (
            texts(f"{page.strip()}\n\n{footer}", counter, 256, 32) for footer in FOOTERS
        )
        both = resemblance([one.casefold().split() for one in (*first, *again)])
        same += list(both[: len(first), len(first) :].max(axis=1) >= SAME)
    assert np.mean(same) > 0.95


words = st.lists(st.sampled_from("abcdefg"), max_size=12)


@given(st.lists(words, max_size=8))
def test_the_resemblance_is_the_jaccard_index_of_the_runs_of_five_words(
    found: list[list[str]],
) -> None:
    def shingles(one: list[str]) -> set[tuple[str, ...]]:
        width = min(5, len(one))
        return {tuple(one[n : n + width]) for n in range(len(one) - width + 1)} if one else set()

    def jaccard(a: set[tuple[str, ...]], b: set[tuple[str, ...]]) -> float:
        return len(a & b) / len(a | b) if a | b else 0.0

    sets = [shingles(one) for one in found]
    expected = [[jaccard(a, b) for b in sets] for a in sets]
    assert resemblance(found) == pytest.approx(np.array(expected).reshape(len(sets), len(sets)))


@given(st.lists(words.map(" ".join), max_size=12))
def test_every_passage_is_kept_or_behind_one_and_the_best_stay_in_order(found: list[str]) -> None:
    groups = kept(*found)
    assert sorted(n for one, behind in groups for n in (one, *behind)) == list(range(len(found)))
    firsts = [one for one, _ in groups]
    assert firsts == sorted(firsts)
    assert all(one < other for one, behind in groups for other in behind)
