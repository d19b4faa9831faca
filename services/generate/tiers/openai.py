"""Any server that speaks the OpenAI chat API, as a writer."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError

from services.generate.answer.prompt import build, declines
from services.generate.routing.request import estimated_tokens
from services.generate.tiers.endpoint import Draft, DraftRequest
from shared.client import ServiceClient
from shared.errors import ApiError
from shared.settings import Settings


class _Body(BaseModel):
    model_config = ConfigDict(extra="ignore")


class _Message(_Body):
    content: str | None = None


class _Choice(_Body):
    message: _Message
    finish_reason: str | None = None


Tokens = Annotated[int, Field(ge=0, le=10**9)]


class _Usage(_Body):
    prompt_tokens: Tokens = 0
    completion_tokens: Tokens = 0


class _Completion(_Body):
    choices: list[_Choice]
    usage: _Usage | None = None
    model: Annotated[str, Field(max_length=200)] | None = None


class OpenAIEndpoint:
    """An `Endpoint` over HTTP. url: the API's base, usually ending in ``/v1``."""

    def __init__(
        self, tier: str, url: str, model: str, key: SecretStr | None, settings: Settings
    ) -> None:
        self.name = url
        self.model = model
        self._client = ServiceClient(
            f"the model server of tier {tier}", url, settings=settings, external=True, key=key
        )

    async def draft(self, request: DraftRequest) -> Draft:
        """See `Endpoint`. The whole draft at once: nothing is shown before it is verified."""
        prompt = build(request.question, request.passages, request.delimiter)
        body = {
            "model": self.model,
            "messages": prompt,
            "max_tokens": request.max_tokens,
            "temperature": 0.0,
        }
        request.meter.sent(estimated_tokens(str(turn["content"]) for turn in prompt))
        try:
            answer = _Completion.model_validate(await self._client.post("/chat/completions", body))
            [choice, *_] = answer.choices
        except (ValidationError, ValueError):
            raise ApiError(
                502, "bad_upstream", f"{self.name} answered something that is no chat completion"
            ) from None
        if answer.usage is not None:
            request.meter.told(answer.usage.prompt_tokens, answer.usage.completion_tokens)
        text = (choice.message.content or "").strip()
        if (
            not text
        ):  # as after a content filter, or where all tokens went into thinking: no refusal
            raise ApiError(502, "bad_upstream", f"{self.name} answered without any text")
        if declines(text):
            text = ""
        finish: Literal["stop", "length"] = "length" if choice.finish_reason == "length" else "stop"
        return Draft(text, finish, answer.model or self.model)

    async def close(self) -> None:
        """Close the connections."""
        await self._client.close()
