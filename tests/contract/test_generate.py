"""The writers over HTTP: a real server, the real small LLM, and a desk that also misbehaves."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from services.generate.app import build
from shared.errors import StartupError
from shared.settings import Settings
from tests.desk import Desk
from tests.suite import free_port, serving

WHEN = "When did Ada Lovelace write the first program?"
PORT = "Which port does the rerank service listen on?"

Serve = Callable[..., AbstractAsyncContextManager[httpx.AsyncClient]]


def chat(question: str, **more: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": question}], **more}


def nowhere() -> str:
    return f"http://127.0.0.1:{free_port()}"


class ModelServer:
    """An OpenAI-compatible server that writes what it is told, or fails as told."""

    def __init__(self, text: str = "", status: int = 200, body: Any = None) -> None:
        self.text = text
        self.status = status
        self.body = body
        self.seen: list[dict[str, Any]] = []

    async def __call__(self, scope, receive, send) -> None:  # type: ignore[no-untyped-def]
        request = Request(scope, receive)
        self.seen.append({**(await request.json()), "headers": dict(request.headers)})
        body = self.body or {
            "id": "x",
            "model": "big-1",
            "choices": [
                {
                    "index": 0,
                    "message": {"role": "assistant", "content": self.text},
                    "finish_reason": "stop",
                }
            ],
            "usage": {"prompt_tokens": 100, "completion_tokens": 7, "total_tokens": 107},
        }
        response: Response = JSONResponse(body, self.status)
        await response(scope, receive, send)


@pytest.fixture
def serve(models_dir: Path) -> Serve:
    """Serve the app over a desk; gives an HTTP client of it.

    Tier reasoning is a server that is not there, unless a test wants the small LLM (`llm`), which
    takes its time, or names a server.
    """

    @asynccontextmanager
    async def start(
        desk: Any, *, llm: bool = False, **settings: Any
    ) -> AsyncIterator[httpx.AsyncClient]:
        served = {} if llm else {"reasoning_url": nowhere(), "reasoning_model": "m"}
        async with serving(desk) as desk_url:
            chosen = Settings(
                models_dir=models_dir,
                **{"retrieve_url": desk_url, "embed_url": nowhere(), **served, **settings},
            )
            app = await build(chosen)
            async with (
                serving(app) as url,
                httpx.AsyncClient(base_url=url, timeout=300) as client,
            ):
                yield client

    return start


async def ask(client: httpx.AsyncClient, question: str, **more: Any) -> dict[str, Any]:
    response = await client.post("/v1/chat/completions", json=chat(question, **more))
    assert response.status_code == 200, response.text
    answer: dict[str, Any] = response.json()
    return answer


# --- the small LLM, the real one ---------------------------------------------------------------


async def test_readiness_proves_both_embedded_writers(serve: Serve) -> None:
    async with serve(Desk(), llm=True) as client:
        ready = await client.get("/ready")
    assert ready.status_code == 200
    assert ready.json()["tiers"] == {
        "utility": {"endpoint": "extractive", "model": "extractive"},
        "reasoning": {"endpoint": "smollm2-135m-instruct", "model": "smollm2-135m-instruct"},
    }


async def test_nothing_of_the_small_llm_is_shown_unless_it_is_verified(serve: Serve) -> None:
    async with serve(Desk(), llm=True) as client:
        answer = await ask(
            client,
            "Explain why the first program by Ada Lovelace leaked.",
            model="reasoning",
            max_tokens=48,
        )
    decision = answer["refdesk"]["decision"]
    assert answer["usage"]["prompt_tokens"] > 100
    assert 0 < answer["usage"]["completion_tokens"] <= 48
    if decision["verification"]["passed"]:
        assert decision["tier"] == "reasoning" or not decision["answered"]
    else:
        assert decision["escalated_from"] == "reasoning:smollm2-135m-instruct"
        assert any(reason.startswith("verification_failed: ") for reason in decision["reasons"])
    sources = " ".join(passage["text"] for passage in answer["refdesk"]["passages"])
    content = answer["choices"][0]["message"]["content"]
    if decision["endpoint"] == "extractive" and decision["answered"]:
        assert content.rsplit(" [", 1)[0].split(". [")[0] in " ".join(sources.split())


async def test_the_small_llm_that_is_out_of_time_is_replaced_before_the_deadline(
    serve: Serve,
) -> None:
    async with serve(Desk(), llm=True) as client:
        response = await client.post(
            "/v1/chat/completions",
            json=chat(WHEN, model="reasoning", max_tokens=1024),
            headers={"x-deadline-ms": "1200"},
        )
        # The thread that owns the model is free again, or the next probe would not come back.
        assert (await client.get("/ready")).status_code == 200
    assert response.status_code == 200, response.text
    trace = response.json()["refdesk"]
    assert trace["decision"]["endpoint"] == "extractive"
    assert "smollm2-135m-instruct" in trace["degraded"]
    assert any(reason.startswith("out_of_time: ") for reason in trace["decision"]["reasons"])


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
    assert message["content"] == "The sources do not answer this question."
    assert message["annotations"] == []
    assert answer["refdesk"]["decision"]["answered"] is False
    assert answer["refdesk"]["decision"]["reasons"][-1].startswith("weak_evidence: ")


async def test_no_passage_at_all_is_no_answer(serve: Serve) -> None:
    async with serve(Desk(passages=[])) as client:
        answer = await ask(client, PORT)
    assert answer["refdesk"]["decision"]["answered"] is False
    assert answer["refdesk"]["passages"] == []


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
    assert models == ["auto", "utility", "reasoning"]
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
    last = chunks[-2].to_dict()
    assert last["refdesk"]["decision"]["answered"] is True  # type: ignore[index]
    assert last["choices"][0]["delta"]["annotations"]  # type: ignore[index]


async def test_a_stream_without_asked_usage_has_none_and_ends_with_done(serve: Serve) -> None:
    async with serve(Desk()) as client:
        response = await client.post("/v1/chat/completions", json=chat(PORT, stream=True))
    events = [line[6:] for line in response.text.splitlines() if line.startswith("data: ")]
    assert response.headers["content-type"].startswith("text/event-stream")
    assert events[-1] == "[DONE]"
    assert all(json.loads(event)["choices"] for event in events[:-1])


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
        (chat("x", tools=[{"type": "function"}]), 400, "tools"),
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


# --- a served model ----------------------------------------------------------------------------


async def test_a_served_model_writes_for_its_tier_and_its_tokens_are_counted(serve: Serve) -> None:
    model = ModelServer("Ada Lovelace wrote the first program in 1843 [3].")
    async with (
        serving(model) as url,
        serve(
            Desk(), reasoning_url=f"{url}/v1", reasoning_model="big", reasoning_key="k1"
        ) as client,
    ):
        answer = await ask(client, WHEN, model="reasoning")
    decision = answer["refdesk"]["decision"]
    assert answer["choices"][0]["message"]["content"] == (
        "Ada Lovelace wrote the first program in 1843. [3]"
    )
    assert (decision["tier"], decision["model"]) == ("reasoning", "big-1")
    assert decision["verification"]["passed"] is True
    assert answer["usage"] == {"prompt_tokens": 100, "completion_tokens": 7, "total_tokens": 107}
    assert model.seen[0]["model"] == "big"
    assert model.seen[0]["headers"]["authorization"] == "Bearer k1"


async def test_passages_stand_in_the_users_turn_between_random_delimiters(serve: Serve) -> None:
    model = ModelServer("NOT IN THE SOURCES")
    async with (
        serving(model) as url,
        serve(Desk(), reasoning_url=url, reasoning_model="big") as client,
    ):
        await ask(client, WHEN, model="reasoning")
        await ask(client, WHEN, model="reasoning")
    users = []
    for seen in model.seen:
        system, user = seen["messages"]
        assert (system["role"], user["role"]) == ("system", "user")
        assert "Ada" not in system["content"]
        assert "[3] History\nAda Lovelace" in user["content"]
        users.append(user["content"])
    assert users[0] != users[1]
    assert users[0].splitlines()[1:-1] != []


async def test_a_served_model_that_lies_is_replaced_and_the_checks_are_named(serve: Serve) -> None:
    model = ModelServer("Ada Lovelace wrote the first program in 1844 [3].")
    async with (
        serving(model) as url,
        serve(Desk(), reasoning_url=url, reasoning_model="big") as client,
    ):
        answer = await ask(client, WHEN, model="reasoning")
    decision = answer["refdesk"]["decision"]
    assert "1844" not in answer["choices"][0]["message"]["content"]
    assert "1843" in answer["choices"][0]["message"]["content"]
    assert decision["endpoint"] == "extractive"
    assert decision["escalated_from"] == f"reasoning:{url}"
    assert decision["verification"]["passed"] is False
    assert {failure["check"] for failure in decision["verification"]["failures"]} >= {"number"}
    assert any(reason.startswith("verification_failed: ") for reason in decision["reasons"])
    assert answer["usage"]["completion_tokens"] == 7


async def test_a_served_model_that_declines_is_believed(serve: Serve) -> None:
    model = ModelServer("Not in the sources.")
    async with (
        serving(model) as url,
        serve(Desk(), reasoning_url=url, reasoning_model="big") as client,
    ):
        answer = await ask(client, WHEN, model="reasoning")
    assert answer["refdesk"]["decision"]["answered"] is False
    assert answer["refdesk"]["decision"]["tier"] == "reasoning"


@pytest.mark.parametrize(
    "model",
    [
        ModelServer(status=500, body={"oops": 1}),
        ModelServer(status=401, body={"error": {"message": "bad key", "code": "x"}}),
        ModelServer(body={"choices": None}),
        ModelServer(body={"choices": []}),
        ModelServer(body=["what"]),
    ],
)
async def test_a_served_model_that_fails_degrades_to_the_extractive_answer(
    serve: Serve, model: ModelServer
) -> None:
    async with (
        serving(model) as url,
        serve(Desk(), reasoning_url=url, reasoning_model="big") as client,
    ):
        answer = await ask(client, WHEN, model="reasoning")
    trace = answer["refdesk"]
    assert "1843" in answer["choices"][0]["message"]["content"]
    assert trace["decision"]["endpoint"] == "extractive"
    assert url in trace["degraded"]
    assert any(reason.startswith("endpoint_failed: ") for reason in trace["decision"]["reasons"])


# --- start -------------------------------------------------------------------------------------


async def test_a_served_model_without_a_name_keeps_the_service_from_starting() -> None:
    with pytest.raises(StartupError, match="REFDESK_REASONING_MODEL"):
        await build(Settings(reasoning_url="http://127.0.0.1:1"))


async def test_a_missing_model_keeps_the_service_from_starting(tmp_path: Path) -> None:
    with pytest.raises(StartupError, match="refdesk models pull"):
        await build(Settings(models_dir=tmp_path))


async def test_a_caller_who_hangs_up_stops_the_draft(serve: Serve) -> None:
    started = asyncio.Event()
    stopped = asyncio.Event()

    async def slow_model(scope, receive, send) -> None:  # type: ignore[no-untyped-def]
        await Request(scope, receive).json()
        started.set()
        while (await receive())["type"] != "http.disconnect":
            pass
        stopped.set()

    async with (
        serving(slow_model) as url,
        serve(Desk(), reasoning_url=url, reasoning_model="big") as client,
    ):
        for stream in (False, True):
            started.clear()
            stopped.clear()
            body = chat(WHEN, model="reasoning", stream=stream)
            call = asyncio.create_task(client.post("/v1/chat/completions", json=body))
            await started.wait()
            call.cancel()
            await asyncio.wait_for(stopped.wait(), 30)
