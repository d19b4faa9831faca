"""Thoughts before a text: told apart from it, however the text comes in pieces."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.generate.tiers.thoughts import Answer

# What a model writes, and what of it is its answer.
TEXTS = [
    ("Ada wrote it [1].", "Ada wrote it [1]."),
    ("<think>Who?\nAda.</think>\n\nAda wrote it [1].", "Ada wrote it [1]."),
    ("\n <think>\n\n</think>\n\nAda wrote it [1].", "Ada wrote it [1]."),
    ("<thinking>Who?</thinking>Ada [1].", "Ada [1]."),
    ("[THINK]Who?[/THINK]Ada [1].", "Ada [1]."),
    ("<think>Who writes </ and > here?</think>Ada", "Ada"),
    ("<think>What does </think> do? Hm.\n</think>\nIt ends them.", "It ends them."),
    ("<think>What does </think> do? Hm.</think> \r\nIt ends them.", "It ends them."),
    ("<think>What does </think> do? Hm.</think>", ""),
    ("<think>Who?</think>The tag </think> ends thoughts.", "The tag </think> ends thoughts."),
    ("<think>Who?</think>\n<think>Ada?</think>\nAda", "Ada"),
    ("<think>Who?</think>[THINK]Ada?[/THINK] Ada", "Ada"),
    ("<think>Who?</think>\n<think>Ada?", ""),
    ("<think></think>Ada", "Ada"),
    ("</think>\n\nAda", "Ada"),  # its thoughts were left out by the prompt
    ("<think>who?", ""),
    ("<think>who?</thi", ""),
    ("<thi", "<thi"),
    ("<thinner> is a tag", "<thinner> is a tag"),
    ("[1] says so", "[1] says so"),
    ("The tag <think> opens\n</think> closes", "The tag <think> opens\n</think> closes"),
    ("It ends with </think>, they say", "It ends with </think>, they say"),
    ("<think>a</think>\nb\n</think>\nc", "b\n</think>\nc"),
    ("", ""),
]


def pieces(text: str, cuts: list[int]) -> list[str]:
    ends = sorted({min(cut, len(text)) for cut in cuts} | {0, len(text)})
    return [text[a:b] for a, b in itertools.pairwise(ends)]


def read(answer: Answer, parts: list[str], *, cut: bool = False) -> str:
    """What is given of a text in parts."""
    return "".join([*map(answer.feed, parts), answer.close(cut=cut)])


@given(st.sampled_from(TEXTS), st.lists(st.integers(0, 60)))
def test_thoughts_at_the_beginning_are_left_out_however_they_come(
    text: tuple[str, str], cuts: list[int]
) -> None:
    written, answered = text
    answer = Answer(thinks_first=False)
    given_out = read(answer, pieces(written, cuts))
    assert given_out.strip() == answer.text == answered
    assert not answer.thought_aloud


@given(st.lists(st.integers(0, 60)))
def test_an_end_that_nothing_opened_shows_that_it_was_thoughts(cuts: list[int]) -> None:
    answer = Answer(thinks_first=False)
    written = "Who says </think>? Is it Ada?\n</think>\n<think>Hm.</think>\nAda [1]."
    given_out = read(answer, pieces(written, cuts))
    assert answer.text == "Ada [1]."
    if answer.thought_aloud:
        assert given_out.startswith("W")  # which can't be taken back
    else:
        assert given_out.strip() == answer.text


def test_thoughts_that_came_with_their_end_in_one_piece_were_not_given_out() -> None:
    answer = Answer(thinks_first=False)
    assert answer.feed("Who?\n</think>\n\nAda [1].") == "Ada [1]."
    assert not answer.thought_aloud


@pytest.mark.parametrize(
    ("written", "cut", "answered"),
    [
        ("Who?\n</think>\nAda [1].", False, "Ada [1]."),
        ("Who?\n</think>\nAda", True, "Ada"),
        ("Who?</think>Ada [1].", False, "Ada [1]."),
        ("What does </think> do?\n</think>\nAda [1].", False, "Ada [1]."),
        ("</think>Ada [1].", False, "Ada [1]."),
        ("<think>Who?</think>\nAda [1].", False, "Ada [1]."),
        ("Ada [1].", False, "Ada [1]."),  # it did not think
        ('{"tag": "<think>"}', False, '{"tag": "<think>"}'),
        ("Who? Is it", True, ""),
        ("</thi", True, ""),
        ("<think>Who?", False, ""),
        ("", False, ""),
    ],
)
@given(st.lists(st.integers(0, 60)))
def test_a_text_that_begins_within_thoughts_is_held_back_until_they_end(
    written: str, cut: bool, answered: str, cuts: list[int]
) -> None:
    answer = Answer(thinks_first=True)
    given_out = read(answer, pieces(written, cuts), cut=cut)
    assert given_out.strip() == answer.text == answered
    assert not answer.thought_aloud


PARTS = ["<think>", "</think>", "[THINK]", "[/THINK]", "\n", "\r\n", " ", "Ada ", "</", ">"]


@given(st.lists(st.sampled_from(PARTS)), st.booleans(), st.booleans(), st.lists(st.integers(0, 60)))
def test_where_a_text_is_cut_into_pieces_makes_no_difference(
    parts: list[str], thinks_first: bool, cut: bool, cuts: list[int]
) -> None:
    written = "".join(parts)
    whole, pieced = (Answer(thinks_first=thinks_first) for _ in "12")
    read(whole, [written], cut=cut)
    given_out = read(pieced, pieces(written, cuts), cut=cut)
    assert pieced.text == whole.text
    assert pieced.thought_aloud or given_out.strip() == pieced.text


def test_a_text_without_thoughts_is_given_as_it_comes() -> None:
    answer = Answer(thinks_first=False)
    assert [answer.feed(one) for one in ("Ada", " wrote", " it")] == ["Ada", " wrote", " it"]
