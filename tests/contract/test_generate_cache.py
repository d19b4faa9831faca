"""Answers that are given again: to the same question with the same rights, and to nobody else."""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from importlib.resources import files
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.requests import Request
from starlette.types import Receive, Scope, Send

from services.generate.routing import in_force
from tests.calling import WEATHER
from tests.desk import HANDBOOK, Desk
from tests.guarded import bearer, keys_file
from tests.model_server import ModelServer
from tests.streams import DONE, events, text_of
from tests.suite import Suite, serving
from tests.writers import WHEN, Serve, ask, chat, heads, records

TRUE = "Ada Lovelace wrote the first program in 1843. [3]"
SECRET = ("secret.md", "Secret", "The password of the vault of Ada Lovelace is 4711.")


Ready = Callable[..., AbstractAsyncContextManager[tuple[httpx.AsyncClient, ModelServer]]]


@pytest.fixture
def ready(serve: Serve, suite: Suite) -> Ready:
    """Serve generate with its cache, a language model for tier reasoning, and the real embed."""

    @asynccontextmanager
    async def start(
        desk: Any, *, text: str = TRUE, **settings: Any
    ) -> AsyncIterator[tuple[httpx.AsyncClient, ModelServer]]:
        model = ModelServer(text)
        chosen = {"answer_cache": "exact", "embed_url": suite.url("embed")} | settings
        async with (
            serving(model) as url,
            serve(desk, reasoning_url=url, reasoning_model="m", **chosen) as client,
        ):
            yield client, model

    return start


async def written(client: httpx.AsyncClient, question: str = WHEN, **more: Any) -> dict[str, Any]:
    """An answer of the language model, or one that it gave before."""
    answer = await ask(client, question, **{"model": "reasoning"} | more)
    assert answer["refdesk"]["decision"]["answered"]
    return answer


# --- a hit -------------------------------------------------------------------------------------


async def test_the_same_question_is_answered_again_without_a_writer(
    ready: Ready, tmp_path: Path
) -> None:
    async with ready(Desk(), data_dir=tmp_path) as (client, model):
        first = await written(client)
        again = await written(client, f"  {WHEN.replace(' ', '   ')}")
        metrics = (await client.get("/metrics")).text
    assert len(model.seen) == 1
    assert [one["refdesk"]["cached"] for one in (first, again)] == [False, True]
    assert again["choices"] == first["choices"]
    assert again["usage"] == {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}
    assert again["refdesk"]["decision"] == first["refdesk"]["decision"]
    assert again["refdesk"]["timings_ms"]["draft"] == 0
    assert again["refdesk"]["timings_ms"]["retrieve"] > 0
    assert 'refdesk_generate_cache_lookups_total{found="exact"}' in metrics
    made, given = records(tmp_path)
    assert made["cached"] is None
    assert given["cached"] == {"found": "exact", "record": heads(tmp_path)[0]}
    assert (given["attempts"], given["cost_nano_dollars"]) == ([], 0)
    assert given["answer"] == made["answer"]


async def test_a_stream_gets_what_a_whole_answer_left_and_the_other_way_round(
    ready: Ready,
) -> None:
    async with ready(Desk()) as (client, model):
        for first, second in ((False, True), (True, False)):
            question = f"{WHEN} {'Tell me.' if first else ''}"
            bodies = [chat(question, model="reasoning", stream=s) for s in (first, second)]
            texts = [(await client.post("/v1/chat/completions", json=one)).text for one in bodies]
            assert '"cached":false' in texts[0]
            assert '"cached":true' in texts[1]
            assert [one.endswith(DONE) for one in texts] == [first, second]
    assert len(model.seen) == 2


async def test_the_responses_api_shares_answers_with_chats(ready: Ready) -> None:
    async with ready(Desk()) as (client, model):
        chatted = await written(client)
        body = {"model": "reasoning", "input": WHEN}
        response = (await client.post("/v1/responses", json=body)).json()
    assert len(model.seen) == 1
    assert response["refdesk"]["cached"] is True
    told = chatted["choices"][0]["message"]["content"]
    assert response["output"][0]["content"][0]["text"] == told


async def test_a_request_can_do_without_and_leaves_nothing(ready: Ready) -> None:
    async with ready(Desk()) as (client, model):
        for _ in range(2):
            answer = await written(client, refdesk={"cache": False})
            assert answer["refdesk"]["cached"] is False
        assert (await written(client))["refdesk"]["cached"] is False
    assert len(model.seen) == 3


async def test_switched_off_every_answer_is_written(ready: Ready) -> None:
    async with ready(Desk(), answer_cache="off") as (client, model):
        await written(client)
        assert (await written(client))["refdesk"]["cached"] is False
    assert len(model.seen) == 2


async def test_an_answer_that_failed_its_checks_is_not_kept(ready: Ready) -> None:
    lie = "Ada Lovelace wrote the first program in 1999. [3]"
    async with ready(Desk(), text=lie) as (client, model):
        for _ in range(2):
            answer = await written(client)
            assert answer["refdesk"]["cached"] is False
            assert "1999" not in answer["choices"][0]["message"]["content"]
    assert len(model.seen) == 2


async def test_a_refusal_is_not_kept(ready: Ready) -> None:
    desk = Desk(passages=[])
    async with ready(desk) as (client, _):
        assert not (await ask(client, WHEN))["refdesk"]["decision"]["answered"]
        desk.passages = list(HANDBOOK)
        answer = await written(client)
    assert answer["refdesk"]["cached"] is False


async def test_an_answer_that_had_to_do_without_a_part_is_not_kept(ready: Ready) -> None:
    async with ready(Desk(), embed_url="http://127.0.0.1:9") as (client, model):
        for _ in range(2):
            assert (await written(client))["refdesk"]["degraded"] == ["similarity"]
    assert len(model.seen) == 2


# --- another key is another answer ---------------------------------------------------------------

OTHERS: dict[str, dict[str, Any]] = {
    "question": {"messages": [{"role": "user", "content": f"{WHEN} Was it Ada?"}]},
    "conversation": {
        "messages": [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": WHEN},
        ]
    },
    "model": {"model": "auto"},
    "longest draft": {"max_tokens": 50},
    "tools": {"tools": [WEATHER]},
    "data class": {"refdesk": {"data_class": "internal"}},
    "tiers": {"refdesk": {"tiers": ["reasoning"]}},
    "budget": {"refdesk": {"budget_nano_dollars": 10**12}},
    "corpora": {"refdesk": {"corpora": ["attic"]}},
    "passages": {"refdesk": {"top_k": 3}},
}


@pytest.mark.parametrize("name", OTHERS)
async def test_who_asks_for_something_else_gets_no_kept_answer(ready: Ready, name: str) -> None:
    async with ready(Desk()) as (client, _):
        await written(client)
        body = chat(WHEN, model="reasoning") | OTHERS[name]
        for cached in (False, True):  # its own is kept, too
            response = await client.post("/v1/chat/completions", json=body)
            assert response.status_code == 200, response.text
            assert response.json()["refdesk"]["cached"] is cached, name
        assert (await written(client))["refdesk"]["cached"] is True


async def test_another_policy_gives_no_kept_answer(
    ready: Ready, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(in_force, "LOOK_EVERY_S", 0.0)
    policy = tmp_path / "policy.yaml"
    text = files("services.generate.policy").joinpath("default.yaml").read_text()
    policy.write_text(text)
    async with ready(Desk(), policy_file=policy) as (client, model):
        await written(client)
        assert (await written(client))["refdesk"]["cached"] is True
        policy.write_text(text.replace("below: 40", "below: 39"))
        assert (await written(client))["refdesk"]["cached"] is False
    assert len(model.seen) == 2


async def test_a_document_that_changed_gives_no_kept_answer(ready: Ready) -> None:
    desk = Desk()
    async with ready(desk) as (client, model):
        await written(client)
        id_, title, text = HANDBOOK[2]
        desk.passages = [*HANDBOOK[:2], (id_, title, text.replace("1843", "1842"))]
        model.text = TRUE.replace("1843", "1842")
        changed = await written(client)
    assert changed["refdesk"]["cached"] is False
    assert "1842" in changed["choices"][0]["message"]["content"]


# --- rights --------------------------------------------------------------------------------------


class Vault(Desk):
    """A desk with a document that only some may read: `opens` are the keys that open it."""

    opens: set[str]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            key = Request(scope).headers.get("authorization", "").removeprefix("Bearer ")
            self.passages = [*HANDBOOK, SECRET] if key in self.opens else list(HANDBOOK)
        await super().__call__(scope, receive, send)


# Two readers with the same rights but their names, and three others.
KEYS: list[dict[str, Any]] = [
    {"name": "ann", "groups": ["staff"]},
    {"name": "bob", "groups": ["staff"]},
    {"name": "cat", "groups": ["board"]},
    {"name": "dan", "groups": ["staff"], "corpora": ["handbook"]},
    {"name": "eve", "role": "admin"},
]


@pytest.mark.parametrize("kind", ["exact", "semantic"])
async def test_nobody_gets_an_answer_of_somebody_with_other_rights(
    ready: Ready, tmp_path: Path, kind: str
) -> None:
    keys = keys_file(tmp_path, *KEYS)
    async with ready(Desk(), keys_file=keys, answer_cache=kind) as (client, model):
        for count, name in enumerate(("ann", "bob", "cat", "dan", "eve"), start=1):
            client.headers.update(bearer(name))
            for cached in (False, True):
                assert (await written(client))["refdesk"]["cached"] is cached, name
            assert len(model.seen) == count


async def test_a_permission_that_was_taken_away_takes_the_answer_with_it(
    ready: Ready, tmp_path: Path
) -> None:
    desk = Vault()
    desk.opens = {"ann-key"}
    question = "What is the password of the vault of Ada Lovelace?"
    body = chat(question, model="reasoning")
    told = "The password of the vault of Ada Lovelace is 4711. [4]"
    async with ready(desk, text=told, keys_file=keys_file(tmp_path, *KEYS)) as (client, model):
        client.headers.update(bearer("ann"))
        for cached in (False, True):
            answer = await written(client, question)
            assert answer["refdesk"]["cached"] is cached
            assert "4711" in answer["choices"][0]["message"]["content"]
        desk.opens = set()
        model.text = TRUE
        for stream in (False, True):
            after = await client.post("/v1/chat/completions", json={**body, "stream": stream})
            assert after.status_code == 200
            shown = text_of(events(after.text)) if stream else str(after.json()["choices"])
            assert "1843" in shown
            assert "4711" not in shown
            assert ('"cached":true' in after.text) is stream  # of the answer just before


# --- another wording -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("question", "cached"),
    [
        ("when did ADA lovelace write the first program", True),
        (f"Could you please tell me: {WHEN}", True),
        ("When did Ada Lovelace write the second program?", False),
        ("When did Ada Lovelace not write the first program?", False),
        ("When did Charles Babbage write the first program?", False),
        ("Where did Ada Lovelace write the first program?", False),
        ("When did Ada Lovelace write the first 2 programs?", False),
    ],
)
async def test_another_wording_hits_only_where_it_asks_the_same(
    ready: Ready, tmp_path: Path, question: str, cached: bool
) -> None:
    async with ready(Desk(), data_dir=tmp_path, answer_cache="semantic") as (client, _):
        await written(client)
        answer = await ask(client, question, model="reasoning")
        assert answer["refdesk"]["cached"] is cached
    _, given = records(tmp_path)
    expected = {"found": "semantic", "record": heads(tmp_path)[0]} if cached else None
    assert given["cached"] == expected


async def test_exactly_means_that_no_other_wording_hits(ready: Ready) -> None:
    async with ready(Desk()) as (client, _):
        await written(client)
        assert (await written(client, WHEN.lower()))["refdesk"]["cached"] is False
