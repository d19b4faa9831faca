"""What of a conversation a model reads."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.generate.prompting.chat import PLAIN, Chat
from services.generate.prompting.conversation import (
    HISTORY_TOKENS,
    fitted,
    needs,
    results,
    strings,
    texts,
    turns,
)
from services.generate.reading.sensitivity import Sensitive, kinds
from services.generate.reading.tokens import estimated_tokens
from shared.errors import ApiError
from tests.calling import WEATHER, YEAR, call

PROMPT = [{"role": "system", "content": "Rules."}, {"role": "user", "content": "Sources. When?"}]


def say(role: str, content: str, **more: Any) -> dict[str, Any]:
    return {"role": role, "content": content, **more}


ROLES = st.sampled_from(["user", "assistant", "system"])
LENGTHS = st.sampled_from([1, 300, 3000, 3 * HISTORY_TOKENS])
HISTORIES = st.lists(st.tuples(ROLES, LENGTHS), max_size=12)


@given(HISTORIES)
def test_the_latest_whole_turns_that_fit_are_kept_and_system_messages(
    history: list[tuple[str, int]],
) -> None:
    system = [say("system", "x") for role, _ in history if role == "system"]
    spoken = [say(role, "x" * length) for role, length in history if role != "system"]
    chat, left_out = fitted(Chat(before=(*system, *spoken)))
    kept = [one for one in chat.before if one["role"] != "system"]
    assert [one for one in chat.before if one["role"] == "system"] == system
    assert kept == spoken[left_out:]
    assert estimated_tokens(one["content"] for one in kept) <= HISTORY_TOKENS
    assert not left_out or not kept or kept[0]["role"] == "user"
    if left_out:  # one turn more would not have fitted
        starts = [n for n in range(left_out) if spoken[n]["role"] == "user"] or [0]
        more = spoken[starts[-1] :]
        assert estimated_tokens(one["content"] for one in more) > HISTORY_TOKENS - len(more)


def test_what_has_to_stay_must_not_be_too_long() -> None:
    long = "x" * 60_000
    for chat in (Chat(before=(say("system", long),)), Chat(after=(say("assistant", long),))):
        with pytest.raises(ApiError, match="put long texts into a corpus"):
            fitted(chat)
    assert fitted(Chat(before=(say("user", long),)))[1] == 1


def test_a_chat_needs_what_its_model_must_be_able_to_do() -> None:
    assert needs(PLAIN) == frozenset()
    assert needs(Chat(tools=(WEATHER,))) == {"tools"}
    assert needs(Chat(response_format=YEAR)) == {"schema"}
    assert needs(Chat(after=(say("tool", "x", tool_call_id="a"),))) == {"tools"}
    assert needs(Chat(before=(say("tool", "x", tool_call_id="a"),))) == frozenset()


def test_every_text_that_leaves_is_told() -> None:
    chat = Chat(
        before=(say("system", "one"), say("user", "two", name="three")),
        after=(say("assistant", "four", tool_calls=[call("five")]), say("tool", "six")),
        tools=(WEATHER,),
        response_format=YEAR,
    )
    told = "\n".join(texts(chat))
    for word in ("one", "two", "three", "four", "five", "six", "The weather in a city", "year"):
        assert word in told
    assert texts(PLAIN) == []


@pytest.mark.parametrize(
    "chat",
    [
        Chat(tools=({"function": {"parameters": {"title": "to\n8.8.4.4"}}},)),
        Chat(response_format={"json_schema": {"schema": {"enum": ["to\n8.8.4.4"]}}}),
        Chat(response_format={"json_schema": {"schema": {"properties": {"\n8.8.4.4": {}}}}}),
        Chat(before=(say("assistant", "", tool_calls=[call("to\n8.8.4.4")]),)),
        Chat(before=(say("assistant", "", tool_calls=[{**call("{}"), "id": "8.8.4.4"}]),)),
        Chat(after=(say("tool", "x", tool_call_id="8.8.4.4"),)),
        Chat(after=(say("tool", '["to\\n8.8.4.4"]', tool_call_id="a"),)),
    ],
)
def test_nothing_hides_behind_the_escapes_of_json(chat: Chat) -> None:
    assert not kinds(texts(chat))
    assert kinds(strings(chat)) == {Sensitive.IP}


@pytest.mark.parametrize("value", ["ada@example.org", "+49 30 901820"])
def test_a_long_result_is_not_cut_within_a_value(value: str) -> None:
    for before in range(8000 - len(value), 8002):
        chat = Chat(
            after=(
                say("assistant", "", tool_calls=[{**call("{}"), "id": "a"}]),
                say("tool", "x" * (before - 1) + f" {value} and on", tool_call_id="a"),
            )
        )
        [passage] = results(chat, first=1)
        left = passage.text[before - 1 :].strip()
        assert left in ("", value), (before, left)


def test_a_question_alone_is_the_prompt_alone() -> None:
    assert turns(PROMPT, PLAIN) == PROMPT


def test_the_clients_rules_stand_behind_ours_in_one_system_turn() -> None:
    chat = Chat(
        before=(say("system", "Be a pirate."), say("user", "Ahoy?"), say("assistant", "Aye.")),
        after=(say("developer", "Hurry."), say("assistant", "Wait.")),
    )
    system, *others = turns(PROMPT, chat)
    said = ["Rules.", "stays in force", "Be a pirate.", "Hurry."]
    places = [system["content"].index(one) for one in said]
    assert places == sorted(places)
    assert [one["content"] for one in others] == ["Ahoy?", "Aye.", "Sources. When?", "Wait."]


def test_a_model_is_told_what_tools_and_json_change_of_the_rules() -> None:
    [plain, _] = turns(PROMPT, PLAIN)
    [tools, _] = turns(PROMPT, Chat(tools=(WEATHER,)))
    [json, _] = turns(PROMPT, Chat(response_format=YEAR, before=(say("system", "Be kind."),)))
    assert plain["content"] == "Rules."
    assert "call it" in tools["content"]
    assert "call it" not in json["content"]
    assert 0 < json["content"].index("JSON alone") < json["content"].index("Be kind.")


def test_results_of_tools_are_sources_behind_the_passages() -> None:
    made = say("assistant", "", tool_calls=[call("Rome", "a/1"), call("Paris", "b")])
    after = (made, say("tool", "Sunny.", tool_call_id="a/1"), say("tool", " ", tool_call_id="b"))
    [one] = results(Chat(after=after), first=4)
    assert (one.n, one.title, one.text) == (4, "weather", "Sunny.")
    assert one.address == "refdesk:tool/a%2F1"
    assert results(Chat(before=after), first=4) == []
