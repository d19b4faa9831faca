"""Server-sent events, however their bytes arrive, and completions, whatever they hold."""

import json
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.generate.tiers.completion import Completion, RubbishError, ServerError
from services.generate.tiers.sse import Events, EventTooLongError

STREAM = (
    b"\xef\xbb\xbf: a comment\r\n\r\n"
    b'data: {"a": 1}\r\n\r\n'
    b"event: x\nid: 7\nretry: 5\ndata:two\ndata: lines\n\n"
    b"data: by CR\r\r"
    b"nothing: here\n\n"
    b"data\n\n"
    b"data:  spaced \n\n"
    b"data: [DONE]"
)
SAID = [b'{"a": 1}', b"two\nlines", b"by CR", b"", b" spaced ", b"[DONE]"]


def read(*parts: bytes, longest: int = 1000) -> list[bytes]:
    events = Events(longest)
    found = [event for part in parts for event in events.feed(part)]
    return [*found, *events.end()]


@given(st.lists(st.integers(0, len(STREAM)), max_size=12))
def test_events_are_the_same_however_the_stream_is_cut(cuts: list[int]) -> None:
    places = [0, *sorted(cuts), len(STREAM)]
    assert read(*(STREAM[begin:end] for begin, end in pairwise(places))) == SAID


@given(st.lists(st.integers(0, 40), max_size=6))
def test_a_body_that_is_one_object_is_one_event(cuts: list[int]) -> None:
    body = b' \n{"data": 1,\n\n"x": "data: y\n\n"}\n'
    places = [0, *sorted(min(cut, len(body)) for cut in cuts), len(body)]
    [event] = read(*(body[begin:end] for begin, end in pairwise(places)))
    assert event.strip() == body.strip()


def test_what_is_no_stream_has_no_events() -> None:
    assert read(b"<html>\n\n<p>data: x</p>\n\n") == []
    assert read(b"") == []
    assert read(b" \r\n ") == []


@pytest.mark.parametrize(
    "parts",
    [
        [b"data: " + b"x" * 1001],
        [b"x" * 400] * 3,
        [b"data: " + b"x" * 600 + b"\n"] * 2,
        [b"{" + b"x" * 999, b"x"],
        [b" " * 600, b" " * 600],
    ],
)
def test_an_event_over_the_limit_is_refused(parts: list[bytes]) -> None:
    with pytest.raises(EventTooLongError):
        read(*parts)


def test_many_events_together_may_be_longer_than_one() -> None:
    assert len(read(*([b"data: " + b"x" * 500 + b"\n\n"] * 100))) == 100


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=8,
)
TEXT = st.fixed_dictionaries(
    {},
    optional={
        "content": ANYTHING,
        "reasoning": ANYTHING,
        "tool_calls": st.lists(
            st.fixed_dictionaries(
                {}, optional={"index": ANYTHING, "id": ANYTHING, "function": ANYTHING}
            )
            | ANYTHING,
            max_size=2,
        ),
    },
)
CHUNK = st.fixed_dictionaries(
    {},
    optional={
        "choices": st.lists(
            st.fixed_dictionaries(
                {},
                optional={
                    "index": ANYTHING,
                    "delta": TEXT | ANYTHING,
                    "message": TEXT | ANYTHING,
                    "finish_reason": ANYTHING,
                },
            ),
            max_size=2,
        )
        | ANYTHING,
        "usage": st.dictionaries(st.sampled_from(["prompt_tokens", "completion_tokens"]), ANYTHING)
        | ANYTHING,
        "model": ANYTHING,
        "error": ANYTHING,
    },
)


@given(st.lists(CHUNK | ANYTHING, max_size=4))
def test_whatever_a_server_sends_is_read_or_refused(chunks: list[Any]) -> None:
    completion = Completion()
    for chunk in chunks:
        try:
            completion.feed(json.dumps(chunk).encode())
        except (RubbishError, ServerError):
            return
    counted = completion.usage(100)
    assert counted is None or (5 <= counted[0] <= 1424 and counted[1] >= 0)
    assert all(isinstance(call.name, str) for call in completion.tool_calls)
    assert completion.text == completion.text.strip()


@pytest.mark.parametrize(
    "event",
    [
        b'{"usage": ' + b"[" * 100_000,
        b'{"usage": {"prompt_tokens": ' + b"9" * 10_000 + b"}}",
        b'{"choices": [{"delta": {"content": "\\ud800"}}]}',
        b"\xff\xfe",
        b"",
        b"null",
    ],
)
def test_what_is_no_sound_json_is_refused_or_not_believed(event: bytes) -> None:
    completion = Completion()
    try:
        completion.feed(event)
    except RubbishError:
        return
    assert completion.usage(100) is None


@given(st.binary(max_size=200))
def test_no_bytes_break_the_reader(data: bytes) -> None:
    completion = Completion()
    for event in read(data):
        try:
            completion.feed(event)
        except (RubbishError, ServerError):
            return
    assert completion.finish is None
