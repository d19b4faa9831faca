"""The writers over HTTP: the real small LLM, served models, streams, keys and the start."""

import asyncio
import re
from pathlib import Path
from typing import Any

import httpx
import pytest
import structlog.testing
from fastapi import FastAPI
from starlette.requests import Request
from starlette.types import Receive, Scope, Send

from services.generate.answer.writers import Writers
from services.generate.app import build
from services.generate.delivery.chat import ChatWire, Envelope
from services.generate.delivery.delivery import Delivery
from services.generate.peers.desk import Desk as DeskClient
from services.generate.peers.librarian import Librarian
from services.generate.pipeline import Engine, Query
from services.generate.reading.citations import claims
from services.generate.routing.in_force import PolicyFile
from services.generate.tiers.configured import ConfiguredEndpoints
from services.generate.tiers.endpoint import Draft, DraftRequest
from services.generate.tiers.extractive import ExtractiveEndpoint
from services.generate.tiers.resilience import Resilience
from services.generate.trust.case import Case
from services.generate.trust.database import GenerateDatabase
from services.generate.trust.ledger import Ledger
from shared.client import ServiceClient
from shared.errors import StartupError
from shared.settings import Settings
from tests.desk import Desk
from tests.guarded import bearer, keys_file
from tests.model_server import ModelServer
from tests.streams import events
from tests.suite import serving
from tests.writers import PORT, WHEN, Serve, ask, chat, nowhere

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
            client, "Explain why the first program by Ada Lovelace leaked.", model="reasoning"
        )
    decision = answer["refdesk"]["decision"]
    if decision["endpoint"] == "smollm2-135m-instruct":
        assert decision["verification"]["passed"]
        return
    # On a machine that is too busy it does not get as far as a draft.
    outcomes = ("verification_failed: ", "endpoint_failed: smollm2-135m-instruct: writer_slow")
    assert decision["escalated_from"] == "reasoning:smollm2-135m-instruct"
    assert any(reason.startswith(outcomes) for reason in decision["reasons"])
    sources = " ".join(passage["text"] for passage in answer["refdesk"]["passages"])
    for claim in claims(answer["choices"][0]["message"]["content"]):
        assert claim.text in " ".join(sources.split())


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
    assert (decision["tier"], decision["model"]) == ("reasoning", "big")
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
    codes = set()
    for seen in model.seen:
        system, user = seen["messages"]
        assert (system["role"], user["role"]) == ("system", "user")
        assert "Ada" not in system["content"]
        assert "[3] History\nAda Lovelace" in user["content"]
        [opening, code] = re.findall(r"</?sources (\w+)>", user["content"])
        assert opening == code
        codes.add(code)
    assert len(codes) == 2


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
        ModelServer(text=" "),
        ModelServer(body={"choices": [{"message": {"content": None}, "finish_reason": "length"}]}),
        ModelServer(body={"choices": [{"message": {"role": "assistant"}}]}),
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


async def test_a_draft_that_is_cut_in_its_first_sentence_is_replaced(serve: Serve) -> None:
    cut = {"message": {"content": "Ada Lovelace wrote the"}, "finish_reason": "length"}
    model = ModelServer(body={"choices": [cut]})
    async with (
        serving(model) as url,
        serve(Desk(), reasoning_url=url, reasoning_model="big") as client,
    ):
        answer = await ask(client, WHEN, model="reasoning")
    assert "1843" in answer["choices"][0]["message"]["content"]
    assert "verification_failed: empty" in answer["refdesk"]["decision"]["reasons"]


# --- start -------------------------------------------------------------------------------------


async def test_a_served_model_without_a_name_keeps_the_service_from_starting() -> None:
    with pytest.raises(StartupError, match="REFDESK_REASONING_MODEL"):
        await build(Settings(reasoning_url="http://127.0.0.1:1"))


@pytest.mark.parametrize("url", ["http://user:secret@127.0.0.1:1", "127.0.0.1:1/v1"])
async def test_a_server_with_a_bad_url_keeps_the_service_from_starting(
    url: str, tmp_path: Path
) -> None:
    given = {"reasoning_url": url, "reasoning_model": "m", "data_dir": tmp_path}
    with pytest.raises(StartupError, match="URL of tier reasoning") as raised:
        await build(Settings(**given))
    assert "secret" not in str(raised.value)


async def test_a_missing_model_keeps_the_service_from_starting(tmp_path: Path) -> None:
    with pytest.raises(StartupError, match="refdesk models pull"):
        await build(Settings(models_dir=tmp_path))


async def test_a_caller_who_hangs_up_stops_the_draft(serve: Serve) -> None:
    started = asyncio.Event()
    stopped = asyncio.Event()

    async def slow_model(scope: Scope, receive: Receive, send: Send) -> None:
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
            await asyncio.wait_for(started.wait(), 30)
            call.cancel()
            await asyncio.wait_for(stopped.wait(), 30)


# --- streams and keys --------------------------------------------------------------------------


async def test_a_stream_shows_life_while_a_writer_thinks(serve: Serve) -> None:
    think = asyncio.Event()
    writer = ModelServer("Ada Lovelace wrote the first program in 1843 [3].")

    async def slow_model(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            await asyncio.wait_for(think.wait(), 30)
            await writer(scope, receive, send)

    async with (
        serving(slow_model) as url,
        serve(Desk(), reasoning_url=url, reasoning_model="big") as client,
    ):
        body = chat(WHEN, model="reasoning", stream=True)
        async with client.stream("POST", "/v1/chat/completions", json=body) as response:
            before: list[str] = []
            after: list[str] = []
            async for line in response.aiter_lines():
                (after if think.is_set() else before).append(line)
                if line.startswith(":"):
                    think.set()
    assert [one["choices"][0]["delta"] for one in events("\n".join(before))] == [
        {"role": "assistant", "content": ""}
    ]
    assert after[-2:] == ["data: [DONE]", ""]


class BrokenWriter:
    """A defect: it raises what no endpoint may raise."""

    name = "broken"
    model = "broken"

    async def draft(self, request: DraftRequest) -> Draft:
        raise ZeroDivisionError("secret detail")

    async def close(self) -> None:
        """Hold nothing."""


async def test_a_defect_in_mid_stream_is_an_error_event_without_details(tmp_path: Path) -> None:
    extractive = ExtractiveEndpoint()
    writers = {"utility": extractive, "reasoning": BrokenWriter()}
    configured = ConfiguredEndpoints(writers, extractive, (extractive,), Resilience.by(Settings()))
    app = FastAPI()
    async with serving(Desk()) as desk_url:
        engine = Engine(
            DeskClient(ServiceClient("retrieve", desk_url, settings=Settings())),
            Librarian(ServiceClient("embed", nowhere(), settings=Settings())),
            Writers(Settings(), configured),
            PolicyFile(None),
            (),
        )

        database = GenerateDatabase.of(Settings(data_dir=tmp_path))
        ledger = Ledger(database, audit=True)

        @app.post("/")
        async def stream(request: Request) -> Any:
            case = Case(ledger, "hash", model="reasoning", streamed=True, question=WHEN)
            wire = ChatWire(Envelope("id", 0, "reasoning"))
            delivery = Delivery(engine, case, request, wire, True, 0.0)
            return await delivery.answer(Query(WHEN, (), 5, 1200, True, "reasoning", None))

        with structlog.testing.capture_logs() as logged:
            async with serving(app) as url, httpx.AsyncClient(timeout=60) as client:
                response = await client.post(url)
        await engine.close()
        ledger.close()
        database.close()
    assert events(response.text)[-1]["error"]["code"] == "internal_error"
    assert "ZeroDivisionError" in [one.get("error") for one in logged]
    assert "secret detail" not in response.text
    assert "[DONE]" not in response.text


async def test_a_key_reads_only_its_own_corpora(serve: Serve, tmp_path: Path) -> None:
    keys = keys_file(tmp_path, {"name": "ann", "role": "reader", "corpora": ["handbook"]})
    async with serve(Desk(), keys_file=keys) as client:
        nobody = await client.post("/v1/chat/completions", json=chat(PORT))
        client.headers.update(bearer("ann"))
        own = await client.post(
            "/v1/chat/completions", json=chat(PORT, refdesk={"corpora": ["handbook"]})
        )
        other = await client.post(
            "/v1/chat/completions", json=chat(PORT, refdesk={"corpora": ["attic"]})
        )
    assert [nobody.status_code, own.status_code, other.status_code] == [401, 200, 404]
