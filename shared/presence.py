"""The work for a request ends when its caller has left."""

import asyncio

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from shared.errors import ApiError


class WhileConnected:
    """ASGI middleware for a service whose work is for the caller alone, such as an inference.

    Without it a request whose connection is gone would still be worked on to the end. It goes
    within the envelope, whose log and metrics get the error 499 that it raises then. Not for
    services that must finish what they began.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one ASGI scope; anything but HTTP is passed through."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        read = asyncio.Event()  # all of the body
        left = False

        async def receive_body() -> Message:
            message = await receive()
            if not message.get("more_body", False):
                read.set()
            return message

        async def send_answer(message: Message) -> None:
            if message["type"] == "http.response.body" and not message.get("more_body", False):
                watch.cancel()  # the server calls the end of the answer a disconnect, too
            await send(message)

        async def cancel_when_left() -> None:
            nonlocal left
            await read.wait()
            while (await receive())["type"] != "http.disconnect":
                pass
            left = True
            work.cancel()

        work = asyncio.ensure_future(self._app(scope, receive_body, send_answer))
        watch = asyncio.create_task(cancel_when_left())
        try:
            await work
        except asyncio.CancelledError:
            if left:
                raise ApiError(499, "client_gone", "the caller hung up") from None
            work.cancel()
            raise
        finally:
            watch.cancel()
