"""An embed over real HTTP in a thread of its own, that misbehaves as it is told."""

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request, Response

from tests.ingesting import Embed
from tests.suite import serving

Fault = Callable[[dict[str, Any]], Any]  # of a sound answer what is answered instead


@dataclass
class FaultyEmbed:
    """`fault` spoils the next answers, as many as `times` says; None lets all be."""

    url: str
    embed: Embed
    fault: Fault | None = None
    times: int = 0
    spoiled: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def misbehave(self, fault: Fault, times: int) -> None:
        """Spoil the next `times` answers."""
        with self.lock:
            self.fault, self.times, self.spoiled = fault, times, 0

    def answer(self, sound: dict[str, Any]) -> Any:
        """What is answered."""
        with self.lock:
            if self.fault is None or not self.times:
                return sound
            self.times -= 1
            self.spoiled += 1
            return self.fault(sound)


@contextmanager
def faulty_embed(tokenizer: Path) -> Iterator[FaultyEmbed]:
    """A server whose vectors are `tests.corpora.vector_of` the texts."""
    started = threading.Event()
    made: list[FaultyEmbed] = []
    content = tokenizer.read_bytes()
    stop: list[Callable[[], object]] = []

    async def main() -> None:
        loop, over = asyncio.get_running_loop(), asyncio.Event()
        embed = Embed(content)
        async with serving(_querying(embed.app())) as url:
            one = FaultyEmbed(url, embed)
            embed.spoil = one.answer
            made.append(one)
            stop.append(lambda: loop.call_soon_threadsafe(over.set))
            started.set()
            await over.wait()

    thread = threading.Thread(target=asyncio.run, args=(main(),))
    thread.start()
    assert started.wait(30)
    try:
        yield made[0]
    finally:
        stop[0]()
        thread.join(30)


def _querying(app: FastAPI) -> FastAPI:
    """Queries are embedded like documents."""

    @app.middleware("http")
    async def as_documents(request: Request, call: Any) -> Response:
        body = await request.body()
        request._body = body.replace(b'"input_type":"query"', b'"input_type":"document"')
        answer: Response = await call(request)
        return answer

    return app
