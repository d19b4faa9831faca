"""The tier utility as a helper of the search: a small language model at an OpenAI-compatible
server, asked for one JSON object at a time."""

import asyncio
import json
import re
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from shared.context import current
from shared.errors import ApiError
from shared.settings import Settings
from shared.upstream import Upstream

# A search waits for it: what takes longer is worth less than the time.
_LONGEST_S = 4.0
# It gets at most this share of the request's time, so that the search itself is never starved.
_SHARE = 0.3
_LEAST_S = 0.2
_MOST_CHARACTERS = 20_000
# What a model that thinks aloud writes before its answer, closed or cut off.
_THOUGHT = re.compile(r"^\s*<think(?:ing)?>.*?(?:</think(?:ing)?>|\Z)", re.DOTALL)


class UnusableError(Exception):
    """There is no answer that could be used; the message says why, in words for `skipped`."""


class _Foreign(BaseModel):
    model_config = ConfigDict(extra="ignore")


class _Message(_Foreign):
    content: str | None = None


class _Choice(_Foreign):
    message: _Message
    finish_reason: str | None = None


class _Completion(_Foreign):
    choices: list[_Choice]


class Assistant:
    """A client of the utility server. Make one per process; close it at the end."""

    def __init__(self, settings: Settings) -> None:
        self._model = settings.utility_model
        self._server = Upstream(
            "the model server of tier utility",
            settings.utility_url.rstrip("/"),
            settings.utility_key,
            timeout_s=_LONGEST_S,
            attempts=1,  # the search goes on without it; another try would take the search's time
        )

    @classmethod
    def of(cls, settings: Settings) -> "Assistant | None":
        """One where the settings name a server (`utility_url`), else None.

        Raises StartupError for a URL that is none.
        """
        return cls(settings) if settings.utility_url else None

    async def ask(self, task: str, material: Mapping[str, Any], max_tokens: int) -> dict[str, Any]:
        """The JSON object that the model answers to a task.

        task: the instructions, which are ours alone. material: what others wrote; it goes into the
        user's turn as JSON, so that nothing in it can pass for an instruction of ours. Takes at
        most 4 seconds and three tenths of the time that the request has left. Raises UnusableError.
        """
        seconds = min(_LONGEST_S, current().deadline.remaining_ms() / 1000 * _SHARE)
        if seconds < _LEAST_S:
            raise UnusableError("too little of the request's time was left")
        body = {
            "model": self._model,
            "messages": [
                {"role": "system", "content": task},
                {"role": "user", "content": json.dumps(material, ensure_ascii=False)},
            ],
            "max_tokens": max_tokens,
            "temperature": 0.0,
            "stream": False,
        }
        try:
            async with asyncio.timeout(seconds):
                answer = await self._server.post("/chat/completions", body)
        except TimeoutError:
            raise UnusableError(f"the tier utility gave no answer within {seconds:.1f} s") from None
        except ApiError as error:
            raise UnusableError(error.message) from None
        return _object(_text(answer))

    async def close(self) -> None:
        """Close the connections."""
        await self._server.close()


def _text(answer: Any) -> str:
    try:
        [choice, *_] = _Completion.model_validate(answer).choices
    except (ValidationError, ValueError):
        raise UnusableError("the tier utility answered something that is no chat completion") from (
            None
        )
    text = _THOUGHT.sub("", choice.message.content or "").strip()
    if not text:
        raise UnusableError("the tier utility answered without any text")
    if choice.finish_reason == "length":
        raise UnusableError("the tier utility's answer was cut off at its longest")
    if len(text) > _MOST_CHARACTERS:
        raise UnusableError("the tier utility's answer is far too long")
    return text


def _object(text: str) -> dict[str, Any]:
    """The JSON object in an answer; small models put words or a fence around it."""
    start, end = text.find("{"), text.rfind("}")
    try:
        found = json.loads(text[start : end + 1]) if start >= 0 else None
    except (ValueError, RecursionError):  # ValueError: also a number of thousands of digits
        found = None
    if not isinstance(found, dict):
        raise UnusableError("the tier utility's answer is not the JSON that was asked for")
    return found
