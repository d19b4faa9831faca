"""What every service gives: health, readiness, limits, keys, ids, deadlines, the error shape."""

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from pydantic import BaseModel, ConfigDict, Field, field_validator

from shared.auth import hash_key
from shared.context import current
from shared.errors import ApiError, StartupError
from shared.service import create_service
from shared.settings import Settings
from tests.suite import free_port, serving


class Question(BaseModel):
    model_config = ConfigDict(extra="forbid")
    text: str = Field(min_length=1)
    k: int = Field(5, ge=1, le=10)


class Order(BaseModel):
    colour: str

    @field_validator("colour")
    @classmethod
    def _is_in_stock(cls, value: str) -> str:
        raise ValueError(f"there is no colour '{value}'")


def make_app(**settings: Any) -> FastAPI:
    async def probe() -> dict[str, Any]:
        if settings.get("drain_s") == 1:  # one of the tests wants a service that can't work
            raise ApiError(500, "no_model", "the model is not there")
        return {"answer": 42}

    app = create_service("embed", Settings(**settings), probe=probe)

    @app.post("/ask")
    @app.post("/v1/ask")
    async def ask(question: Question) -> dict[str, Any]:
        return {"k": question.k, "principal": current().principal.name}

    @app.post("/order")
    async def order(_: Order) -> None:
        """Refuses all of them."""

    @app.post("/slow")
    async def slow() -> dict[str, str]:
        await asyncio.sleep(30)
        return {}

    @app.get("/broken")
    async def broken() -> None:
        raise RuntimeError("secret detail")

    return app


@pytest.fixture
async def client() -> AsyncIterator[httpx.AsyncClient]:
    async with (
        serving(make_app(max_body_bytes=2000)) as url,
        httpx.AsyncClient(base_url=url, timeout=10) as client,
    ):
        yield client


def error_of(response: httpx.Response) -> dict[str, Any]:
    error: dict[str, Any] = response.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    return error


async def test_health_ready_and_metrics_answer(client: httpx.AsyncClient) -> None:
    assert (await client.get("/health")).json()["status"] == "alive"
    assert (await client.get("/ready")).json()["answer"] == 42
    await client.post("/ask", json={"text": "x"})
    metrics = (await client.get("/metrics")).text
    assert 'refdesk_http_requests_total{method="POST",route="/ask"' in metrics


async def test_a_service_that_cannot_work_is_not_ready() -> None:
    async with serving(make_app(drain_s=1)) as url, httpx.AsyncClient(base_url=url) as client:
        response = await client.get("/ready")
        assert response.status_code == 503
        assert error_of(response)["code"] == "no_model"
        assert (await client.get("/health")).status_code == 200


async def test_a_request_id_is_kept_or_made(client: httpx.AsyncClient) -> None:
    given = await client.get("/health", headers={"x-request-id": "abc-1"})
    assert given.headers["x-request-id"] == "abc-1"
    made = await client.get("/health", headers={"x-request-id": "x" * 500})
    assert len(made.headers["x-request-id"]) == 32


async def test_a_passed_deadline_is_a_504(client: httpx.AsyncClient) -> None:
    response = await client.post("/slow", headers={"x-deadline-ms": "50"})
    assert response.status_code == 504
    assert error_of(response)["code"] == "deadline_exceeded"


@pytest.mark.parametrize("value", ["soon", "nan", "-1", "inf"])
async def test_a_deadline_that_is_no_number_is_refused(
    client: httpx.AsyncClient, value: str
) -> None:
    response = await client.post("/ask", json={"text": "x"}, headers={"x-deadline-ms": value})
    assert (response.status_code, error_of(response)["code"]) == (400, "bad_deadline")


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (b"{", 400, "invalid_json"),
        (b'{"text": "\xff"}', 400, "invalid_json"),
        (b'{"text": "\\ud800"}', 400, "invalid_json"),
        (b'{"text": "x", "k": NaN}', 400, "invalid_json"),
        (b"[" * 1500 + b"]" * 400, 400, "invalid_json"),
        (b'{"text": ""}', 422, "invalid_request"),
        (b'{"text": "x", "k": 1000000000}', 422, "invalid_request"),
        (b'{"text": "x", "what": 1}', 422, "invalid_request"),
        (b"", 422, "invalid_request"),
        (b"[]", 422, "invalid_request"),
        (b'{"text": "%s"}' % (b"x" * 3000), 413, "body_too_large"),
    ],
)
async def test_a_bad_body_is_told_what_is_wrong(
    client: httpx.AsyncClient, body: bytes, status: int, code: str
) -> None:
    response = await client.post("/ask", content=body, headers={"content-type": "application/json"})
    assert (response.status_code, error_of(response)["code"]) == (status, code)


async def test_a_bad_field_is_named(client: httpx.AsyncClient) -> None:
    response = await client.post("/ask", json={"text": "x", "k": 0})
    assert error_of(response)["param"] == "k"


async def test_what_a_caller_wrote_is_cut_where_an_error_repeats_it() -> None:
    long = "x" * 1_000_000
    async with serving(make_app()) as url, httpx.AsyncClient(base_url=url) as client:
        unknown = error_of(await client.post("/ask", json={"text": "x", long: 1}))
        refused = error_of(await client.post("/order", json={"colour": long}))
    assert unknown["param"] == "x" * 63 + "…"
    assert unknown["message"] == unknown["param"] + ": Extra inputs are not permitted"
    assert refused["param"] == "colour"
    assert refused["message"].startswith("colour: there is no colour 'xxx")
    assert len(refused["message"]) < 600


async def test_openai_paths_answer_400_to_a_bad_body(client: httpx.AsyncClient) -> None:
    response = await client.post("/v1/ask", json={"text": "x", "k": 0})
    assert response.status_code == 400


async def test_a_streamed_body_over_the_limit_is_refused_as_well(client: httpx.AsyncClient) -> None:
    async def parts() -> AsyncIterator[bytes]:
        for _ in range(5):
            yield b"x" * 1000

    response = await client.post(
        "/ask", content=parts(), headers={"content-type": "application/json"}
    )
    assert (response.status_code, error_of(response)["code"]) == (413, "body_too_large")


async def test_unknown_paths_and_methods_have_the_one_shape(client: httpx.AsyncClient) -> None:
    assert error_of(await client.get("/nothing"))["code"] == "unknown_path"
    assert error_of(await client.get("/ask"))["code"] == "wrong_method"


async def test_a_defect_is_a_500_that_shows_nothing(client: httpx.AsyncClient) -> None:
    response = await client.get("/broken")
    assert response.status_code == 500
    assert "secret" not in response.text


async def test_without_keys_a_foreign_host_name_is_refused(client: httpx.AsyncClient) -> None:
    response = await client.post("/ask", json={"text": "x"}, headers={"host": "evil.example"})
    assert (response.status_code, error_of(response)["code"]) == (403, "forbidden_host")


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.2:80", "localhost:80", "[::1]", "[::1]:80"])
async def test_without_keys_every_loopback_address_is_answered(
    client: httpx.AsyncClient, host: str
) -> None:
    response = await client.post("/ask", json={"text": "x"}, headers={"host": host})
    assert response.status_code == 200


@pytest.mark.parametrize("headers", [{}, {"content-type": "text/plain"}])
async def test_a_body_that_a_foreign_web_page_could_send_unasked_is_refused(
    client: httpx.AsyncClient, headers: dict[str, str]
) -> None:
    response = await client.post("/ask", content=b'{"text": "x"}', headers=headers)
    assert (response.status_code, error_of(response)["code"]) == (422, "invalid_request")


async def test_keys_are_required_once_there_are_some(tmp_path: Path) -> None:
    keys = tmp_path / "keys.json"
    entries = [
        {"name": "desk", "sha256": hash_key("good")},
        {"name": "other", "sha256": hash_key("narrow"), "services": ["rerank"]},
    ]
    keys.write_text(json.dumps({"keys": entries}))
    async with (
        serving(make_app(keys_file=keys)) as url,
        httpx.AsyncClient(base_url=url) as client,
    ):

        async def ask(key: str | None) -> httpx.Response:
            headers = {"authorization": key} if key else {}
            return await client.post("/ask", json={"text": "x"}, headers=headers)

        assert (await ask(None)).status_code == 401
        assert (await ask("Bearer wrong")).status_code == 401
        assert error_of(await ask("Bearer narrow"))["code"] == "forbidden_service"
        assert (await ask("Bearer good")).json()["principal"] == "desk"
        assert (await ask("good")).status_code == 200  # some clients leave the word Bearer out
        assert (await client.get("/health")).status_code == 200


def test_a_wrong_keys_file_keeps_the_service_from_starting(tmp_path: Path) -> None:
    keys = tmp_path / "keys.json"
    keys.write_text('{"keys": [{"name": "x", "sha256": "short"}]}')
    with pytest.raises(StartupError, match=r"keys\.0\.sha256"):
        make_app(keys_file=keys)


@pytest.mark.parametrize(
    ("env", "words"),
    [
        ({"REFDESK_HOST": "0.0.0.0"}, "without API keys"),
        ({"REFDESK_EMBED_PORT": "0x"}, "REFDESK_EMBED_PORT"),
        ({"REFDESK_HOST": "127.0.0.1.1", "REFDESK_KEYS_FILE": os.devnull}, "REFDESK_HOST"),
    ],
)
def test_a_service_that_must_not_start_says_why_on_one_line(
    env: dict[str, str], words: str
) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "services.embed"],
        env={**os.environ, **env},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 78
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1
    assert words in done.stderr


async def test_a_port_in_use_is_named() -> None:
    port = free_port()
    server = await asyncio.start_server(lambda _r, _w: None, "127.0.0.1", port)
    async with server:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "services.embed",
            env={**os.environ, "REFDESK_EMBED_PORT": str(port)},
            stderr=asyncio.subprocess.PIPE,
        )
        _, stderr = await process.communicate()
    assert process.returncode == 78
    assert f"127.0.0.1:{port}" in stderr.decode()
    assert "Traceback" not in stderr.decode()


@pytest.mark.parametrize("shape", ["console", "json"])
def test_a_defect_is_logged_without_the_values_that_the_code_had_at_hand(shape: str) -> None:
    code = """
import sys
from shared.settings import Settings
from shared.telemetry import configure_logging, get_logger

def handle(authorization):
    try:
        raise ValueError("a defect")
    except ValueError:
        get_logger("test").exception("unexpected_error")

configure_logging("embed", Settings(log_format=sys.argv[1]))
handle("Bearer " + "-".join(["rd", "secret"]))
"""
    done = subprocess.run(
        [sys.executable, "-c", code, shape], capture_output=True, text=True, check=True
    )
    assert "a defect" in done.stderr
    assert "rd-secret" not in done.stderr
