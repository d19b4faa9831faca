"""The command line's one HTTP client: a service's address, the key, and errors as sentences."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Self
from urllib.parse import quote

import httpx
import orjson

from shared.cli.failures import BrokenOffError, CliError, RefusedError, UnreachableError
from shared.finite import to_json
from shared.settings import ServiceName, Settings

# What the HTTP library raises for a URL that is none; the latter for a host name that can't be.
NO_ADDRESS = (httpx.InvalidURL, UnicodeError)
_CONNECT_SECONDS = 5.0


def corpus_path(name: str) -> str:
    """The path of corpus `name` at retrieve. Raises CliError for a name that is no text."""
    try:
        return f"/corpora/{quote(name, safe='')}"
    except UnicodeEncodeError:
        raise CliError("the name of a corpus must be UTF-8") from None


def _json(body: Mapping[str, Any]) -> bytes:
    try:
        return to_json(body)
    except ValueError as error:  # an argument that is not UTF-8, or a NaN
        raise CliError(str(error)) from None


class Api:
    """A client of one service. A context manager: leaving it closes the connections.

    url: overrides where the settings say that the service is. patience_s: seconds that one call
    may take; the service is told the same as its deadline. Safe to use from several threads.
    """

    def __init__(
        self, service: ServiceName, settings: Settings, url: str = "", *, patience_s: float = 120
    ) -> None:
        self.service = service
        self.url = url.rstrip("/") or settings.url(service)
        self._patience_s = patience_s
        headers = {
            "content-type": "application/json",
            "x-deadline-ms": str(int(patience_s * 1000)),
        }
        if settings.api_key is not None:
            headers["authorization"] = f"Bearer {settings.api_key.get_secret_value()}"
        # A little longer than the deadline: the service's own 504 says more than our time-out.
        # trust_env is off because a proxy meant for the web must not see calls to our services.
        self._client = httpx.Client(
            headers=headers,
            timeout=httpx.Timeout(patience_s + 5, connect=_CONNECT_SECONDS),
            trust_env=False,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()

    def get(self, path: str, *fields: str) -> Any:
        """GET and return the parsed JSON, an object that has `fields`.

        Raises RefusedError, or another CliError.
        """
        return self._call("GET", path, None, fields)

    def post(self, path: str, body: Mapping[str, Any], *fields: str) -> Any:
        """POST JSON and return the parsed JSON, an object that has `fields`. Raises like `get`."""
        return self._call("POST", path, body, fields)

    def put(self, path: str, body: Mapping[str, Any]) -> Any:
        """PUT JSON and return the parsed JSON. Raises like `get`."""
        return self._call("PUT", path, body, ())

    def patch(self, path: str, body: Mapping[str, Any]) -> Any:
        """PATCH JSON and return the parsed JSON. Raises like `get`."""
        return self._call("PATCH", path, body, ())

    @contextmanager
    def download(self, path: str) -> Iterator[httpx.Response]:
        """GET an answer that is read as it comes. Raises like `get`, also while it is read."""
        with self._failures(), self._client.stream("GET", self.url + path) as response:
            if response.status_code >= 300:
                self._parse(response.status_code, response.read(), ())
            yield response

    def delete(self, path: str) -> None:
        """DELETE. Raises like `get`."""
        self._call("DELETE", path, None, ())

    def upload(
        self, path: str, content: Iterable[bytes], headers: Mapping[str, str], *fields: str
    ) -> Any:
        """POST a body as it is made, and return the parsed JSON, an object that has `fields`.

        headers: with the body's Content-Type. Raises like `get`, and whatever `content` raises.
        """
        with self._failures():
            response = self._client.post(self.url + path, content=content, headers=headers)
        return self._parse(response.status_code, response.content, fields)

    def stream(self, path: str, body: Mapping[str, Any], *fields: str) -> Iterator[Any]:
        """POST JSON and yield the parsed data of each server-sent event until ``[DONE]``, objects
        that have `fields`.

        Raises like `get`, also for an error event in the middle of the stream.
        """
        with (
            self._failures(),
            self._client.stream("POST", self.url + path, content=_json(body)) as response,
        ):
            if response.status_code >= 400:
                self._parse(response.status_code, response.read(), ())
            for line in response.iter_lines():
                if not line.startswith("data:"):
                    continue
                data = line.removeprefix("data:").strip()
                if data == "[DONE]":
                    return
                event = self._parse(200, data.encode(), ())
                if isinstance(event.get("error"), dict):
                    raise self._refusal(502, event)
                yield self._with(fields, event, 200)
        raise CliError(f"{self.service} at {self.url} broke off its answer; try again")

    def _call(
        self, method: str, path: str, body: Mapping[str, Any] | None, fields: Sequence[str]
    ) -> Any:
        content = None if body is None else _json(body)
        with self._failures():
            response = self._client.request(method, self.url + path, content=content)
        if response.status_code == 204 and method == "DELETE":
            return None
        return self._parse(response.status_code, response.content, fields)

    def _parse(self, status: int, content: bytes, fields: Sequence[str]) -> Any:
        try:
            data = orjson.loads(content)
        except orjson.JSONDecodeError:
            data = None
        if status >= 400 and isinstance(data, dict) and isinstance(data.get("error"), dict):
            refusal = self._refusal(status, data)
            if refusal.code != "unknown_path":  # another of our services answers that
                raise refusal
        return self._with(fields, data, status)

    def _with(self, fields: Sequence[str], data: Any, status: int) -> Any:
        """`data`, if it is an object that has `fields`: another server's answer is none of ours."""
        fits = isinstance(data, dict) and all(field in data for field in fields)
        if not fits or status >= 300:
            raise CliError(
                f"what answers at {self.url} is not refdesk's {self.service} (status {status}): "
                "check the address"
            )
        return data

    def _refusal(self, status: int, data: Mapping[str, Any]) -> RefusedError:
        told = data["error"]
        message, code = str(told.get("message")), str(told.get("code"))
        if code == "bad_key":  # its words are for who writes HTTP
            message = f"{self.service} at {self.url} wants a valid API key: set REFDESK_API_KEY"
        return RefusedError(message, status, code, told.get("param") or None)

    @contextmanager
    def _failures(self) -> Iterator[None]:
        try:
            yield
        except (*NO_ADDRESS, httpx.UnsupportedProtocol, httpx.LocalProtocolError) as error:
            raise CliError(f"{self.url} is not an address that can be called: {error}") from None
        except httpx.ConnectError:
            raise UnreachableError(
                f"{self.service} at {self.url} does not answer: start the suite with `refdesk up`"
            ) from None
        except httpx.ConnectTimeout:
            raise UnreachableError(
                f"{self.service} at {self.url} does not answer within {_CONNECT_SECONDS:.0f} s"
            ) from None
        except httpx.TimeoutException:
            raise CliError(
                f"{self.service} at {self.url} gave no answer within {self._patience_s:.0f} s; "
                "its log says what it is doing"
            ) from None
        except (httpx.TransportError, httpx.DecodingError) as error:
            raise BrokenOffError(
                f"{self.service} at {self.url} broke off the connection "
                f"({type(error).__name__}); `refdesk status` says how it is"
            ) from None
