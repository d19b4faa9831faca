"""Rubbish, at the level of HTTP and of JSON, to embed and rerank in the forms of each API.

What is wrong with a single field is in the tests of each service.
"""

import asyncio
import gzip
import json
import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import httpx
import pytest
from starlette.types import Receive, Scope, Send

from shared import http_protocol
from shared.http_protocol import MAX_HEAD_BYTES
from shared.settings import ServiceName, Settings
from tests.suite import ServiceProcess, Suite, serving

LIMIT: int = Settings.model_fields["max_body_bytes"].default
TEI = {"error", "error_type"}


@dataclass(frozen=True)
class Target:
    """A route, a good body for it, and whether its errors have TEI's shape before one is read."""

    service: ServiceName
    path: str
    text_field: str
    more: str = ""
    is_tei: bool = False

    def body(self, texts: str = '["a cat"]') -> bytes:
        """The body around a JSON value that stands for the texts."""
        return b'{%s"%s": %s}' % (self.more.encode(), self.text_field.encode(), texts.encode())


TARGETS = [
    Target("embed", "/v1/embeddings", "input"),
    Target("embed", "/embed", "inputs", is_tei=True),
    Target("rerank", "/v2/rerank", "documents", '"query": "a cat", '),
    Target("rerank", "/rerank", "texts", '"query": "a cat", '),
]
JSON = {"content-type": "application/json"}
Post = Callable[..., httpx.Response]


@pytest.fixture(params=TARGETS, ids=lambda target: f"{target.service}{target.path}")
def target(request: pytest.FixtureRequest) -> Target:
    found: Target = request.param
    return found


@pytest.fixture(scope="module")
def client() -> Iterator[httpx.Client]:
    with httpx.Client(timeout=60) as client:
        yield client


@pytest.fixture
def service(client: httpx.Client, suite: Suite, target: Target) -> Iterator[ServiceProcess]:
    """The service of the target, which has to be as well after the test as before it."""
    suite.url(target.service)
    process = suite.services[target.service]
    yield process
    answer = client.post(process.url + target.path, content=target.body(), headers=JSON)
    assert answer.status_code == 200, answer.text
    assert "unexpected_error" not in process.log.read_text()


@pytest.fixture
def post(client: httpx.Client, service: ServiceProcess, target: Target) -> Post:
    """Post a body to the target, as JSON unless the headers are given."""

    def post(body: bytes, headers: Any = JSON) -> httpx.Response:
        return client.post(service.url + target.path, content=body, headers=headers)

    return post


def message_of(target: Target, answer: httpx.Response) -> str:
    """The message of an error, which has the shape that the target's clients know."""
    error = answer.json()
    if target.is_tei:
        assert set(error) == TEI
        return str(error["error"])
    assert set(error) == {"error"}
    assert set(error["error"]) == {"message", "type", "param", "code"}
    return str(error["error"]["message"])


def connect(service: ServiceProcess) -> socket.socket:
    url = httpx.URL(service.url)
    return socket.create_connection((url.host, url.port or 80), timeout=30)


def head(target: Target, *lines: str) -> bytes:
    first = (f"POST {target.path} HTTP/1.1", "Host: localhost", "Content-Type: application/json")
    return "\r\n".join((*first, *lines, "", "")).encode()


def read_answer(connection: socket.socket) -> tuple[int, bytes]:
    """The status and the body of one answer."""
    with connection.makefile("rb") as stream:
        status = int(stream.readline().split()[1])
        length = 0
        while (line := stream.readline().strip()) != b"":
            if line.lower().startswith(b"content-length:"):
                length = int(line.split(b":")[1])
        return status, stream.read(length)


@pytest.mark.parametrize(
    "line",
    [f"Content-Length: {LIMIT + 1}", f"Content-Length: {LIMIT * 10}\r\nExpect: 100-continue"],
)
def test_a_body_over_the_limit_is_refused_before_any_of_it_is_read(
    service: ServiceProcess, target: Target, line: str
) -> None:
    with connect(service) as connection:
        connection.sendall(head(target, line))
        status, body = read_answer(connection)
    assert status == 413
    assert str(LIMIT) in message_of(target, httpx.Response(status, content=body))


def test_a_body_of_unknown_length_is_refused_once_it_is_over_the_limit(
    service: ServiceProcess, target: Target
) -> None:
    with connect(service) as connection:
        connection.sendall(head(target, "Transfer-Encoding: chunked"))
        part = b"%x\r\n%s\r\n" % (LIMIT // 4, b" " * (LIMIT // 4))
        connection.sendall(part * 4 + b"1\r\n \r\n")  # and no end
        status, body = read_answer(connection)
    assert status == 413
    assert str(LIMIT) in message_of(target, httpx.Response(status, content=body))


def test_a_body_that_does_not_come_to_its_end_is_waited_for_until_the_deadline(
    service: ServiceProcess, target: Target
) -> None:
    with connect(service) as connection:
        connection.sendall(head(target, "Content-Length: 500", "x-deadline-ms: 300") + b'{"a')
        status, body = read_answer(connection)
    assert status == 504
    message_of(target, httpx.Response(status, content=body))


def test_a_caller_who_leaves_within_the_body_leaves_nothing_behind(
    service: ServiceProcess, target: Target
) -> None:
    for _ in range(5):
        with connect(service) as connection:
            connection.sendall(head(target, "Content-Length: 500") + b'{"a')
    # The fixture `service` looks whether all is well.


def test_a_caller_who_leaves_during_the_inference_gives_up_the_queue(
    client: httpx.Client, service: ServiceProcess, target: Target
) -> None:
    def waiting() -> float:
        metrics = client.get(f"{service.url}/metrics").text
        lines = metrics.splitlines()
        return sum(
            float(line.rsplit(" ", 1)[1])
            for line in lines
            if line.startswith("refdesk_batch_queued_items{")
        )

    # Minutes of work.
    texts = json.dumps([f"{target.path} {place} " + "word " * 200 for place in range(1500)])
    body = target.body(texts)
    with connect(service) as connection:
        connection.sendall(head(target, f"Content-Length: {len(body)}") + body)
        give_up = time.monotonic() + 60
        while waiting() == 0:
            assert time.monotonic() < give_up
            time.sleep(0.05)
    give_up = time.monotonic() + 60
    while waiting() > 0:
        assert time.monotonic() < give_up
        time.sleep(0.05)
    assert 'status="499"' in client.get(f"{service.url}/metrics").text


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "br", "rubbish"])
def test_a_compressed_body_is_refused_as_such(post: Post, target: Target, encoding: str) -> None:
    headers = {**JSON, "content-encoding": encoding}
    answer = post(gzip.compress(target.body()), headers)
    assert answer.status_code == 415
    assert "Content-Encoding" in message_of(target, answer)


@pytest.mark.parametrize(
    "kind", [None, "text/plain", "application/x-www-form-urlencoded", "multipart/form-data", ";;;"]
)
def test_another_content_type_is_told_what_to_send(
    post: Post, target: Target, kind: str | None
) -> None:
    headers = {"content-type": kind} if kind else {}
    answer = post(target.body(), headers)
    assert answer.status_code in (400, 422)
    assert "Content-Type: application/json" in message_of(target, answer)


@pytest.mark.parametrize(
    "body",
    [
        b"[" * 100_000,
        b'{"a":' * 100_000 + b"1" + b"}" * 100_000,
        b'{"a": ' + b"9" * 100_000 + b"}",
        b'{"a": 1e400}',
        b'{"a": "\\udc00\\ud800"}',
        b'{"a": "\xed\xa0\x80"}',
        b'{"a": 1} {"a": 1}',
        b"\xef\xbb\xbf{}",
        '{"a": 1}'.encode("utf-16"),
        b"\x00",
        b" ",
    ],
    ids=lambda body: ascii(body[:16]),
)
def test_what_is_not_json_is_refused_as_such(post: Post, target: Target, body: bytes) -> None:
    answer = post(body)
    assert answer.status_code == 400
    assert "the body is not JSON in UTF-8" in message_of(target, answer)


def test_of_a_field_that_comes_twice_the_last_one_counts(post: Post, target: Target) -> None:
    twice = target.body(f'[], "{target.text_field}": ["a cat"]')
    answer = post(twice)
    assert answer.status_code == 200


@pytest.mark.parametrize(
    "texts",
    [
        "[" + '"x",' * 100_000 + '"x"]',
        "[" + "[" * 900 + "]" * 900 + "]",
        '["' + "x" * 1_000_001 + '"]',
        "[true]",
        "[1e308]",
        '{"0": "x"}',
        "null",
        "[null]",
    ],
    ids=lambda texts: texts[:16],
)
def test_texts_that_make_no_sense_are_refused(post: Post, target: Target, texts: str) -> None:
    answer = post(target.body(texts))
    assert answer.status_code in (400, 413, 422)
    tei = target.is_tei or (target.text_field == "texts" and texts != "null")
    message = message_of(Target("embed", "", "", is_tei=tei), answer)
    assert len(message) < 500


@pytest.mark.parametrize("texts", ['["%s"]' % ("x " * 500_000), '[" "]', '["\\u0000\\u001b"]'])
def test_a_text_of_a_megabyte_or_of_nothing_to_read_is_answered(
    post: Post, target: Target, texts: str
) -> None:
    body = target.body(texts).replace(b"{", b'{"truncate": true, ')
    answer = post(body)
    assert answer.status_code == 200


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" * 9, 400),  # TLS
        (b"FOO / HTTP/1.1\r\nHost: localhost\r\n\r\n", 400),
        (b"CONNECT elsewhere:443 HTTP/1.1\r\nHost: localhost\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: -5\r\n\r\n", 400),
        (
            b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
            400,
        ),
        (
            b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\n"
            b"Transfer-Encoding: chunked\r\n\r\n",
            400,
        ),
        (b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nX-Long: " + b"a" * (MAX_HEAD_BYTES + 1_000_000), 431),
    ],
    ids=lambda value: ascii(value[:24]) if isinstance(value, bytes) else str(value),
)
def test_what_is_not_http_is_refused_in_the_one_shape(
    suite: Suite, sent: bytes, status: int
) -> None:
    suite.url("embed")
    with connect(suite.services["embed"]) as connection:
        try:
            connection.sendall(sent)
        except ConnectionError:
            assert status == 431  # closed before all of it was sent
        try:
            found, body = read_answer(connection)
        except ConnectionResetError:
            assert status == 431
        else:
            assert found == status
            message_of(TARGETS[0], httpx.Response(found, content=body))


@pytest.mark.parametrize("together", [True, False])
def test_an_offer_of_another_protocol_is_passed_over_with_the_body_kept(
    service: ServiceProcess, target: Target, together: bool
) -> None:
    body = target.body()
    lines = ("Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAMAAABk")
    first = head(target, *lines, f"Content-Length: {len(body)}")
    with connect(service) as connection:
        for _ in range(2):  # and the connection is kept
            if together:
                connection.sendall(first + body)
            else:
                connection.sendall(first[:40])
                time.sleep(0.02)
                connection.sendall(first[40:] + body[:5])
                time.sleep(0.02)
                connection.sendall(body[5:])
            status, answer = read_answer(connection)
            assert status == 200
            assert json.loads(answer)


def test_head_is_get_without_the_body_and_options_lists_nothing(
    service: ServiceProcess, target: Target
) -> None:
    with httpx.Client(base_url=service.url, timeout=60) as client:
        for path in ("/health", "/ready", "/info"):
            answer = client.head(path)
            assert (answer.status_code, answer.content) == (200, b"")
        for method in ("OPTIONS", "PUT", "TRACE"):
            refused = client.request(method, target.path)
            assert (refused.status_code, refused.headers["allow"]) == (405, "POST")
            message_of(target, refused)
        assert client.get(target.path.replace("e", "%65")).status_code == 405
        unknown = client.post(f"{target.path}/", content=target.body(), headers=JSON)
        assert unknown.status_code == 404
        assert client.get("/%ff%00%zz").status_code == 404


@pytest.mark.parametrize("value", [b"1e400", b"0x10", b"\xff", b"", b"9" * 400, b"NaN", b"1.5.2"])
def test_a_deadline_of_rubbish_is_refused(post: Post, target: Target, value: bytes) -> None:
    headers: Any = [(b"content-type", b"application/json"), (b"x-deadline-ms", value)]
    answer = post(target.body(), headers)
    assert answer.status_code == 400
    assert "x-deadline-ms" in message_of(target, answer)


async def test_a_head_that_does_not_come_to_its_end_is_not_waited_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # The limit alone is another, so that it is soon over.
    monkeypatch.setattr(http_protocol, "HEAD_SECONDS", 0.1)

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        raise AssertionError("nothing was asked")

    async with serving(app) as url:
        where = httpx.URL(url)
        reader, writer = await asyncio.open_connection(where.host, where.port)
        for byte in b"GET":
            writer.write(bytes([byte]))
            await asyncio.sleep(0.01)
        answer = await reader.read()
        writer.close()
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert json.loads(answer.split(b"\r\n\r\n")[1])["error"]["code"] == "head_too_slow"
