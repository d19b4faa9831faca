"""Near-duplicates: what is the same goes behind the best of them, and nothing else does."""

import random
import tracemalloc
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.retrieve.corpus.chunk import TokenCounter, chunk
from services.retrieve.search.duplicates import SAME, collapse
from tests.passages import passage
from tests.suite import REPOSITORY

FOOTERS = (
    "Published by the documentation team. Was this page helpful? Copyright 2024, all rights "
    "reserved, version three.",
    "Imprint, privacy, terms of use. Last reviewed in March by the editors; print this page, or "
    "send it to a friend.",
)
# Every third page of the handbook.
PAGES = [page.read_text() for page in sorted((REPOSITORY / "docs").rglob("*.md"))[::3]]


@pytest.fixture(scope="module")
def counter(minilm_dir: Path) -> TokenCounter:
    return TokenCounter((minilm_dir / "tokenizer.json").read_bytes())


def texts(page: str, counter: TokenCounter, tokens: int, overlap: int) -> list[str]:
    return [one.text for one in chunk(page, None, (), counter, tokens, overlap)]


def kept(*passages: str) -> list[tuple[int, list[int]]]:
    """The numbers of the passages that are kept, each with those behind it."""
    found = collapse([passage(number, text=text) for number, text in enumerate(passages)])
    return [(one.record.number, [other.record.number for other in behind]) for one, behind in found]


def resemblance(one: str, other: str) -> float:
    """The Jaccard index of the runs of five words, by its definition."""
    a, b = _shingles(one.casefold().split()), _shingles(other.casefold().split())
    return len(a & b) / len(a | b) if a | b else 0.0


def _shingles(text: Sequence[str]) -> set[tuple[str, ...]]:
    width = min(5, len(text))
    return {tuple(text[n : n + width]) for n in range(len(text) - width + 1)} if text else set()


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
    assert resemblance(first, second) >= SAME
    assert resemblance(second, third) >= SAME
    assert resemblance(first, third) < SAME
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
        assert all(resemblance(one, other) < 0.4 for one, other in pairwise(cut))
        assert len(collapse([passage(n, text=one) for n, one in enumerate(cut)])) == len(cut)


def test_pages_published_again_with_another_footer_are_duplicates(counter: TokenCounter) -> None:
    same = []
    for page in PAGES:
        first, again = (
            texts(f"{page.strip()}\n\n{footer}", counter, 256, 32) for footer in FOOTERS
        )
        same += [max(resemblance(one, other) for other in again) >= SAME for one in first]
    assert sum(same) > 0.95 * len(same)


words = st.lists(st.sampled_from("abcdefg"), max_size=12)
# Templates: texts that have long runs of words in common, in any order.
phrases = st.lists(st.sampled_from([f"{n} of the {n} is {n}" for n in range(6)]), max_size=8)


@given(st.lists((words | phrases).map(" ".join), max_size=12))
def test_a_passage_goes_behind_the_first_kept_one_that_it_is_the_same_as(found: list[str]) -> None:
    expected: list[tuple[int, list[int]]] = []
    for number, text in enumerate(found):
        for first, behind in expected:
            equal = text.split() == found[first].split()
            if equal or resemblance(text, found[first]) >= SAME:
                behind.append(number)
                break
        else:
            expected.append((number, []))
    assert kept(*found) == expected


@pytest.mark.parametrize("shared", [0, 0.6])
def test_memory_grows_with_the_texts_and_not_with_their_pairs(shared: float) -> None:
    made = random.Random(1)

    def text(words: int) -> str:
        return " ".join(f"w{made.randrange(5000)}" for _ in range(words))

    template = text(int(100 * shared))
    many = [passage(n, text=f"{template} {text(100 - int(100 * shared))}") for n in range(2000)]
    tracemalloc.start()
    try:
        assert len(collapse(many)) == len(many)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    # A matrix of all pairs has 32 MB of numbers.
    assert peak < 20_000_000


@given(st.lists(words.map(" ".join), max_size=12))
def test_every_passage_is_kept_or_behind_one_and_the_best_stay_in_order(found: list[str]) -> None:
    groups = kept(*found)
    assert sorted(n for one, behind in groups for n in (one, *behind)) == list(range(len(found)))
    firsts = [one for one, _ in groups]
    assert firsts == sorted(firsts)
    assert all(one < other for one, behind in groups for other in behind)
