"""A policy in the body of a request: to be tried, never to be put in force."""

import asyncio
from typing import Annotated

from pydantic import Field

from services.generate.policy.file import PolicyError, parse
from services.generate.policy.schema import Policy
from services.generate.routing.in_force import PolicyFile
from shared.errors import ApiError

_MOST_CHARACTERS = 256 * 1024

# YAML as in a policy file; without one, the policy that holds.
PolicyText = Annotated[str, Field(min_length=1, max_length=_MOST_CHARACTERS)]


async def policy_of(text: str | None, policies: PolicyFile) -> Policy:
    """The policy that a body brings, checked like a file, or the one that holds.

    Raises ApiError 400 `policy_refused` with what is wrong with it, line by line.
    """
    if text is None:
        return await policies.current()
    try:
        return await asyncio.to_thread(parse, text, "policy")
    except PolicyError as error:
        raise ApiError(400, "policy_refused", str(error), param="policy") from None
