"""Masking: what leaves holds nothing of what was found, and comes back as it was."""

import json
import re
from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from services.generate.answer.guard import drafted
from services.generate.policy.models import Model
from services.generate.prompting.chat import Chat, ToolCall
from services.generate.prompting.masking import Restorer, Vault, draw_salt
from services.generate.reading.evidence import gather
from services.generate.reading.passages import Passage
from services.generate.reading.sensitivity import ALL, Sensitive, find, kinds
from services.generate.tiers.endpoint import Draft, DraftRequest

SALT = "kqzvbx"
ADA, BOB = "ada@example.org", "bob@example.org"
KEY = "-----BEGIN PRIVATE KEY-----\nMIIE+/=\n-----END PRIVATE KEY-----"
VALUES = (ADA, BOB, "+49 30 901820", "DE89 3704 0044 0532 0130 00", "4111 1111 1111 1111",
          "078-05-1120", "8.8.4.4", "password: hunter2000", KEY)  # fmt: skip
PIECES = st.sampled_from([*VALUES, " ", ". ", "\n", "EMAIL_", "PHONE_1", "[1]", "Ask ", '"', "\\"])
TEXTS = st.lists(PIECES | st.text(max_size=8), max_size=12)
LISTS = TEXTS.map(", ".join)
SALTS = st.sampled_from([SALT, "kqzvbp", "ssnssn", "cccccc", "phnbns"])  # like kinds' letters
GLUED = TEXTS.map("".join)


def vault(wanted: frozenset[Sensitive] = ALL) -> Vault:
    return Vault(wanted, SALT)


def test_a_sentence_keeps_its_form_and_the_same_value_its_placeholder() -> None:
    text = f"Write to {ADA} or {BOB}, not to {ADA}; call +49 30 901820."
    assert vault().mask(text) == (
        f"Write to EMAIL_1_{SALT} or EMAIL_2_{SALT}, not to EMAIL_1_{SALT}; call PHONE_1_{SALT}."
    )


def test_only_the_kinds_that_are_wanted_are_masked() -> None:
    wanted = vault(frozenset({Sensitive.PHONE}))
    assert wanted.mask(f"{ADA} +49 30 901820") == f"{ADA} PHONE_1_{SALT}"
    # A password that is a number is a number, where passwords are not looked for.
    assert wanted.mask("password: +49/30/901820") == f"password: PHONE_2_{SALT}"


@given(st.lists(LISTS, max_size=3))
@settings(max_examples=200, deadline=None)
def test_what_is_masked_comes_back_as_it_was_and_nothing_of_it_leaves(texts: list[str]) -> None:
    assume(not any(SALT in text.lower() for text in texts))
    held = vault()
    masked = [held.mask(text) for text in texts]
    assert [held.restore(one) for one in masked] == texts
    for text, one in zip(texts, masked, strict=True):
        for found in find(text):
            assert text[found.start : found.end] not in one


@given(GLUED)
@settings(max_examples=200, deadline=None)
def test_what_stands_without_a_space_between_comes_back_as_well(text: str) -> None:
    assume(SALT not in text.lower())
    held = vault()
    assert held.restore(held.mask(text)) == text


@given(GLUED, st.lists(st.integers(0, 400), max_size=20), SALTS)
@settings(max_examples=200, deadline=None)
def test_a_draft_in_pieces_is_restored_like_a_whole_one(
    text: str, cuts: list[int], salt: str
) -> None:
    assume(salt not in text.lower())
    held = Vault(ALL, salt)
    masked = held.mask(text) + f" EMAIL_1_{salt[:3]}"
    places = [0, *sorted(one for one in cuts if one < len(masked)), len(masked)]
    restorer = Restorer(held)
    told = [restorer.feed(masked[start:end]) for start, end in pairwise(places)]
    assert "".join((*told, restorer.close())) == held.restore(masked)


@pytest.mark.parametrize("salt", [SALT, "kqzvbp", "ssnssn"])
def test_of_a_placeholder_in_pieces_nothing_is_told_before_it_is_whole(salt: str) -> None:
    held = Vault(ALL, salt)
    held.mask(ADA)
    restorer = Restorer(held)
    told = [restorer.feed(one) for one in f"To EMAIL_1_{salt}."]
    assert [one for one in told if one] == ["T", "o", " ", ADA, "."]


@pytest.mark.parametrize(
    "written", [f"email_1_{SALT}", f"Email_1_{SALT.upper()}", f"EMAIL\\_1\\_{SALT}"]
)
def test_a_placeholder_in_another_case_or_in_markdown_is_restored(written: str) -> None:
    held = vault()
    held.mask(ADA)
    assert held.restore(f"Ask {written}.") == f"Ask {ADA}."
    restorer = Restorer(held)
    told = "".join([*(restorer.feed(one) for one in f"Ask {written}."), restorer.close()])
    assert told == f"Ask {ADA}."


@pytest.mark.parametrize("salt", [SALT, "kqzvbp", "ssnssn"])
def test_a_placeholder_that_nobody_gave_out_is_told_whole_so_that_it_is_seen(salt: str) -> None:
    held = Vault(ALL, salt)
    held.mask(ADA)
    restorer = Restorer(held)
    told = [restorer.feed(one) for one in f"To EMAIL_7_{salt}."]
    assert [one for one in told if one] == ["T", "o", " ", f"EMAIL_7_{salt}", "."]


def test_an_author_cannot_write_a_placeholder_since_its_letters_are_drawn() -> None:
    assert len({draw_salt() for _ in range(50)}) == 50
    held = vault()
    forged = f"EMAIL_1 EMAIL_1_{draw_salt()}"
    held.mask(ADA)
    assert held.restore(forged) == forged


def test_json_stays_json_and_strings_of_json_are_masked_inside() -> None:
    held = vault()
    call = {"function": {"name": "send", "arguments": json.dumps({"to": ADA, "key": KEY})}}
    masked = held.mask_all({"calls": [call], "count": 3, "none": None, ADA: True})
    assert not kinds([json.dumps(masked)])
    assert masked["count"] == 3
    assert masked[f"EMAIL_1_{SALT}"] is True
    arguments = masked["calls"][0]["function"]["arguments"]
    assert json.loads(held.restore(arguments, as_json=True)) == {"to": ADA, "key": KEY}


def test_arguments_that_are_nested_deeply_are_masked() -> None:
    for depth in (300, 5000):
        deep = "[" * depth + f'"{ADA}"' + "]" * depth
        masked = vault().mask_all({"arguments": deep})["arguments"]
        assert masked == "[" * depth + f'"EMAIL_1_{SALT}"' + "]" * depth


def test_arguments_keep_their_numbers_and_hide_nothing_behind_an_escape() -> None:
    written = '{"n": 123456789012345678901234567890, "x": 1.10, "to": "ada\\u0040example.org"}'
    masked = vault().mask_all({"arguments": written})["arguments"]
    assert masked == written.replace("ada\\u0040example.org", f"EMAIL_1_{SALT}")


# --- around a writer -----------------------------------------------------------------------------

MASKING = Model(tier="utility", kind="configured", mask=tuple(Sensitive))
MARKING = Model(tier="utility", kind="configured", datamark=True)
TEXT = f"Ada reads mail at {ADA}. Her line is +49 30 901820."
QUESTION = f"Is {BOB} Ada?"


class Echo:
    """A writer that says what it is told to, and keeps what it was asked."""

    name = model = "echo"

    def __init__(self, say: str, call: str = "") -> None:
        self.say = say
        self.call = call
        self.asked: list[DraftRequest] = []

    async def draft(self, request: DraftRequest) -> Draft:
        self.asked.append(request)
        text = self.say.format(at=_first(request, "EMAIL"), mark=request.datamark)
        for piece in text if request.show else ():
            request.show(piece)  # type: ignore[misc]  # told by the line above
        called = self.call.replace("AT", _first(request, "EMAIL"))
        calls = (ToolCall("1", "send", called),) if called else ()
        return Draft(text, "stop", "echo", calls)

    async def close(self) -> None:
        """Nothing to let go of."""


def _first(request: DraftRequest, kind: str) -> str:
    found = re.search(rf"{kind}_\d_[a-z]+", request.passages[0].text)
    return found[0] if found else ""


def asking(text: str = TEXT, **more: object) -> DraftRequest:
    passage = Passage(1, "a#0", "a", "handbook", f"On {ADA}", None, text, 0.9)
    request = DraftRequest(QUESTION, [passage], gather(QUESTION, [passage]), 99, "d1", salt=SALT)
    return replace(request, **more)  # type: ignore[arg-type]  # names of its fields


async def test_a_writer_reads_placeholders_alone_and_its_draft_has_the_values() -> None:
    turns = ({"role": "user", "content": f"I am {BOB}"},)
    results = ({"role": "tool", "tool_call_id": "1", "content": f'{{"mail": "{BOB}"}}'},)
    tools = ({"type": "function", "function": {"name": "send", "description": f"as {ADA}"}},)
    echo = Echo("Ada reads mail at {at} [1].", call='{"to": "AT"}')
    request = asking(chat=Chat(before=turns, after=results, tools=tools))
    draft = await drafted(echo, request, MASKING)
    [asked] = echo.asked
    read = [asked.question, str(asked.chat), *(f"{one.title} {one.text}" for one in asked.passages)]
    read += [f"{one.sentence.text} {one.before} {one.asked.text}" for one in asked.evidence]
    assert asked.evidence
    assert not kinds(read)
    assert asked.question == f"Is EMAIL_1_{SALT} Ada?"
    assert draft.text == f"Ada reads mail at {ADA} [1]."
    assert draft.tool_calls[0].arguments == f'{{"to": "{ADA}"}}'


async def test_an_address_with_a_character_that_is_not_seen_in_it_is_masked() -> None:
    echo = Echo("Nothing.")
    await drafted(echo, asking("Ada reads mail at ada@exam\u200bple.org."), MASKING)
    assert echo.asked[0].passages[0].text == f"Ada reads mail at EMAIL_2_{SALT}."


async def test_what_is_shown_while_it_is_written_is_the_draft_restored() -> None:
    shown: list[str] = []
    draft = await drafted(Echo("Ask {at} or {at} [1]. E"), asking(show=shown.append), MASKING)
    assert "".join(shown) == draft.text == f"Ask {ADA} or {ADA} [1]. E"


async def test_json_that_a_writer_is_to_write_stays_json() -> None:
    wanted = Chat(response_format={"type": "json_object"})
    text = 'The key is "x": password: a\\b\\c2000, mail ' + ADA
    draft = await drafted(Echo('{{"at": "{at}"}}'), asking(text, chat=wanted), MASKING)
    assert json.loads(draft.text) == {"at": ADA}


async def test_marks_are_taken_out_of_a_draft_and_of_what_is_shown_of_it() -> None:
    shown: list[str] = []
    echo = Echo("Her{mark}line is{mark}short [1].")
    draft = await drafted(echo, asking(show=shown.append), MARKING)
    assert echo.asked[0].datamark
    assert draft.text == "".join(shown) == "Her line is short [1]."


async def test_masks_and_marks_go_together() -> None:
    shown: list[str] = []
    both = Model(tier="utility", kind="configured", mask=tuple(Sensitive), datamark=True)
    echo = Echo("At{mark}{at}{mark}[1].")
    draft = await drafted(echo, asking(show=shown.append), both)
    [asked] = echo.asked
    assert not kinds([asked.passages[0].text])
    assert asked.datamark not in f"{QUESTION}{TEXT}"
    assert draft.text == "".join(shown) == f"At {ADA} [1]."


async def test_a_refusal_in_marks_is_a_refusal() -> None:
    assert (await drafted(Echo("NOT{mark}IN{mark}THE{mark}SOURCES."), asking(), MARKING)).declined


async def test_without_the_option_a_writer_reads_what_there_is() -> None:
    echo = Echo("Yes.")
    request = asking()
    await drafted(echo, request, Model(tier="utility", kind="configured"))
    assert echo.asked == [request]


def test_the_extractive_writer_has_no_prompt_to_mask() -> None:
    with pytest.raises(ValueError, match="has none"):
        Model(tier="utility", kind="extractive", mask=(Sensitive.EMAIL,))
    every = Model.model_validate({"tier": "utility", "kind": "configured", "mask": True})
    assert set(every.mask) == ALL
