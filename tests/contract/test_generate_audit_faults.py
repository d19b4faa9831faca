"""The audit trail where something goes wrong: nothing is missing in it, and nobody waits for it."""

import json
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from services.generate.app import build
from services.generate.trust import case
from services.generate.trust.redact import masked_excerpt
from shared.settings import Settings
from tests.desk import Desk
from tests.guarded import bearer, keys_file
from tests.suite import serving
from tests.writers import DATABASE, PORT, Serve, ask, chat, nowhere, record


@pytest.mark.parametrize("stream", [False, True])
async def test_an_error_does_not_wait_for_a_database_that_is_locked(
    serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stream: bool
) -> None:
    monkeypatch.setattr(case, "_PATIENCE_S", 0.1)
    async with serve(Desk(trouble="404"), data_dir=tmp_path) as client:
        with closing(sqlite3.connect(tmp_path / DATABASE)) as other:
            other.execute("BEGIN IMMEDIATE")
            response = await client.post("/v1/chat/completions", json=chat(PORT, stream=stream))
            assert response.json()["error"]["code"] == "unknown_corpus"
            other.rollback()
        kept = await record(tmp_path)
    assert (kept["status"], kept["error"]) == ("failed", "unknown_corpus")


@pytest.mark.parametrize(
    ("more", "status", "code"),
    [
        ({"refdesk": {"corpora": ["attic"]}}, 404, "corpus_not_found"),
        ({"model": "nobody"}, 404, "model_not_found"),
        ({"refdesk": {"tiers": ["nobody"]}}, 400, "invalid_request"),
    ],
)
async def test_what_is_refused_before_anything_is_searched_is_on_record(
    serve: Serve, tmp_path: Path, more: dict[str, Any], status: int, code: str
) -> None:
    keys = keys_file(tmp_path, {"name": "ann", "corpora": ["handbook"]})
    desk = Desk()
    async with serve(desk, data_dir=tmp_path, keys_file=keys) as client:
        client.headers.update(bearer("ann"))
        response = await client.post("/v1/chat/completions", json=chat(PORT, **more))
        assert (response.status_code, response.json()["error"]["code"]) == (status, code)
        kept = await record(tmp_path)
    assert (kept["principal"], kept["status"], kept["error"]) == ("ann", "failed", code)
    assert desk.seen == []


async def test_a_stream_whose_caller_leaves_before_its_first_event_is_on_record(
    models_dir: Path, tmp_path: Path
) -> None:
    body = json.dumps(chat(PORT, stream=True)).encode()
    scope = {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.4"},
        "http_version": "1.1",
        "method": "POST",
        "path": "/v1/chat/completions",
        "raw_path": b"/v1/chat/completions",
        "query_string": b"",
        "headers": [(b"content-type", b"application/json"), (b"host", b"localhost")],
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 2),
        "scheme": "http",
    }

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": body, "more_body": False}

    async def gone(_: Any) -> None:
        raise OSError("the connection is closed")

    async with serving(Desk()) as desk:
        settings = Settings(
            models_dir=models_dir,
            data_dir=tmp_path,
            retrieve_url=desk,
            embed_url=nowhere(),
            reasoning_url=nowhere(),
            reasoning_model="m",
        )
        app = await build(settings)
        async with app.router.lifespan_context(app):
            with pytest.raises(Exception):  # noqa: B017, PT011 - the server's own, of a lost client
                await app(scope, receive, gone)
            kept = await record(tmp_path)
    assert kept["status"] == "abandoned"
    assert kept["decision"]["tier"] == "utility"


async def test_who_gets_no_answer_is_not_told_where_the_database_is(
    serve: Serve, tmp_path: Path
) -> None:
    async with serve(Desk(), data_dir=tmp_path) as client:
        (tmp_path / DATABASE).rename(tmp_path / "away.db")
        response = await client.post("/v1/chat/completions", json=chat(PORT))
        (tmp_path / "away.db").rename(tmp_path / DATABASE)
    assert response.json()["error"]["code"] == "audit_unavailable"
    assert "its database does not answer" in response.text
    assert tmp_path.name not in response.text
    assert DATABASE not in response.text


async def test_what_the_search_had_to_do_without_is_on_record(serve: Serve, tmp_path: Path) -> None:
    async with serve(Desk(), data_dir=tmp_path) as client:
        answer = await ask(client, PORT)
    kept = await record(tmp_path)
    assert answer["refdesk"]["degraded"] == kept["degraded"] == ["similarity"]
    assert kept["ruled_out"] == []


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("“write to joe@exam…”", "“write to …”"),
        ("“call +49 170 123 4…”", "“call …”"),
        ("“paid with 4111 1111 1…” and so", "“paid with …” and so"),
        ("“joe@example.org wrote to an…”", "“[email] wrote to …”"),
        ("“nothing is cut here”", "“nothing is cut here”"),
        ("first… then 12 34…", "… then …"),
        # Words with digits and no cut: to look for one from each of them would take hours.
        ("in " + "1998 " * 5000 + "it", "in " + "1998 " * 5000 + "it"),
    ],
)
def test_what_was_torn_by_a_cut_does_not_show(text: str, left: str) -> None:
    assert masked_excerpt(text) == left
