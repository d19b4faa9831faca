"""HTTP/1.1 on a connection: uvicorn's, with five gaps closed.

- What can't be read as HTTP is answered in the one error shape.
- An offer to upgrade (Java's client sends `Upgrade: h2c` with every first request) is passed over;
  uvicorn would lose the request's body.
- A request's head is limited in size and in time; uvicorn gathers one of any size, for ever.
- A connection that brings no request is closed after the time for which one is kept alive, also a
  new one, and also where bytes come that are none: blank lines, or the rest of the body of a
  request that was refused. uvicorn keeps those open for ever.
- When a connection is lost, the request at work learns of it also where another one came after it
  on the same connection (pipelining). uvicorn tells the last one alone.
"""

import asyncio
from collections import deque
from http import HTTPStatus
from typing import Any

import httptools
import orjson
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from shared.errors import ApiError

MAX_HEAD_BYTES = 64 * 1024
HEAD_SECONDS = 30

# Of a request that offers to upgrade: what makes up the offer.
_OFFER = frozenset({b"connection", b"upgrade", b"http2-settings"})


class HttpProtocol(HttpToolsProtocol):
    """One connection. Its requests wait, one after the other, for uvicorn's loop to take them."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._too_slow: asyncio.TimerHandle | None = None  # set while a head is being read
        self._head_bytes = 0
        self._unanswered = deque[RequestResponseCycle]()  # the one at work, and those behind it

    def connection_made(  # type: ignore[override]  # as uvicorn's own narrows it
        self, transport: asyncio.Transport
    ) -> None:
        """A connection begins."""
        super().connection_made(transport)
        self.timeout_keep_alive_task = self.loop.call_later(
            self.timeout_keep_alive, self.timeout_keep_alive_handler
        )

    def data_received(self, data: bytes) -> None:
        """Read on. Closes the connection where it can't be read as HTTP."""
        head = self._too_slow
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as offer:
            self._pass_over(data[offer.args[0] :])
        except httptools.HttpParserError:
            self.send_400_response("this can't be read as an HTTP/1.1 request")
        if head is not None and self._too_slow is head:  # the same head, still not whole
            self._head_bytes += len(data)
            if self._head_bytes > MAX_HEAD_BYTES:
                message = f"the request's headers are over {MAX_HEAD_BYTES} bytes; send less"
                self._refuse(ApiError(431, "head_too_large", message))

    def on_message_begin(self) -> None:
        """A request begins."""
        super().on_message_begin()
        self._unset_keepalive_if_required()
        self._end_head()
        self._head_bytes = 0
        self._too_slow = self.loop.call_later(HEAD_SECONDS, self._refuse_slow_head)

    def on_headers_complete(self) -> None:
        """The head has been read: the request starts, unless its body is still to be found."""
        self._end_head()
        # Again: meanwhile the answer to the request before it may have ended.
        self._unset_keepalive_if_required()
        if not self.parser.should_upgrade():
            super().on_headers_complete()
            while self._unanswered and self._unanswered[0].response_complete:
                self._unanswered.popleft()
            self._unanswered.append(self.cycle)

    def on_message_complete(self) -> None:
        """The request has been read whole."""
        if not self.parser.should_upgrade():
            super().on_message_complete()

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is gone."""
        self._end_head()
        self._unset_keepalive_if_required()
        for cycle in self._unanswered:
            cycle.disconnected = not cycle.response_complete
            cycle.message_event.set()
        super().connection_lost(exc)

    def send_400_response(self, msg: str) -> None:
        """Refuse what is no request of HTTP, and close."""
        self._refuse(ApiError(400, "invalid_http", msg))

    def _pass_over(self, rest: bytes) -> None:
        """Read a request that offered to upgrade again, without the offer."""
        if self.parser.get_method() == b"CONNECT":
            self.send_400_response("this is no proxy")
            return
        lines = [b" ".join((self.parser.get_method(), self.url, b"HTTP/1.1"))]
        lines += [name + b": " + value for name, value in self.headers if name not in _OFFER]
        self.parser = httptools.HttpRequestParser(self)
        self.data_received(b"\r\n".join((*lines, b"", rest)))

    def _refuse_slow_head(self) -> None:
        message = f"the request's headers took over {HEAD_SECONDS} s"
        self._refuse(ApiError(408, "head_too_slow", message))

    def _refuse(self, error: ApiError) -> None:
        self._end_head()
        if self.transport.is_closing():
            return
        body = orjson.dumps(error.body())
        head = (
            f"HTTP/1.1 {error.status} {HTTPStatus(error.status).phrase}\r\n"
            f"content-type: application/json\r\ncontent-length: {len(body)}\r\n"
            "connection: close\r\n\r\n"
        )
        self.transport.write(head.encode("ascii") + body)
        self.transport.close()

    def _end_head(self) -> None:
        if self._too_slow is not None:
            self._too_slow.cancel()
            self._too_slow = None
