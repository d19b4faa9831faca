"""The writers over HTTP: answers, bad requests, and a desk that misbehaves."""

from typing import Any

import pytest

from tests.desk import Desk
from tests.streams import DONE, events
from tests.writers import PORT, WHEN, Serve, ask, chat, nowhere

# --- answers -----------------------------------------------------------------------------------


async def test_a_lookup_is_answered_in_the_sources_own_words_with_a_citation(serve: Serve) -> None:
    desk = Desk()
    async with serve(desk) as client:
        answer = await ask(client, PORT)
    message = answer["choices"][0]["message"]
    assert "The rerank service listens on port 8002. [1]" in message["content"]
    assert answer["object"] == "chat.completion"
    assert answer["choices"][0]["finish_reason"] == "stop"
    assert answer["usage"] == {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}
    trace = answer["refdesk"]
    assert trace["decision"]["tier"] == "utility"
    assert trace["decision"]["endpoint"] == "extractive"
    assert trace["decision"]["answered"] is True
    assert trace["decision"]["verification"] == {"passed": True, "failures": []}
    assert "intent: lookup" in trace["decision"]["reasons"]
    assert [passage["n"] for passage in trace["passages"]] == [1, 2, 3]
    assert trace["degraded"] == ["similarity"]  # there is no librarian in this test
    assert set(trace["timings_ms"]) == {"retrieve", "route", "draft", "verify", "total"}
    assert desk.seen[0]["corpora"] == ["handbook"]
    assert desk.seen[0]["max_tokens"] == 1200
    assert desk.seen[0]["curate"] is None  # the corpora's own settings decide


async def test_annotations_give_the_cited_range_and_the_address(serve: Serve) -> None:
    async with serve(Desk()) as client:
        ports = (await ask(client, PORT))["choices"][0]["message"]
        when = (await ask(client, WHEN))["choices"][0]["message"]
    by_url = {
        one["url_citation"]["url"]: (message, one["url_citation"])
        for message in (ports, when)
        for one in message["annotations"]
    }
    message, citation = by_url["refdesk://handbook/history.md#0"]
    cited = message["content"][citation["start_index"] : citation["end_index"]]
    assert cited.startswith("Ada Lovelace wrote the first program in 1843. [")
    assert citation["title"] == "History"
    assert "https://handbook.example/ports.md" in by_url


async def test_a_question_that_the_sources_do_not_answer_is_told_so(serve: Serve) -> None:
    async with serve(Desk(), llm=True) as client:
        answer = await ask(client, "Who won the football world cup in Brazil?")
    message = answer["choices"][0]["message"]
    assert message["content"].startswith("The sources do not answer this question.\n")
    assert answer["refdesk"]["decision"]["answered"] is False
    assert answer["refdesk"]["decision"]["reasons"][-1].startswith("weak_evidence: ")


async def test_no_passage_at_all_is_no_answer(serve: Serve) -> None:
    async with serve(Desk(passages=[])) as client:
        answer = await ask(client, PORT)
    assert answer["refdesk"]["decision"]["answered"] is False
    message = answer["choices"][0]["message"]
    assert message["content"] == "The sources do not answer this question."
    assert (message["annotations"], answer["refdesk"]["passages"]) == ([], [])


async def test_the_last_user_message_is_the_question(serve: Serve) -> None:
    desk = Desk()
    conversation = [
        {"role": "system", "content": "Be kind."},
        {"role": "user", "content": WHEN},
        {"role": "assistant", "content": "In 1843. [1]"},
        {"role": "user", "content": [{"type": "text", "text": PORT}]},
        {"role": "assistant", "content": None},
    ]
    async with serve(desk) as client:
        response = await client.post("/v1/chat/completions", json={"messages": conversation})
    assert response.status_code == 200
    assert desk.seen[0]["query"] == PORT


async def test_corpora_come_from_the_request_then_the_settings_then_the_desk(serve: Serve) -> None:
    desk = Desk(corpora=["handbook", "attic"])
    async with serve(desk) as client:
        await ask(client, PORT, refdesk={"corpora": ["attic"], "top_k": 2, "curate": False})
        await ask(client, PORT)
    async with serve(desk, default_corpora=["cellar"]) as client:
        await ask(client, PORT)
    assert [one["corpora"] for one in desk.seen] == [["attic"], ["handbook", "attic"], ["cellar"]]
    assert (desk.seen[0]["top_k"], desk.seen[0]["curate"]) == (2, False)


async def test_id_deadline_and_key_are_passed_on_to_the_desk(serve: Serve) -> None:
    desk = Desk()
    async with serve(desk) as client:
        response = await client.post(
            "/v1/chat/completions",
            json=chat(PORT),
            headers={
                "x-request-id": "abc",
                "x-deadline-ms": "60000",
                "authorization": "Bearer secret",
            },
        )
    assert response.headers["x-request-id"] == "abc"
    headers = desk.seen[0]["headers"]
    assert headers["x-request-id"] == "abc"
    assert 0 < int(headers["x-deadline-ms"]) <= 60000
    assert headers["authorization"] == "Bearer secret"


# --- the official client -----------------------------------------------------------------------


async def test_the_official_client_gets_a_whole_answer_and_a_stream(serve: Serve) -> None:
    import openai

    async with serve(Desk()) as http:
        client = openai.AsyncOpenAI(base_url=f"{http.base_url}/v1", api_key="none", max_retries=0)
        models = [model.id async for model in client.models.list()]
        whole = await client.chat.completions.create(
            model="auto", messages=[{"role": "user", "content": PORT}]
        )
        stream = await client.chat.completions.create(
            model="auto",
            messages=[{"role": "user", "content": PORT}],
            stream=True,
            stream_options={"include_usage": True},
        )
        chunks = [chunk async for chunk in stream]
        await client.close()
    tiers, writers = ["utility", "reasoning"], ["utility-writer", "reasoning-writer", "extractive"]
    assert models == ["auto", *tiers, *writers]
    text = whole.choices[0].message.content
    assert text is not None
    assert whole.choices[0].message.annotations is not None
    assert whole.choices[0].message.annotations[0].url_citation.url.startswith("https://handbook")
    streamed = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert streamed == text
    assert chunks[0].choices[0].delta.role == "assistant"
    assert [chunk.choices[0].finish_reason for chunk in chunks[:-1]][-1] == "stop"
    assert chunks[-1].choices == []
    assert chunks[-1].usage is not None
    last: dict[str, Any] = chunks[-2].to_dict()
    assert last["refdesk"]["decision"]["answered"] is True
    assert last["choices"][0]["delta"]["annotations"]


async def test_a_stream_without_asked_usage_has_none_and_ends_with_done(serve: Serve) -> None:
    async with serve(Desk()) as client:
        response = await client.post("/v1/chat/completions", json=chat(PORT, stream=True))
    assert response.headers["content-type"].startswith("text/event-stream")
    assert response.text.endswith(DONE)
    assert all(one["choices"] for one in events(response.text))


# --- bad requests ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "status", "param"),
    [
        ({}, 400, "messages"),
        ({"messages": []}, 400, "messages"),
        ({"messages": [{"role": "user", "content": "  \n"}]}, 400, "messages.0.content"),
        ({"messages": [{"role": "user", "content": None}]}, 400, "messages.0.content"),
        ({"messages": [{"role": "system", "content": "x"}]}, 400, "messages"),
        ({"messages": [{"role": "wizard", "content": "x"}]}, 400, "messages.0.role"),
        (chat("x" * 8193), 400, "messages.0.content"),
        (chat("x", n=2), 400, "n"),
        (chat("x", tools=[{"type": "function"}]), 400, "tools.0.function"),
        (chat("x", model="gpt-9"), 404, "model"),
        (chat("x", max_tokens=0), 400, "max_tokens"),
        (chat("x", refdesk={"corpora": []}), 400, "refdesk.corpora"),
        (chat("x", refdesk={"corpora": ["../etc"]}), 400, "refdesk.corpora.0"),
        (chat("x", refdesk={"top_k": 0}), 400, "refdesk.top_k"),
        (chat("x", refdesk={"top_k": -1}), 400, "refdesk.top_k"),
        (chat("x", refdesk={"top_k": 10**9}), 400, "refdesk.top_k"),
        (chat("x", refdesk={"topk": 3}), 400, "refdesk.topk"),
        (
            {
                "messages": [
                    {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}
                ]
            },
            400,
            "messages.0.content",
        ),
        ({"messages": [{"role": "user", "content": 5}]}, 400, "messages.0.content"),
        ({"messages": [{"role": "user", "content": "x" * 1000}] * 500}, 400, None),
    ],
)
async def test_a_bad_request_is_told_what_is_wrong_with_it(
    serve: Serve, body: dict[str, Any], status: int, param: str | None
) -> None:
    async with serve(Desk()) as client:
        response = await client.post("/v1/chat/completions", json=body)
    assert response.status_code == status, response.text
    error = response.json()["error"]
    assert error["param"] == param
    assert error["message"]


async def test_a_name_that_no_corpus_can_have_is_refused_in_a_sentence(serve: Serve) -> None:
    async with serve(Desk()) as client:
        response = await client.post(
            "/v1/chat/completions", json=chat("x", refdesk={"corpora": ["Hand Book"]})
        )
    message = response.json()["error"]["message"]
    assert message.startswith("refdesk.corpora.0: can't be the name of a corpus: it has 1 to 63")


async def test_no_corpus_to_search_says_how_to_make_one(serve: Serve) -> None:
    async with serve(Desk(corpora=[])) as client:
        response = await client.post("/v1/chat/completions", json=chat(PORT, stream=True))
    assert response.status_code == 404
    assert "refdesk ingest" in response.json()["error"]["message"]


# --- a desk in trouble -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("trouble", "status", "code"),
    [
        ("404", 404, "unknown_corpus"),
        ("500", 502, "bad_upstream"),
        ("rubbish", 502, "bad_upstream"),
        ("no json", 502, "bad_upstream"),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
async def test_an_error_of_the_desk_is_passed_on(
    serve: Serve, trouble: str, status: int, code: str, stream: bool
) -> None:
    desk = Desk(trouble=trouble)
    async with serve(desk) as client:
        response = await client.post("/v1/chat/completions", json=chat(PORT, stream=stream))
    assert response.status_code == status, response.text
    assert response.json()["error"]["code"] == code


async def test_a_desk_that_is_not_there_is_a_503_that_says_so(serve: Serve) -> None:
    async with serve(Desk(), retrieve_url=nowhere()) as client:
        response = await client.post("/v1/chat/completions", json=chat(PORT))
    assert response.status_code == 503
    assert "retrieve" in response.json()["error"]["message"]


async def test_a_desk_that_hangs_ends_with_the_deadline(serve: Serve) -> None:
    async with serve(Desk(trouble="hang")) as client:
        response = await client.post(
            "/v1/chat/completions", json=chat(PORT), headers={"x-deadline-ms": "300"}
        )
    assert response.status_code == 504
    assert response.json()["error"]["type"] == "timeout_error"
