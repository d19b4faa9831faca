"""Which drafts stand, by what was asked for: text, JSON or tool calls."""

from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from services.generate.answer.nearest import NOT_ANSWERED, not_answered
from services.generate.prompting.chat import PLAIN, Chat, ToolCall
from services.generate.reading.passages import Passage
from services.generate.tiers.endpoint import Draft, DraftRequest
from services.generate.verification.checks.profile import LIGHT, OFF, PROFILES, STRICT, Profile
from services.generate.verification.form import finished, judge, shows_early, takes_text, whole
from tests.calling import WEATHER, YEAR

TEXT = "Ada Lovelace wrote the first program in 1843."
FREE = {"type": "function", "function": {"name": "now"}}
NAMED = {"type": "function", "function": {"name": "weather"}}
TWO = ('{"city": "Paris"}', '{"city": "Rome"}')
CODE = "9f86d081884c7d65"


def passage(n: int, title: str | None, url: str | None = None, document: str = "") -> Passage:
    return Passage(n, f"d{n}#0", document or f"d{n}", "handbook", title, url, TEXT, 0.9)


def request(chat: Chat) -> DraftRequest:
    sources = [passage(1, "History")]
    return DraftRequest("When?", sources, (), 99, CODE, chat=chat, salt="c0ffee")


def failed(draft: Draft, chat: Chat, profile: Profile = STRICT) -> list[str]:
    return [one.check.value for one in judge(draft, request(chat), profile).failures]


def called(*arguments: str, name: str = "weather", ids: Sequence[str] = "ab") -> Draft:
    made = tuple(ToolCall(ids[n], name, one) for n, one in enumerate(arguments))
    return Draft("", "stop", "m", made)


@pytest.mark.parametrize("profile", PROFILES.values(), ids=PROFILES)
@pytest.mark.parametrize(
    ("draft", "more", "said"),
    [
        (called('{"city": "Paris"}'), {}, []),
        (called(*TWO), {"parallel_tool_calls": True}, []),
        (called(*TWO), {"parallel_tool_calls": False}, ["tools"]),
        (called(*TWO, ids="aa"), {}, ["tools"]),
        (called(*TWO, ids=["a", ""]), {}, ["tools"]),
        (called('{"any": ["thing"]}', name="now"), {}, []),
        (called('{"any": "thing"}', name="now"), {"tool_choice": NAMED}, ["tools"]),
        (called('{"city": "Paris"}'), {"tool_choice": NAMED}, []),
        (called('{"town": "Paris"}'), {}, ["tools"]),
        (called("[]"), {}, ["tools"]),
        (called("{'city': 'Paris'}"), {}, ["tools"]),
        (called('{"city": ' + "[" * 900 + "]" * 900 + "}"), {}, ["tools"]),
        (called(f'{{"city": "{CODE}"}}'), {}, ["leak"]),
        (called('{"city": "' + "x" * 20_000 + '"}'), {}, ["length"]),
        (Draft(TEXT, "stop", "m"), {"tool_choice": "required"}, ["tools"]),
    ],
)  # fmt: skip
def test_tool_calls_stand_by_their_form_in_every_profile(
    profile: Profile, draft: Draft, more: Mapping[str, Any], said: list[str]
) -> None:
    assert failed(draft, Chat(tools=(WEATHER, FREE), **more), profile) == said


def test_calls_of_tools_that_were_not_sent_fail() -> None:
    assert failed(called("{}"), PLAIN) == ["tools"]


@pytest.mark.parametrize("profile", PROFILES.values(), ids=PROFILES)
@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"year": 1843}', []),
        (' \n{"year": 1843}\n', []),
        ('{"year": "1843"}', ["schema"]),
        ("{}", ["schema"]),
        (TEXT, ["schema"]),
        ("", ["schema"]),
        (f'{{"year": 1, "code": "{CODE}"}}', ["leak"]),
        ("[" * 20_000, ["length"]),
    ],
)
def test_json_stands_by_its_form_in_every_profile(
    profile: Profile, text: str, said: list[str]
) -> None:
    assert failed(Draft(text, "stop", "m"), Chat(response_format=YEAR), profile) == said


def test_json_of_any_shape_is_an_object() -> None:
    chat = Chat(response_format={"type": "json_object"})
    assert failed(Draft("{}", "stop", "m"), chat) == []
    assert failed(Draft("[]", "stop", "m"), chat) == ["schema"]


def test_a_text_is_held_against_the_sources_though_tools_could_be_called() -> None:
    false = Draft(TEXT.replace("1843", "1844"), "stop", "m")
    chat = Chat(tools=(WEATHER,), tool_choice="auto")
    assert failed(Draft(TEXT, "stop", "m"), chat) == []
    assert "number" in failed(false, chat)
    assert "number" in failed(false, chat, LIGHT)
    assert failed(false, chat, OFF) == []


def test_what_is_shown_of_a_draft_is_its_text_its_json_or_nothing() -> None:
    for draft, chat, content in (
        (Draft(TEXT, "stop", "m"), PLAIN, f"{TEXT} [1]"),
        (Draft('{"year": 1}', "stop", "m"), Chat(response_format=YEAR), '{"year": 1}'),
        (called('{"city": "Paris"}'), Chat(tools=(WEATHER,)), ""),
    ):
        verdict = judge(draft, request(chat), STRICT)
        assert finished(draft, verdict, chat).content == content


@pytest.mark.parametrize(
    ("chat", "text", "early"),
    [
        (PLAIN, True, True),
        (Chat(tools=(WEATHER,)), True, False),
        (Chat(tools=(WEATHER,), tool_choice="auto"), True, False),
        (Chat(tools=(WEATHER,), tool_choice="required"), False, False),
        (Chat(tools=(WEATHER,), tool_choice=NAMED), False, False),
        (Chat(response_format=YEAR), False, False),
    ],
)
def test_only_what_may_be_a_text_ends_in_one_or_is_shown_early(
    chat: Chat, text: bool, early: bool
) -> None:
    assert (takes_text(chat), shows_early(chat)) == (text, early)


def test_a_sentence_that_was_cut_is_left_out_and_json_is_left_alone() -> None:
    torn = Draft("It is so [1]. It is al", "length", "m")
    assert whole(torn, PLAIN).text == "It is so [1]."
    assert whole(Draft("It is al", "length", "m"), PLAIN).text == ""
    assert whole(Draft("It is al", "stop", "m"), PLAIN).text == "It is al"
    json = Draft('{"a": 1', "length", "m")
    assert whole(json, Chat(response_format=YEAR)) == json


# --- the honest refusal ------------------------------------------------------------------------


def test_without_passages_the_refusal_is_a_sentence() -> None:
    assert not_answered([]).content == NOT_ANSWERED


def test_the_refusal_lists_the_three_nearest_documents_with_their_markers() -> None:
    passages = [
        passage(1, "Ports", "https://example.com/a b(c)"),
        passage(2, "Ports", document="d1"),
        passage(3, None),
        passage(4, "Wool", "javascript:alert(1)"),
        passage(5, "Fourth"),
    ]
    answer = not_answered(passages)
    assert answer.content == (
        f"{NOT_ANSWERED}\n\nNearest passages:\n"
        "- [Ports](https://example.com/a%20b%28c%29) [1]\n- d3 [3]\n- Wool [4]"
    )
    marked = [(answer.content[one.start : one.end], one.n) for one in answer.annotations]
    assert [n for _, n in marked] == [1, 3, 4]
    assert all(text.endswith(f"[{n}]") for text, n in marked)


def test_a_title_can_not_be_markup_or_a_marker() -> None:
    answer = not_answered([passage(1, "A [link](http://x) [7]\n# **big** <b>" + "x" * 200)])
    line = answer.content.splitlines()[-1]
    assert line.startswith("- A link http://x 7 big b x")
    assert len(line) < 120
    assert not_answered([passage(1, "[]()")]).content.endswith("- untitled [1]")
