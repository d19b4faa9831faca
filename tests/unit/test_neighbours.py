"""Neighbours: passages with what stands around them, no text twice and none made up."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from services.retrieve.search.candidates import ChunkKey
from services.retrieve.search.neighbours import Widened, affordable, join, widen
from services.retrieve.search.pack import Passage
from services.retrieve.stores.base import ChunkRecord, Extent
from tests.passages import chunk, found

TEXT = "Alpha beta gamma. Delta epsilon zeta.\n\nEta theta iota. Kappa lambda my."
# With overlaps, and with white space between two of them that is in neither.
CUTS = [(0, 17), (11, 37), (39, 54), (55, 71)]


def chunks(document: str = "d", first_key: int = 0) -> list[ChunkRecord]:
    return [
        chunk(n, TEXT[start:end], document=document, start=start, key=first_key + n)
        for n, (start, end) in enumerate(CUTS)
    ]


def around(
    records: list[ChunkRecord], reach: int | None, corpus: str = "c"
) -> dict[ChunkKey, list[ChunkRecord]]:
    """What a store gives: of each chunk those at most `reach` places away."""
    far = len(records) if reach is None else reach
    return {
        ChunkKey(corpus, one.key): [
            other for other in records if abs(other.number - one.number) <= far
        ]
        for one in records
    }


def words(corpus: str, text: str) -> int:
    return len(text.split())


def squeezed(text: str) -> str:
    return " ".join(text.split())


def ids(widened: list[Widened]) -> list[tuple[str, int, int, list[str]]]:
    return [
        (
            one.passage.record.id,
            one.passage.record.start,
            one.passage.record.end,
            [hit.record.id for hit in one.hits],
        )
        for one in widened
    ]


def test_a_passage_is_widened_by_its_neighbours_and_what_they_share_stands_once() -> None:
    every = chunks()
    [one] = widen([found(every[1], 0.8)], around(every, 1), words)
    record = one.passage.record
    assert record.text == "Alpha beta gamma. Delta epsilon zeta.\n\nEta theta iota."
    assert (record.id, record.number, record.start, record.end) == ("d#1", 1, 0, 54)
    assert record.tokens == 9
    assert one.passage.ranked.score == 0.8
    assert one.hits == (found(every[1], 0.8),)


def test_the_whole_document_comes_back_but_for_the_white_space_between_chunks() -> None:
    every = chunks()
    [one] = widen([found(every[2])], around(every, None), words)
    assert squeezed(one.passage.record.text) == squeezed(TEXT)
    assert len(one.passage.record.text) == one.passage.record.end - one.passage.record.start


def test_two_hits_that_touch_become_one_at_the_better_place() -> None:
    every, other = chunks(), chunks("e", 100)
    passages = [found(every[3], 0.9), found(other[0], 0.8), found(every[0], 0.7)]
    both = around(every, 1) | around(other, 0)
    assert ids(widen(passages, both, words)) == [
        ("d#3", 0, 71, ["d#3", "d#0"]),
        ("e#0", 0, 17, ["e#0"]),
    ]
    assert ids(widen(passages, around(every, 0), words)) == [
        ("d#3", 55, 71, ["d#3"]),
        ("e#0", 0, 17, ["e#0"]),
        ("d#0", 0, 17, ["d#0"]),
    ]


def test_a_chain_of_hits_becomes_one_also_where_its_ends_do_not_touch() -> None:
    every = chunks()
    passages = [found(every[0], 0.9), found(every[3], 0.8), found(every[1], 0.7)]
    assert ids(widen(passages, around(every, 1), words)) == [("d#0", 0, 71, ["d#0", "d#3", "d#1"])]


def test_a_passage_ends_at_a_chunk_that_is_gone_or_may_not_be_seen() -> None:
    every = chunks()
    seen = {ChunkKey("c", 3): [every[0], every[2], every[3]]}
    assert ids(widen([found(every[3])], seen, words)) == [("d#3", 39, 71, ["d#3"])]


def test_a_passage_without_known_neighbours_stays_as_it_is() -> None:
    passage = found(chunks()[1])
    assert widen([passage], {}, words) == [Widened(passage, (passage,))]
    assert widen([passage], {passage.ranked.key: []}, words) == [Widened(passage, (passage,))]
    assert widen([], {}, words) == []


def test_the_same_document_in_two_corpora_is_two() -> None:
    every = chunks()
    passages = [found(every[0], 0.9, "a"), found(every[1], 0.8, "b")]
    assert len(widen(passages, around(every, 1, "a") | around(every, 1, "b"), words)) == 2


def test_tokens_are_counted_by_the_corpus_of_the_passage() -> None:
    every = chunks()

    def count(corpus: str, text: str) -> int:
        return len(text) if corpus == "letters" else words(corpus, text)

    passages = [found(every[0], 0.9, "letters"), found(every[0], 0.8, "words")]
    both = around(every, 1, "letters") | around(every, 1, "words")
    assert [one.passage.record.tokens for one in widen(passages, both, count)] == [37, 6]


def test_the_best_are_widened_as_far_as_the_characters_go() -> None:
    def paid(most: int, *extents: tuple[str, int, int]) -> list[int]:
        keys = [ChunkKey("c", number) for number in range(len(extents))]
        known = {key: Extent(*one) for key, one in zip(keys, extents, strict=True)}
        # In the order of the keys, whatever that of the extents.
        known = dict(reversed(known.items()))
        return [key.key for key in affordable(keys, known, most)]

    assert paid(10, ("a", 0, 10), ("b", 0, 1)) == [0]
    assert paid(10, ("a", 0, 9), ("b", 0, 9), ("b", 0, 1)) == [0, 2]
    # What is shared costs once.
    assert paid(10, ("a", 0, 10), ("a", 0, 10), ("a", 3, 8)) == [0, 1, 2]
    assert paid(10, ("a", 0, 4), ("a", 8, 10), ("a", 2, 9), ("a", 0, 10)) == [0, 1, 2, 3]
    assert paid(9, ("a", 0, 4), ("a", 8, 10), ("a", 2, 9)) == [0, 1]
    assert affordable([ChunkKey("c", 1)], {}, 0) == [ChunkKey("c", 1)]


def test_many_hits_of_a_long_document_share_its_chunks() -> None:
    every = [chunk(n, "word", start=5 * n) for n in range(2000)]
    shared = tuple(every)
    passages = [found(every[n], 0.9 - n / 10_000) for n in range(0, 2000, 5)]
    looked = 0

    class Counted(tuple[ChunkRecord, ...]):
        """The chunks of the document, counting how often one is looked at."""

        __slots__ = ()

        def __getitem__(self, place: Any) -> Any:
            nonlocal looked
            looked += 1 if isinstance(place, int) else len(range(*place.indices(len(self))))
            return super().__getitem__(place)

    chunks = Counted(shared)
    [one] = widen(passages, {hit.ranked.key: chunks for hit in passages}, words)
    assert one.passage.record.tokens == 2000
    assert len(one.hits) == 400
    # A search for its own place and for holes in each hit, and the document once.
    assert looked < 400 * 60 + 2000


@st.composite
def documents(draw: st.DrawFn) -> tuple[str, list[ChunkRecord]]:
    """A text and chunks of it: they overlap or leave out nothing but white space."""
    text = draw(st.text("abc \n", min_size=1, max_size=80))
    cuts: list[ChunkRecord] = []
    start, end = 0, 0
    while end < len(text):
        start = draw(st.integers(min(start + 1, end), end)) if cuts else 0
        while (
            start == end and start < len(text) - 1 and text[start].isspace() and draw(st.booleans())
        ):
            start, end = start + 1, end + 1
        end = draw(st.integers(max(end, start) + 1, len(text)))
        cuts.append(chunk(len(cuts), text[start:end], start=start))
    return text, cuts


@given(documents(), st.data(), st.integers(0, 4) | st.none())
def test_widening_never_makes_text_up_and_never_gives_any_twice(
    document: tuple[str, list[ChunkRecord]], data: st.DataObject, reach: int | None
) -> None:
    text, every = document
    hits: list[Passage] = [
        found(one) for one in data.draw(st.lists(st.sampled_from(every), unique_by=lambda c: c.key))
    ]
    widened = widen(hits, around(every, reach), words)
    seen = []
    for one in widened:
        record = one.passage.record
        assert len(record.text) == record.end - record.start
        for mine, its in zip(record.text, text[record.start : record.end], strict=True):
            assert mine == its or (mine == "\n" and its.isspace())
        for hit in one.hits:
            assert record.start <= hit.record.start
            assert hit.record.end <= record.end
        assert one.hits[0].record.id == record.id
        seen.append((record.start, record.end))
    hit_ids = [hit.record.id for one in widened for hit in one.hits]
    assert sorted(hit_ids) == sorted(hit.record.id for hit in hits)
    best = [hits.index(one.hits[0]) for one in widened]
    assert best == sorted(best)


def test_a_chunk_inside_another_adds_nothing() -> None:
    assert join([chunk(0, "abcdef"), chunk(1, "cd", start=2), chunk(2, "fg", start=5)]) == "abcdefg"
