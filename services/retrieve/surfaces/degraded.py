"""What an answer in the words of others went without: a header says it, as their bodies can't."""

from contextvars import ContextVar

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

HEADER = "x-refdesk-degraded"

# One dict per request, which the tasks that work for the request share: an ordered set.
_stages: ContextVar[dict[str, None] | None] = ContextVar("refdesk_degraded", default=None)


def note(stages: list[str]) -> None:
    """Keep what a search went without for the answer's header."""
    noted = _stages.get()
    if noted is not None:
        noted.update(dict.fromkeys(stages))


def noted() -> list[str]:
    """What the searches of the request at hand went without."""
    return list(_stages.get() or ())


class SayDegraded:
    """ASGI middleware: the header, on answers that went without a stage."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one ASGI scope."""
        stages: dict[str, None] = {}

        async def send_with_stages(message: Message) -> None:
            if message["type"] == "http.response.start" and stages:
                MutableHeaders(scope=message)[HEADER] = ", ".join(stages)
            await send(message)

        _stages.set(stages)
        await self._app(scope, receive, send_with_stages)
