"""One model server's endpoint, asked for drafts of one question."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest

from services.generate.tiers.breaker import Door
from services.generate.tiers.endpoint import Draft, DraftRequest
from services.generate.tiers.meter import Meter
from services.generate.tiers.openai import OpenAIEndpoint
from services.generate.tiers.resilience import Resilience, Server
from services.generate.tiers.upstream import TimeLimits
from shared.errors import ApiError
from tests.upstream import Behaviour, Upstream, upstream

QUICK = TimeLimits(connect_s=0.3, first_token_s=0.3, next_token_s=0.2, draft_s=0.8)
PATIENT = TimeLimits(connect_s=5, first_token_s=5, next_token_s=5, draft_s=5)


class Asking:
    """One endpoint, asked for drafts of one question. shown: the pieces of the last one."""

    def __init__(self, url: str, times: TimeLimits) -> None:
        self.resilience = Resilience(times)
        self.url = url
        self.endpoint = OpenAIEndpoint("reasoning", url, "big", None, self.resilience)
        self.shown: list[str] = []
        self.meter = Meter()

    async def draft(self, **more: Any) -> Draft:
        self.shown, self.meter = [], Meter()
        request = DraftRequest("When?", (), (), 160, "0f0f", meter=self.meter)
        request = replace(request, **{"show": self.shown.append, **more})
        return await self.endpoint.draft(request)

    async def failure(self, **more: Any) -> ApiError:
        with pytest.raises(ApiError) as raised:
            await self.draft(**more)
        return raised.value

    @property
    def door(self) -> Door:
        return self.resilience.door(Server(self.url, "big"))


@asynccontextmanager
async def asking(
    *behaviours: Behaviour, times: TimeLimits = PATIENT
) -> AsyncIterator[tuple[Asking, Upstream]]:
    async with upstream(*behaviours) as server:
        asked = Asking(server.url, times)
        try:
            yield asked, server
        finally:
            await asked.endpoint.close()


def event(content: str, finish: str | None = None, **more: Any) -> bytes:
    choice = {"index": 0, "delta": {"content": content}, "finish_reason": finish}
    return json.dumps({"choices": [choice], **more}).encode()
