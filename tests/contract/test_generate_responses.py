"""The Responses API over HTTP, and by the official client."""

import json
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.calling import WEATHER, YEAR, calls, served, writes
from tests.desk import Desk
from tests.upstream import Wire, good, upstream
from tests.writers import PORT, WHEN, Serve, nowhere

ANSWER = "The rerank service listens on port 8002. [1]"


async def respond(client: httpx.AsyncClient, **body: Any) -> dict[str, Any]:
    response = await client.post("/v1/responses", json=body)
    assert response.status_code == 200, response.text
    answer: dict[str, Any] = response.json()
    return answer


async def events(client: httpx.AsyncClient, **body: Any) -> list[dict[str, Any]]:
    """The events of a stream, each checked to be one by its name and its number."""
    response = await client.post("/v1/responses", json={"stream": True, **body})
    assert response.headers["content-type"].startswith("text/event-stream"), response.text
    found: list[dict[str, Any]] = []
    for block in response.text.strip().split("\n\n"):
        if block.startswith(":"):
            continue
        name, data = block.split("\n")
        event = json.loads(data.removeprefix("data: "))
        assert name == f"event: {event['type']}"
        assert event["sequence_number"] == len(found)
        found.append(event)
    return found


async def test_an_answer_has_the_shape_of_a_response_with_citations(serve: Serve) -> None:
    desk = Desk()
    async with serve(desk) as client:
        answer = await respond(
            client,
            input=PORT,
            instructions="Be kind.",
            metadata={"case": "7"},
            max_output_tokens=64,
            store=True,
            temperature=0.3,
            refdesk={"corpora": ["handbook"], "top_k": 2},
        )
    assert answer["id"].startswith("resp_")
    assert (answer["object"], answer["status"]) == ("response", "completed")
    assert answer["error"] is answer["incomplete_details"] is None
    assert (answer["instructions"], answer["metadata"]) == ("Be kind.", {"case": "7"})
    assert (answer["max_output_tokens"], answer["store"]) == (64, False)
    (message,) = answer["output"]
    assert (message["type"], message["role"], message["status"]) == (
        "message",
        "assistant",
        "completed",
    )
    (part,) = message["content"]
    assert ANSWER in part["text"]
    note = part["annotations"][0]
    assert (note["type"], note["file_id"], note["filename"]) == (
        "file_citation",
        "ports.md",
        "Ports",
    )
    assert part["text"][: note["index"]].endswith("[1]")
    assert answer["usage"]["total_tokens"] == 0
    assert answer["refdesk"]["decision"]["endpoint"] == "extractive"
    assert (desk.seen[0]["query"], desk.seen[0]["top_k"]) == (PORT, 2)


async def test_a_stream_tells_of_each_item_and_part_and_ends_with_the_whole(serve: Serve) -> None:
    async with serve(Desk()) as client:
        whole = await respond(client, input=PORT)
        told = await events(client, input=PORT)
    kinds = [one["type"] for one in told]
    text = whole["output"][0]["content"][0]["text"]
    pieces = [one for one in told if one["type"] == "response.output_text.delta"]
    assert "".join(one["delta"] for one in pieces) == text
    assert [one for one in kinds if one != "response.output_text.delta"] == [
        "response.created",
        "response.in_progress",
        "response.output_item.added",
        "response.content_part.added",
        *["response.output_text.annotation.added"]
        * len(whole["output"][0]["content"][0]["annotations"]),
        "response.output_text.done",
        "response.content_part.done",
        "response.output_item.done",
        "response.completed",
    ]
    last = told[-1]["response"]
    assert last["output"][0]["content"] == whole["output"][0]["content"]
    assert last["refdesk"]["decision"]["answered"] is True
    assert told[0]["response"]["status"] == "in_progress"
    assert {one["item_id"] for one in pieces} == {last["output"][0]["id"]}
    assert {told[0]["response"]["id"]} == {last["id"]}


async def test_the_official_client_reads_a_whole_response_and_a_stream(serve: Serve) -> None:
    import openai

    async with serve(Desk()) as http:
        client = openai.AsyncOpenAI(base_url=f"{http.base_url}/v1", api_key="none", max_retries=0)
        whole = await client.responses.create(model="auto", input=PORT)
        async with client.responses.stream(
            model="auto",
            input=[
                {"role": "user", "content": WHEN},
                *[one.to_dict() for one in whole.output],  # type: ignore[list-item]  # as its guide has it
                {"role": "user", "content": PORT},
            ],
        ) as stream:
            kinds = [event.type async for event in stream]
            final = await stream.get_final_response()
        with pytest.raises(openai.BadRequestError, match="previous_response_id"):
            await client.responses.create(input=PORT, previous_response_id=whole.id)
        await client.close()
    assert ANSWER in whole.output_text
    assert final.output_text == whole.output_text
    assert kinds[0] == "response.created"
    assert kinds[-1] == "response.completed"
    message = final.output[0]
    assert message.type == "message"
    content = message.content[0]
    assert content.type == "output_text"
    assert content.annotations[0].type == "file_citation"
    assert final.usage is not None
    assert final.usage.input_tokens_details.cached_tokens == 0


async def test_that_the_sources_do_not_answer_is_a_response_too(serve: Serve) -> None:
    async with serve(Desk()) as client:
        answer = await respond(client, input="Who won the football world cup in Brazil?")
    (part,) = answer["output"][0]["content"]
    assert part["text"].startswith("The sources do not answer this question.")
    assert answer["refdesk"]["decision"]["answered"] is False


async def test_it_is_the_answer_of_a_chat_by_another_route(serve: Serve) -> None:
    async with serve(Desk()) as client:
        response = await respond(client, input=PORT)
        chat = await client.post(
            "/v1/chat/completions", json={"messages": [{"role": "user", "content": PORT}]}
        )
    body = chat.json()
    text = response["output"][0]["content"][0]["text"]
    assert text == body["choices"][0]["message"]["content"]
    assert response["refdesk"]["passages"] == body["refdesk"]["passages"]


async def test_an_answer_of_a_response_is_on_record(serve: Serve, tmp_path: Path) -> None:
    async with serve(Desk(), data_dir=tmp_path) as client:
        head = (await client.get("/v1/audit/head")).json()["seq"]
        await respond(client, input=PORT)
        await events(client, input=PORT)
        assert (await client.get("/v1/audit/head")).json()["seq"] == head + 2


@pytest.mark.parametrize("stream", [False, True])
async def test_an_error_before_the_first_event_is_an_ordinary_one(
    serve: Serve, stream: bool
) -> None:
    async with serve(Desk(), retrieve_url=nowhere()) as client:
        response = await client.post("/v1/responses", json={"input": PORT, "stream": stream})
    assert response.status_code == 503
    assert response.json()["error"]["code"] == "unreachable"


# --- what a model writes -----------------------------------------------------------------------

TOOL = {"type": "function", **WEATHER["function"]}
PARIS = '{"city": "Paris", "days": 2}'
LEFT = "Ada Lovelace wrote the first program in 1843 [3]. It computed Bern"


async def test_a_models_calls_are_items_that_the_client_answers_in_the_next_input(
    serve: Serve, tmp_path: Path
) -> None:
    async with (
        upstream(calls(PARIS), good) as model,
        serve(Desk(), policy_file=served(tmp_path, model.url)) as client,
    ):
        first = await respond(client, input=WHEN, tools=[TOOL], tool_choice="auto")
        (item,) = first["output"]
        given = {"type": "function_call_output", "call_id": item["call_id"], "output": "rain"}
        conversation = [{"role": "user", "content": WHEN}, item, given]
        second = await respond(client, input=conversation, tools=[TOOL])
    assert (item["type"], item["name"], item["arguments"]) == ("function_call", "weather", PARIS)
    assert item["status"] == first["status"] == "completed"
    assert first["tools"] == [TOOL]
    assert first["usage"]["input_tokens"] == 300
    assert first["usage"]["output_tokens"] == 12
    assert model.seen[0]["tools"] == [WEATHER]
    assert [one["role"] for one in model.seen[1]["messages"][-2:]] == ["assistant", "tool"]
    assert "1843" in second["output"][0]["content"][0]["text"]


async def test_a_streamed_call_is_told_in_its_own_events(serve: Serve, tmp_path: Path) -> None:
    import openai

    async with (
        upstream(calls(PARIS)) as model,
        serve(Desk(), policy_file=served(tmp_path, model.url, checks="light")) as http,
    ):
        client = openai.AsyncOpenAI(base_url=f"{http.base_url}/v1", api_key="x", max_retries=0)
        async with client.responses.stream(
            model="auto",
            input=WHEN,
            tools=[{**TOOL, "strict": True}],  # type: ignore[list-item]  # a plain dict
        ) as stream:
            kinds = [event.type async for event in stream]
            final = await stream.get_final_response()
        await client.close()
    assert kinds == [
        "response.created",
        "response.in_progress",
        "response.output_item.added",
        "response.function_call_arguments.delta",
        "response.function_call_arguments.done",
        "response.output_item.done",
        "response.completed",
    ]
    (item,) = final.output
    assert item.type == "function_call"
    assert item.arguments == PARIS


async def test_a_text_that_was_cut_is_incomplete(serve: Serve, tmp_path: Path) -> None:
    async with upstream(writes(LEFT, finish="length")) as model:
        policy = served(tmp_path, model.url, checks="light")
        async with serve(Desk(), policy_file=policy) as client:
            told = await events(client, input=WHEN, max_output_tokens=9)
    last = told[-1]
    assert last["type"] == "response.incomplete"
    assert last["response"]["status"] == "incomplete"
    assert last["response"]["incomplete_details"] == {"reason": "max_output_tokens"}
    assert last["response"]["output"][0]["status"] == "incomplete"
    assert model.seen[0]["max_tokens"] == 9


async def test_text_in_a_schema_is_asked_for_and_given(serve: Serve, tmp_path: Path) -> None:
    wanted = {"type": "json_schema", **YEAR["json_schema"]}
    async with (
        upstream(writes('{"year": 1843}')) as model,
        serve(Desk(), policy_file=served(tmp_path, model.url)) as client,
    ):
        answer = await respond(client, input=WHEN, text={"format": wanted})
    assert model.seen[0]["response_format"] == YEAR
    assert json.loads(answer["output"][0]["content"][0]["text"]) == {"year": 1843}
    assert answer["text"] == {"format": wanted}


async def test_a_failure_in_mid_stream_is_an_event_with_the_reason(
    serve: Serve, tmp_path: Path
) -> None:
    async with upstream(dies) as model:
        policy = served(tmp_path, model.url, checks="light")
        async with serve(Desk(), policy_file=policy) as client:
            told = await events(client, input=WHEN)
    assert any(one["type"] == "response.output_text.delta" for one in told)
    last = told[-1]
    assert last["type"] == "response.failed"
    assert last["response"]["status"] == "failed"
    assert last["response"]["error"]["code"] == "server_error"
    assert last["response"]["error"]["message"].startswith("bad_upstream: ")
    assert last["response"]["output"] == []


async def dies(wire: Wire) -> None:
    """A model whose connection breaks after half a sentence."""
    await wire.head()
    await wire.text("Ada Lovelace wrote the first")
    wire.writer.close()
