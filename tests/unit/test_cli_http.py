"""The command line's HTTP client, against servers that really answer what they should not."""

import http.server
import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytest
import typer

from shared.cli import main
from shared.cli.failures import CliError, RefusedError, UnreachableError
from shared.cli.http import Api, corpus_path
from shared.settings import Settings
from tests.suite import free_port

Serve = Callable[..., str]


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Starts a server that gives one answer to everything; gives its base URL."""
    servers: list[http.server.HTTPServer] = []

    def start(status: int, body: bytes, headers: Mapping[str, str] | None = None) -> str:
        class Answer(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                for name, value in (headers or {}).items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(body)

            do_GET = do_POST  # noqa: N815 - the names are the library's

            def log_message(self, *_: object) -> None:
                """Say nothing."""

        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answer)
        servers.append(server)
        looks = (0.01,)  # seconds between two; its end waits for one
        threading.Thread(target=server.serve_forever, args=looks, daemon=True).start()
        return f"http://127.0.0.1:{server.server_address[1]}"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def test_an_error_keeps_the_servers_own_words(serve: Serve) -> None:
    body = b'{"error": {"message": "no corpus x", "type": "t", "param": "name", "code": "c"}}'
    with Api("retrieve", Settings(), serve(404, body)) as api, pytest.raises(RefusedError) as told:
        api.get("/corpora/x")
    assert str(told.value) == "no corpus x"
    assert (told.value.status, told.value.code, told.value.param) == (404, "c", "name")


def test_nobody_at_the_address_is_told_with_the_way_out() -> None:
    url = f"http://127.0.0.1:{free_port()}"
    with Api("retrieve", Settings(), url) as api, pytest.raises(UnreachableError) as told:
        api.get("/corpora")
    assert str(told.value) == (
        f"retrieve at {url} does not answer: start the suite with `refdesk up`"
    )


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (200, b"<html>hello</html>"),
        (404, b"<html>nothing here</html>"),
        (301, b"{}"),
        (500, b""),
        # Another service of the suite.
        (404, b'{"error": {"message": "nothing at this path", "code": "unknown_path"}}'),
    ],
)
def test_something_else_at_the_address_is_called_by_its_name(
    serve: Serve, status: int, body: bytes
) -> None:
    with (
        Api("generate", Settings(), serve(status, body)) as api,
        pytest.raises(CliError, match="is not refdesk's generate"),
    ):
        api.post("/v1/chat/completions", {})


@pytest.mark.parametrize(
    "url", ["nonsense", "ftp://host", "http://", "http://a:b:c", "http://\0", "http://a..b"]
)
def test_an_address_that_is_none_is_an_expected_failure(url: str) -> None:
    with Api("retrieve", Settings(), url) as api, pytest.raises(CliError):
        api.get("/corpora")


@pytest.mark.parametrize("body", [b"[]", b"null", b"7", b'{"status": "ok"}'])
def test_an_answer_without_what_the_command_needs_is_of_something_else(
    serve: Serve, body: bytes
) -> None:
    with (
        Api("retrieve", Settings(), serve(200, body)) as api,
        pytest.raises(CliError, match="is not refdesk's retrieve"),
    ):
        api.get("/corpora", "corpora")


def test_an_answer_that_can_not_be_unpacked_is_an_expected_failure(serve: Serve) -> None:
    url = serve(200, b"not gzip", {"Content-Encoding": "gzip"})
    with Api("retrieve", Settings(), url) as api, pytest.raises(CliError, match="DecodingError"):
        api.get("/corpora")


def test_arguments_that_are_no_text_are_an_expected_failure() -> None:
    with Api("retrieve", Settings()) as api, pytest.raises(CliError, match="UTF-8"):
        api.post("/retrieve", {"query": "\udcff"})
    with pytest.raises(CliError, match="UTF-8"):
        corpus_path("\udcff")


@pytest.mark.parametrize(
    ("body", "field"),
    [({"min_score": float("nan")}, "min_score"), ({"a": {"b": [1, float("inf")]}}, "a.b.1")],
)
def test_a_number_that_json_can_not_hold_is_refused_by_name(body: Any, field: str) -> None:
    with (
        Api("retrieve", Settings()) as api,
        pytest.raises(CliError, match=f"^{field}: is no finite number"),
    ):
        api.post("/retrieve", body)


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("--filter", "{"),
        ("--filter", "[]"),
        ("--filter", '{"type": "eq", "key": "a", "value": NaN}'),
        ("--filter", "\udcff"),
        ("--neighbors", "all"),
        ("--neighbors", "-1"),
        ("--neighbors", "9" * 5000),
        ("--min-score", "high"),
        ("--max-tokens", "1.5"),
    ],
)
def test_an_option_that_can_not_be_read_is_wrong_usage(option: str, value: str) -> None:
    command = ["retrieve", "x", "--corpus", "a", option, value]
    with pytest.raises(typer.BadParameter) as told:
        main.app(command, standalone_mode=False)
    assert f"'{option}'" in told.value.format_message()


def test_a_connection_that_breaks_off_is_an_expected_failure() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def hang_up() -> None:
            connection, _ = listener.accept()
            connection.recv(100)
            connection.close()

        threading.Thread(target=hang_up, daemon=True).start()
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        with (
            Api("retrieve", Settings(), url) as api,
            pytest.raises(CliError, match="broke off the connection"),
        ):
            api.get("/corpora")


def test_a_stream_gives_its_events_until_done(serve: Serve) -> None:
    url = serve(200, b'data: {"a": 1}\n\n: comment\n\ndata: {"a": 2}\n\ndata: [DONE]\n\n')
    with Api("generate", Settings(), url) as api:
        assert list(api.stream("/v1/chat/completions", {}, "a")) == [{"a": 1}, {"a": 2}]


@pytest.mark.parametrize(
    ("status", "body", "told"),
    [
        (200, b'data: {"a": 1}\n\n', "broke off its answer"),
        (200, b'data: {"error": {"message": "it went wrong"}}\n\n', "it went wrong"),
        (503, b'{"error": {"message": "no desk"}}', "no desk"),
        (200, b"data: rubbish\n\n", "is not refdesk's"),
        (200, b"data: []\n\n", "is not refdesk's"),
        (200, b'data: {"b": 1}\n\n', "is not refdesk's"),
    ],
    ids=["cut short", "error event", "refused", "rubbish", "no object", "no field"],
)
def test_a_stream_that_goes_wrong_is_an_expected_failure(
    serve: Serve, status: int, body: bytes, told: str
) -> None:
    with (
        Api("generate", Settings(), serve(status, body)) as api,
        pytest.raises(CliError, match=told),
    ):
        list(api.stream("/v1/chat/completions", {}, "a"))
