"""Every answer of generate goes on record, and none goes out without; what a record says of it."""

import asyncio
import hashlib
import json
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.desk import HANDBOOK, Desk
from tests.guarded import bearer, keys_file
from tests.model_server import ModelServer
from tests.streams import events
from tests.suite import serving
from tests.writers import DATABASE, PORT, WHEN, Serve, ask, chat, nowhere, record, records

ADMIN, READER = {"name": "root", "role": "admin"}, {"name": "ann", "role": "reader"}
LIE = "Ada Lovelace wrote the first program in 1999. [3]"


def sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


# --- what is on record -------------------------------------------------------------------------


@pytest.mark.parametrize("stream", [False, True])
async def test_an_answer_is_on_record_with_hashes_of_all_texts(
    serve: Serve, tmp_path: Path, stream: bool
) -> None:
    async with serve(Desk(), data_dir=tmp_path) as client:
        response = await client.post(
            "/v1/chat/completions", json=chat(PORT, stream=stream), headers={"x-request-id": "r1"}
        )
        whole = await ask(client, PORT)
    assert response.status_code == 200
    kept = records(tmp_path)[0]
    assert (kept["request_id"], kept["principal"], kept["status"]) == ("r1", "local", "answered")
    assert kept["streamed"] is stream
    assert kept["asked_model"] == "auto"
    assert kept["error"] is None
    assert kept["question"] == {"sha256": sha256(PORT)}
    assert kept["answer"] == {"sha256": sha256(whole["choices"][0]["message"]["content"])}
    assert kept["passages"] == [
        {"corpus": "handbook", "id": f"{id_}#0", "sha256": sha256(text)}
        for id_, _, text in HANDBOOK
    ]
    told = whole["refdesk"]["decision"]
    assert [kept[name] for name in ("tier", "endpoint", "model", "reasons")] == [
        told[name] for name in ("tier", "endpoint", "model", "reasons")
    ]
    assert kept["decision"]["policy"] == told["policy"]
    assert kept["verification"] == {"passed": True, "failures": []}
    assert [one["completion_tokens"] for one in kept["attempts"]] == [0]
    assert kept["cost_nano_dollars"] == 0
    assert "port" not in json.dumps(kept["passages"]).replace("ports.md", "")


async def test_that_the_sources_do_not_answer_is_on_record(serve: Serve, tmp_path: Path) -> None:
    async with serve(Desk(passages=[]), data_dir=tmp_path) as client:
        await ask(client, PORT)
    kept = await record(tmp_path)
    assert (kept["status"], kept["passages"]) == ("declined", [])


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(("trouble", "code"), [("404", "unknown_corpus"), ("500", "bad_upstream")])
async def test_a_question_that_failed_is_on_record(
    serve: Serve, tmp_path: Path, trouble: str, code: str, stream: bool
) -> None:
    async with serve(Desk(trouble=trouble), data_dir=tmp_path) as client:
        await client.post("/v1/chat/completions", json=chat(PORT, stream=stream))
    kept = await record(tmp_path)
    assert (kept["status"], kept["error"]) == ("failed", code)
    assert kept["question"] == {"sha256": sha256(PORT)}
    assert "answer" not in kept


async def test_a_question_whose_time_is_up_is_on_record(serve: Serve, tmp_path: Path) -> None:
    async with serve(Desk(trouble="hang"), data_dir=tmp_path) as client:
        response = await client.post(
            "/v1/chat/completions", json=chat(PORT), headers={"x-deadline-ms": "200"}
        )
        assert response.status_code == 504
        kept = await record(tmp_path)
    assert (kept["status"], kept["error"]) == ("failed", "deadline_exceeded")


@pytest.mark.parametrize("stream", [False, True])
async def test_a_question_whose_caller_left_is_on_record(
    serve: Serve, tmp_path: Path, stream: bool
) -> None:
    asked = asyncio.Event()

    async def slow(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return
        asked.set()
        while (await receive())["type"] != "http.disconnect":
            pass

    async with (
        serving(slow) as model,
        serve(Desk(), data_dir=tmp_path, reasoning_url=model, reasoning_model="m") as client,
    ):
        body = chat(WHEN, model="reasoning", stream=stream)
        leaving = asyncio.create_task(client.post("/v1/chat/completions", json=body))
        await asyncio.wait_for(asked.wait(), 10)
        leaving.cancel()
        kept = await record(tmp_path)
    assert kept["status"] == "abandoned"
    assert len(kept["passages"]) == 3
    assert kept["decision"]["tier"] == "reasoning"


async def test_a_key_is_on_record_by_its_holders_name(serve: Serve, tmp_path: Path) -> None:
    keys = keys_file(tmp_path, READER)
    async with serve(Desk(), data_dir=tmp_path, keys_file=keys) as client:
        client.headers.update(bearer("ann"))
        await ask(client, PORT)
    assert (await record(tmp_path))["principal"] == "ann"
    assert b"ann-key" not in (tmp_path / DATABASE).read_bytes()


@pytest.mark.parametrize(
    ("form", "expected"),
    [
        ("redacted", f"{PORT} Tell [email]."),
        ("full", f"{PORT} Tell joe@example.org."),
    ],
)
async def test_texts_are_kept_as_the_setting_says(
    serve: Serve, tmp_path: Path, form: str, expected: str
) -> None:
    question = f"{PORT} Tell joe@example.org."
    async with serve(Desk(), data_dir=tmp_path, audit_text=form) as client:
        answer = await ask(client, question)
    kept = await record(tmp_path)
    assert kept["question"] == {"sha256": sha256(question), "text": expected}
    assert kept["answer"]["text"] == answer["choices"][0]["message"]["content"]


# --- escalations -------------------------------------------------------------------------------


async def test_a_draft_that_was_not_shown_is_counted_and_on_record(
    serve: Serve, tmp_path: Path
) -> None:
    async with (
        serving(ModelServer(LIE)) as model,
        serve(Desk(), data_dir=tmp_path, reasoning_url=model, reasoning_model="m") as client,
    ):
        await ask(client, WHEN, model="reasoning")
        await ask(client, PORT)
        [week] = (await client.get("/v1/escalations")).json()["weeks"]
        bad = await client.get("/v1/escalations?weeks=0")
    assert week["total"] == 1
    assert week["reasons"] == {"validator_failed": 1}
    assert bad.status_code == 400
    [kept, _] = records(tmp_path)
    assert kept["verification"]["passed"] is False
    assert all(set(one) == {"check"} for one in kept["verification"]["failures"])
    assert LIE.partition(" [")[0] not in json.dumps(kept)  # neither is the draft's text
    [hop] = kept["hops"]
    assert (hop["reason"], hop["tier_from"]) == ("validator_failed", "reasoning")
    assert hop["checks"] == list(
        dict.fromkeys(one["check"] for one in kept["verification"]["failures"])
    )
    with closing(sqlite3.connect(tmp_path / DATABASE)) as connection:
        row = connection.execute("SELECT question, checks, audit FROM escalations").fetchone()
    assert row == (sha256(WHEN), ",".join(hop["checks"]), 1)


async def test_a_writer_that_is_down_is_counted(serve: Serve, tmp_path: Path) -> None:
    async with serve(Desk(), data_dir=tmp_path, reasoning_url=nowhere()) as client:
        await ask(client, WHEN, model="reasoning")
        [week] = (await client.get("/v1/escalations")).json()["weeks"]
    assert week["reasons"] == {"tier_unavailable": 1}


async def test_only_an_admin_sees_escalations_and_the_head(serve: Serve, tmp_path: Path) -> None:
    keys = keys_file(tmp_path, ADMIN, READER)
    async with serve(Desk(), data_dir=tmp_path, keys_file=keys) as client:
        for path in ("/v1/escalations", "/v1/audit/head"):
            refused = await client.get(path, headers=bearer("ann"))
            assert (refused.status_code, refused.json()["error"]["code"]) == (
                403,
                "forbidden_admin",
            )
            seen = await client.get(path, headers=bearer("root"))
            assert seen.status_code == 200
    assert seen.json() == {"seq": 0, "hash": "0" * 64}


# --- no record, no answer ----------------------------------------------------------------------


async def refused(client: httpx.AsyncClient, *, stream: bool) -> dict[str, Any]:
    """The error that a question gets, whole or in the midst of a stream."""
    response = await client.post("/v1/chat/completions", json=chat(PORT, stream=stream))
    assert "listens on" not in response.text
    if not stream:
        assert response.status_code == 503
        return dict(response.json()["error"])
    return dict(events(response.text)[-1]["error"])


@pytest.mark.parametrize("stream", [False, True])
async def test_an_answer_that_can_not_be_put_on_record_is_not_given(
    serve: Serve, tmp_path: Path, stream: bool
) -> None:
    async with serve(Desk(), data_dir=tmp_path) as client:
        await ask(client, PORT)
        (tmp_path / DATABASE).rename(tmp_path / "away.db")
        error = await refused(client, stream=stream)
        assert error["code"] == "audit_unavailable"
        assert (await client.get("/ready")).status_code == 503
        (tmp_path / "away.db").rename(tmp_path / DATABASE)
        await ask(client, PORT)
        assert (await client.get("/ready")).status_code == 200
    assert len(records(tmp_path)) == 2


async def test_switched_off_there_is_no_trail_and_answers_are_given(
    serve: Serve, tmp_path: Path
) -> None:
    async with serve(Desk(), data_dir=tmp_path, audit="off") as client:
        await ask(client, PORT)
        assert records(tmp_path) == []
        (tmp_path / DATABASE).unlink()
        await ask(client, WHEN)
        assert (await client.get("/ready")).status_code == 200
