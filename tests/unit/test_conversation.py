"""A follow-up is made standalone by rules, and a question of its own is left alone."""

import json
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.retrieve.search.conversation import (
    MAX_QUERY_CHARACTERS,
    Message,
    Standalone,
    said,
    standalone,
)
from tests.suite import REPOSITORY

CONVERSATIONS = [
    json.loads(line)
    for line in (REPOSITORY / "tests/data/conversations.jsonl").read_text().splitlines()
]
ROOM = ("How do I book a meeting room in Berlin?", "In the portal [1].")


def ask(*turns: str) -> Standalone:
    """The turns are the user's and the assistant's by turns."""
    return standalone(
        [Message("assistant" if place % 2 else "user", text) for place, text in enumerate(turns)]
    )


def half(split: str, *, follow_ups: bool) -> list[dict[str, Any]]:
    return [
        one for one in CONVERSATIONS if one["split"] == split and bool(one["carry"]) == follow_ups
    ]


def carried_whole(one: dict[str, Any]) -> bool:
    """Whether it has all that it lacked, and nothing of what it takes the place of."""
    found = ask(*one["turns"])
    replaced = set(one.get("drop", ())).intersection(map(str.lower, found.carried))
    return all(word in found.query.lower() for word in one["carry"]) and not replaced


def test_the_conversations_are_split_in_fair_halves() -> None:
    for split in ("tune", "held"):
        alone = len(half(split, follow_ups=False))
        assert alone >= 15
        assert alone == len(half(split, follow_ups=True))


@pytest.mark.parametrize("split", ["tune", "held"])
def test_a_question_of_its_own_is_hardly_ever_changed(split: str) -> None:
    conversations = half(split, follow_ups=False)
    changed = [
        one["turns"][-1]
        for one in conversations
        if ask(*one["turns"]) != Standalone(one["turns"][-1], "as asked")
    ]
    assert len(changed) <= 0.025 * len(conversations), changed


@pytest.mark.parametrize("split", ["tune", "held"])
def test_a_follow_up_gets_the_terms_that_it_lacks(split: str) -> None:
    conversations = half(split, follow_ups=True)
    missed = [one["turns"][-1] for one in conversations if not carried_whole(one)]
    assert len(missed) <= 0.1 * len(conversations), missed


def test_what_was_carried_is_said_and_the_question_comes_first() -> None:
    found = ask(*ROOM, "And in Hamburg?")
    assert found.query == "And in Hamburg? book meeting room"
    assert found.how == "carried: book, meeting, room"
    assert found.carried == ("book", "meeting", "room")


def test_the_verb_of_the_turn_before_is_not_carried_into_a_question_with_its_own() -> None:
    assert ask("How do I create a corpus?", "So [1].", "How do I delete it?").carried == ("corpus",)


def test_a_pronoun_whose_noun_is_in_the_question_asks_for_nothing() -> None:
    question = "When a service is stopped, how long does it wait?"
    assert ask(*ROOM, question).query == question


def test_a_chain_of_follow_ups_keeps_its_topic() -> None:
    found = ask(*ROOM, "How much does it cost?", "Nothing [1].", "Who can do that?")
    assert {"meeting", "room"} <= set(found.carried)


LEAVE = ("How do I apply for parental leave?", "In writing [1].")


@pytest.mark.parametrize(
    ("turns", "carried"),
    [
        ((*LEAVE, "and for staff?"), "apply parental leave"),
        ((*LEAVE, "And for fathers?"), "apply parental leave"),
        (("What are the rules for travel?", "So [1].", "and for interns?"), "rules travel"),
        (("Days of leave for nurses?", "Two [1].", "and for doctors?"), "Days leave"),
        (("Welche Regeln gelten für Reisen?", "So [1].", "und für Gäste?"), "Regeln Reisen"),
    ],
)
def test_what_stands_behind_for_gives_way_only_where_the_topic_is_said_without_it(
    turns: tuple[str, ...], carried: str
) -> None:
    assert " ".join(ask(*turns).carried) == carried


@pytest.mark.parametrize("thanks", ["Thanks!", "Thank you very much", "ok", "Got it.", "Danke!"])
def test_a_thank_you_is_no_question_and_does_not_end_the_topic(thanks: str) -> None:
    assert ask(*LEAVE, thanks) == Standalone(thanks, "as asked")
    assert ask(*LEAVE, thanks, "Sure.", "How long is it?").carried == ("parental", "leave")
    assert ask(thanks, "Sure.", "How long is it?").carried == ()


def test_the_name_that_was_asked_for_is_carried() -> None:
    found = ask("Which service curates?", "The Rerank service does [1].", "How fast is it?")
    assert found.carried[0] == "Rerank"


def test_a_single_question_is_as_asked() -> None:
    assert ask("how long does it take?") == Standalone("how long does it take?", "as asked")


@pytest.mark.parametrize(
    "question",
    ["那柏林呢", "¿Y en Hamburgo?", "Et à Lyon ?", "Что насчёт Берлина?", "E a Roma?"],
)
def test_other_languages_are_left_alone(question: str) -> None:
    assert ask(*ROOM, question).query == question


def test_system_turns_and_blank_ones_are_not_read() -> None:
    messages = [
        Message("system", "You are a pirate. Talk of treasure."),
        Message("user", ROOM[0]),
        Message("user", "  "),
        Message("user", "What about Hamburg?"),
        Message("assistant", ""),
    ]
    assert "treasure" not in standalone(messages).query
    assert "room" in standalone(messages).carried


def test_without_a_question_it_says_so() -> None:
    with pytest.raises(ValueError, match="no message of the user"):
        standalone([Message("assistant", "Hello")])


def test_the_parts_of_a_message_are_joined() -> None:
    @dataclass
    class Part:
        text: str

    assert said("one") == "one"
    assert said([Part("one"), Part("two")]) == "one\ntwo"


@given(st.lists(st.text(max_size=200), min_size=1, max_size=9).filter(lambda t: t[0].strip()))
def test_any_conversation_gives_its_last_question_and_perhaps_more(turns: list[str]) -> None:
    found = ask(*turns)
    last = [turn.strip() for turn in turns[::2] if turn.strip()][-1]
    assert found.query.startswith(last)
    assert len(found.query) <= MAX_QUERY_CHARACTERS
    assert found.query == " ".join([last, *found.carried])


def test_a_query_never_grows_past_the_longest_that_there_is() -> None:
    assert len(ask("room " * 9000).query) == MAX_QUERY_CHARACTERS
    long = "it " * 2730
    assert len(ask("A question about elephants", "Yes.", long).query) <= MAX_QUERY_CHARACTERS
