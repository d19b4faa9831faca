"""Chunks that were just stored, sent on to rerank, so that the first question finds them read.

It is an offer, never a duty: it happens behind the answered ingest, and what can't be sent is
dropped, since rerank reads a chunk anyway when a question first brings it there.
"""

import asyncio
from collections import deque
from collections.abc import Sequence
from contextvars import Context

from shared.auth import NOBODY
from shared.client import ServiceClient
from shared.context import Deadline, RequestContext, enter
from shared.errors import ApiError
from shared.telemetry import get_logger

log = get_logger(__name__)

# Chunks in one request, and one request at a time: about one batch of rerank's own, after which
# any query that waits there has its turn.
_AT_ONCE = 8
# Chunks that may wait, so that a long ingest does not pile up in memory: some 10 MB.
_WAITING = 8192
_BUSY_SECONDS = 5.0  # until it is asked again after it refused to take more
_PATIENCE_MS = 60_000.0  # for one request; rerank may be busy with queries


class TokenFill:
    """Sends chunks to rerank in the background, oldest first."""

    def __init__(self, rerank: ServiceClient) -> None:
        self._rerank = rerank
        self._waiting: deque[str] = deque()
        self._task: asyncio.Task[None] | None = None

    @property
    def waiting(self) -> int:
        """How many chunks were not sent yet."""
        return len(self._waiting)

    def add(self, texts: Sequence[str]) -> None:
        """Queue chunks, as the curator will see them, and return at once; it can't fail."""
        room = _WAITING - len(self._waiting)
        self._waiting.extend(texts[:room])
        if len(texts) > room:
            log.warning("token_fill_dropped", chunks=len(texts) - room, why="too many wait already")
        if self._waiting and (self._task is None or self._task.done()):
            # A context of its own: the deadline and the key of this request end with it.
            self._task = asyncio.create_task(self._send(), context=Context())

    async def close(self) -> None:
        """Stop, and forget what was not sent yet."""
        self._waiting.clear()
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    async def _send(self) -> None:
        while self._waiting:
            texts = [self._waiting.popleft() for _ in range(min(_AT_ONCE, len(self._waiting)))]
            enter(RequestContext("token-fill", Deadline.after_ms(_PATIENCE_MS), NOBODY))
            try:
                await self._rerank.post("/v1/token-vectors", {"documents": texts})
            except ApiError as error:
                if error.status == 429:  # it has others to serve: later
                    self._waiting.extendleft(reversed(texts))
                    await asyncio.sleep(_BUSY_SECONDS)
                    continue
                dropped = len(texts) + len(self._waiting)
                self._waiting.clear()
                log.warning("token_fill_dropped", chunks=dropped, why=error.message)
