"""Any server that speaks the OpenAI chat API, as a writer."""

from typing import Any

import orjson
from pydantic import SecretStr

from services.generate.prompting.chat import Chat
from services.generate.prompting.conversation import Turn, turns
from services.generate.prompting.images import told, with_images
from services.generate.prompting.prompt import build, declines
from services.generate.reading.tokens import estimated_tokens
from services.generate.tiers.breaker import Door
from services.generate.tiers.endpoint import Draft, DraftRequest
from services.generate.tiers.resilience import Resilience, Server
from services.generate.tiers.upstream import Asked
from shared.client import ServiceClient


class OpenAIEndpoint:
    """An `Endpoint` over HTTP. url: the API's base, usually ending in ``/v1``.

    resilience: what all such endpoints of the process share.
    """

    def __init__(
        self, tier: str, url: str, model: str, key: SecretStr | None, resilience: Resilience
    ) -> None:
        self.name = url
        self.model = model
        self._tier = tier
        self._server = Server(url, model)
        self._resilience = resilience
        self._client = ServiceClient(
            f"the model server of tier {tier}", url, external=True, key=key
        )

    @property
    def door(self) -> Door:
        """Whether it is asked just now."""
        return self._resilience.door(self._server)

    async def draft(self, request: DraftRequest) -> Draft:
        """See `Endpoint`. Always read as a stream, so that a server that stalls is seen to."""
        prompt = build(
            request.question, request.passages, request.delimiter, datamark=request.datamark
        )
        chat = request.chat
        messages = turns(prompt, chat)
        read = orjson.dumps([messages, chat.tools or ()], default=told).decode()
        asked = Asked(
            _body(self.model, messages, request.max_tokens, chat),
            estimated_tokens([read]),
            request.max_tokens,
            request.show,
            request.meter,
            request.stopped,
            len(chat.all_images),
            request.image_tokens,
            request.thinks_first,
        )
        completion = await self._resilience.complete(self._client, self._tier, self._server, asked)
        text = completion.text
        return Draft(
            "" if declines(text) else text,
            "length" if completion.finish == "length" else "stop",
            completion.model or self.model,
            completion.tool_calls,
        )

    async def close(self) -> None:
        """Close the connections."""
        await self._client.close()


def _body(model: str, messages: list[Turn], max_tokens: int, chat: Chat) -> dict[str, Any]:
    """What the server is sent; of the chat's own parts those that its client sent."""
    body: dict[str, Any] = {
        "model": model,
        "messages": [with_images(one) for one in messages],
        "max_tokens": max_tokens,
        "temperature": 0.0,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    own = {
        "tools": chat.tools,
        "tool_choice": chat.tool_choice,
        "parallel_tool_calls": chat.parallel_tool_calls,
        "response_format": chat.response_format,
    }
    return body | {name: value for name, value in own.items() if value is not None}
