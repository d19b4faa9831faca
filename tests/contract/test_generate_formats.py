"""Answers in JSON over HTTP: what fits is sent as it is, and nothing else ever is."""

from pathlib import Path
from typing import Any

import pytest

from tests.calling import YEAR, served, writes
from tests.desk import Desk
from tests.streams import events, streamed, text_of
from tests.upstream import upstream
from tests.writers import WHEN, Serve, ask, chat, nowhere

OBJECT = {"type": "json_object"}
GIVEN = '{"year": 1843}'


@pytest.mark.parametrize("wanted", [YEAR, OBJECT])
async def test_json_that_fits_is_sent_as_it_was_written(
    serve: Serve, tmp_path: Path, wanted: dict[str, Any]
) -> None:
    async with upstream(writes(GIVEN)) as model:
        policy = served(tmp_path, model.url)
        async with serve(Desk(), policy_file=policy) as client:
            answer = await ask(client, WHEN, response_format=wanted)
            stream = await streamed(client, WHEN, response_format=wanted)
    [choice] = answer["choices"]
    assert choice["message"]["content"] == GIVEN
    assert (choice["message"]["annotations"], choice["finish_reason"]) == ([], "stop")
    assert model.seen[0]["response_format"] == wanted
    assert text_of(stream) == GIVEN


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("In 1843. [3]", "not one JSON value"),
        (f"```json\n{GIVEN}\n```", "not one JSON value"),
        (f"{GIVEN} {GIVEN}", "not one JSON value"),
        ('{"year": NaN}', "not one JSON value"),
        ('{"year": "1843"}', "year: "),
        ("[1843]", "the whole: "),
    ],
)
async def test_what_does_not_fit_escalates_to_the_next_tier(
    serve: Serve, tmp_path: Path, text: str, said: str
) -> None:
    async with upstream(writes(text)) as first, upstream(writes(GIVEN)) as second:
        policy = served(tmp_path, first.url, second.url, checks="light")
        async with serve(Desk(), policy_file=policy) as client:
            answer = await ask(client, WHEN, response_format=YEAR)
    decision = answer["refdesk"]["decision"]
    assert answer["choices"][0]["message"]["content"] == GIVEN
    assert decision["escalated_from"] == f"tier0:{first.url}"
    [failure] = decision["verification"]["failures"]
    assert failure["check"] == "schema"
    assert said in failure["detail"]


@pytest.mark.parametrize(
    "behaviour",
    [writes("In 1843. [3]"), writes('{"year": 18', finish="length")],
)
@pytest.mark.parametrize("stream", [False, True])
async def test_where_nobody_writes_json_there_is_an_error_and_no_text(
    serve: Serve, tmp_path: Path, behaviour: Any, stream: bool
) -> None:
    async with upstream(behaviour) as model:
        policy = served(tmp_path, model.url, checks="off")
        async with serve(Desk(), policy_file=policy) as client:
            body = chat(WHEN, response_format=YEAR, stream=stream)
            response = await client.post("/v1/chat/completions", json=body)
    told = events(response.text) if stream else [response.json()]
    assert told[-1]["error"]["code"] == "no_valid_format"
    assert response.status_code == (200 if stream else 502)
    assert text_of(told) == ""


@pytest.mark.parametrize("found", [True, False])
async def test_that_the_sources_do_not_answer_is_an_error_where_json_was_asked_for(
    serve: Serve, tmp_path: Path, found: bool
) -> None:
    desk = Desk() if found else Desk(passages=[])
    async with upstream(writes("NOT IN THE SOURCES")) as model:
        policy = served(tmp_path, model.url)
        async with serve(desk, policy_file=policy) as client:
            body = chat(WHEN, response_format=YEAR)
            response = await client.post("/v1/chat/completions", json=body)
    assert response.status_code == 422
    assert response.json()["error"]["code"] == "not_in_the_sources"
    assert len(model.seen) == found


async def test_servers_that_are_down_are_said_to_be_where_json_was_asked_for(
    serve: Serve, tmp_path: Path
) -> None:
    async with serve(Desk(), policy_file=served(tmp_path, nowhere())) as client:
        body = chat(WHEN, response_format=YEAR)
        response = await client.post("/v1/chat/completions", json=body)
    assert (response.status_code, response.json()["error"]["code"]) == (503, "model_unavailable")
    assert response.headers["retry-after"] == "5"


async def test_a_text_format_is_no_format(serve: Serve, tmp_path: Path) -> None:
    async with serve(Desk(), policy_file=served(tmp_path)) as client:
        answer = await ask(client, WHEN, response_format={"type": "text"})
    assert answer["refdesk"]["decision"]["endpoint"] == "extractive"


async def test_a_writer_that_knows_no_json_is_ruled_out(serve: Serve, tmp_path: Path) -> None:
    async with serve(Desk(), policy_file=served(tmp_path)) as client:
        response = await client.post(
            "/v1/chat/completions", json=chat(WHEN, response_format=OBJECT)
        )
    assert (response.status_code, response.json()["error"]["code"]) == (400, "model_unfit")


async def test_a_text_that_was_cut_says_so(serve: Serve, tmp_path: Path) -> None:
    cut = writes("Ada Lovelace wrote the first program in 1843 [3]. It computed Bern", "length")
    async with upstream(cut) as model:
        policy = served(tmp_path, model.url)
        async with serve(Desk(), policy_file=policy) as client:
            answer = await ask(client, WHEN, max_tokens=20)
    [choice] = answer["choices"]
    assert choice["message"]["content"] == "Ada Lovelace wrote the first program in 1843. [3]"
    assert choice["finish_reason"] == "length"


def named(**more: Any) -> dict[str, Any]:
    return {"type": "json_schema", "json_schema": {"name": "y", **more}}


REFUSED: list[tuple[Any, str, str]] = [
    ("json", "response_format", "dictionary"),
    ({"type": "yaml"}, "response_format.type", "json_object"),
    ({"type": "json_schema"}, "response_format", "needs the field json_schema"),
    (named(name="a b"), "response_format.json_schema.name", "pattern"),
    (
        named(schema={"type": "objekt"}),
        "response_format.json_schema.schema",
        "no JSON Schema",
    ),
    (
        named(schema={"$ref": "#"}),
        "response_format.json_schema.schema",
        "refers to itself",
    ),
]


async def test_formats_that_can_not_be_used_are_refused_in_a_sentence(serve: Serve) -> None:
    async with serve(Desk()) as client:
        for wanted, param, said in REFUSED:
            body = chat(WHEN, response_format=wanted)
            response = await client.post("/v1/chat/completions", json=body)
            error = response.json()["error"]
            assert (response.status_code, error["param"]) == (400, param), error
            assert said in error["message"]
