"""A model server that misbehaves: real HTTP from a socket, with what its peers suffer from.

Behaviours are functions that get a `Wire` and write what they please, byte by byte.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

GOOD = "Ada Lovelace wrote the first program in 1843 [3]."


@dataclass
class Wire:
    """One request and the connection that it came on. body: what was sent."""

    body: dict[str, Any]
    writer: asyncio.StreamWriter
    reader: asyncio.StreamReader

    async def send(self, data: bytes) -> None:
        """Write bytes as they are."""
        self.writer.write(data)
        await self.writer.drain()

    async def head(self, status: int = 200, kind: str = "text/event-stream", **more: Any) -> None:
        """The status line and headers of a chunked answer."""
        fields = {"content-type": kind, "transfer-encoding": "chunked"}
        fields |= {name.replace("_", "-"): str(value) for name, value in more.items()}
        lines = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
        await self.send(f"HTTP/1.1 {status} X\r\n{lines}\r\n".encode())

    async def chunk(self, data: bytes) -> None:
        """One chunk of the body."""
        await self.send(f"{len(data):x}\r\n".encode() + data + b"\r\n")

    async def event(self, body: Any) -> None:
        """One server-sent event."""
        await self.chunk(b"data: " + json.dumps(body).encode() + b"\n\n")

    async def delta(self, finish: str | None = None, **delta: Any) -> None:
        """One chunk of a completion."""
        choice = {"index": 0, "delta": delta, "finish_reason": finish}
        await self.event({"model": "big-1", "choices": [choice], "usage": None})

    async def text(self, text: str) -> None:
        """A text, word by word."""
        for word in text.split(" "):
            await self.delta(content=word + " ")

    async def usage(self, usage: Any) -> None:
        """The chunk that has the usage."""
        await self.event({"choices": [], "usage": usage})

    async def done(self) -> None:
        """The end of the stream and of the body."""
        await self.chunk(b"data: [DONE]\n\n")
        await self.send(b"0\r\n\r\n")

    async def whole(self, status: int, body: Any, kind: str = "application/json") -> None:
        """A whole answer."""
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        await self.head(status, kind)
        await self.chunk(data)
        await self.send(b"0\r\n\r\n")

    async def gone(self) -> None:
        """Wait until the other side has closed the connection."""
        while await self.reader.read(1024):
            pass


Behaviour = Callable[[Wire], Awaitable[None]]


async def good(wire: Wire, text: str = GOOD, usage: Any = None) -> None:
    """Stream a text as it should be."""
    await wire.head()
    await wire.delta(role="assistant", content="")
    await wire.text(text)
    await wire.delta(finish="stop")
    await wire.usage(usage or {"prompt_tokens": 300, "completion_tokens": 12})
    await wire.done()


def sends(*parts: bytes, kind: str = "text/event-stream", end: bool = True) -> Behaviour:
    """A server that sends these bytes, each as a chunk."""

    async def behave(wire: Wire) -> None:
        await wire.head(kind=kind)
        for part in parts:
            await wire.chunk(part)
        if end:
            await wire.send(b"0\r\n\r\n")
        else:
            wire.writer.close()

    return behave


def answers(status: int, **headers: Any) -> Behaviour:
    """A server that answers an error."""

    async def behave(wire: Wire) -> None:
        await wire.head(status, "application/json", **headers)
        await wire.chunk(b'{"error": {"message": "no", "code": "x"}}')
        await wire.send(b"0\r\n\r\n")

    return behave


async def hangs(wire: Wire) -> None:
    await wire.gone()


async def hangs_after_its_headers(wire: Wire) -> None:
    await wire.head()
    await wire.gone()


async def plays_a_role(wire: Wire) -> None:
    await wire.head()
    while not wire.writer.is_closing():
        await wire.delta(role="assistant", content="")
        await asyncio.sleep(0.02)


async def drips(wire: Wire) -> None:
    await wire.head()
    while not wire.writer.is_closing():
        await wire.delta(content="a ")
        await asyncio.sleep(0.05)


async def stalls(wire: Wire) -> None:
    await wire.head()
    await wire.text("Ada Lovelace")
    await wire.gone()


async def dies(wire: Wire) -> None:
    await wire.head()
    await wire.text("Ada Lovelace wrote")
    wire.writer.close()


async def ends_too_soon(wire: Wire) -> None:
    await wire.head()
    await wire.text("Ada Lovelace wrote")
    await wire.send(b"0\r\n\r\n")


async def hangs_up(wire: Wire) -> None:
    wire.writer.close()


async def errs_in_mid_stream(wire: Wire) -> None:
    await wire.head()
    await wire.text("Ada Lovelace wrote")
    await wire.event({"error": {"message": "out of memory", "code": 500}})
    await wire.done()


async def filters(wire: Wire) -> None:
    await wire.head()
    await wire.delta(content="Ada ", finish="content_filter")
    await wire.done()


async def huge(wire: Wire) -> None:
    await wire.head()
    try:
        for _ in range(100):
            await wire.chunk(b"data: " * 10_000)
    finally:
        await wire.gone()


def html() -> Behaviour:
    return sends(b"<!doctype html><title>Sign in</title>", kind="text/html")


@dataclass
class Upstream:
    """A server that does what `behaviour` says; a list is worked off, its last one stays.

    seen: the bodies of its requests. left: set once a caller has closed a connection early.
    """

    behaviours: list[Behaviour]
    seen: list[dict[str, Any]] = field(default_factory=list)
    connections: int = 0
    left: asyncio.Event = field(default_factory=asyncio.Event)
    url: str = ""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection."""
        self.connections += 1
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                fields = [line.partition(":") for line in head.decode().splitlines()[1:]]
                length = next(int(v) for name, _, v in fields if name.lower() == "content-length")
                body = json.loads(await reader.readexactly(length))
                self.seen.append(body)
                behaviour = self.behaviours[min(len(self.seen), len(self.behaviours)) - 1]
                await behaviour(Wire(body, writer, reader))
                if writer.is_closing():
                    return
        except (asyncio.IncompleteReadError, ConnectionError):
            self.left.set()
        finally:
            writer.close()


@asynccontextmanager
async def upstream(*behaviours: Behaviour) -> AsyncIterator[Upstream]:
    """Serve the behaviours on a free port of this machine."""
    told = Upstream(list(behaviours))
    tasks: set[asyncio.Task[None]] = set()

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.ensure_future(told.serve(reader, writer))
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    told.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield told
    finally:
        server.close()
        for task in list(tasks):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
