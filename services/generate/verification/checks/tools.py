"""Tool calls name tools that were sent, with arguments that fit, as often as they may be called."""

from collections.abc import Mapping, Sequence
from typing import Any

import orjson

from services.generate.prompting.chat import Chat, ToolCall
from services.generate.verification.checks.failure import Check, Failure
from services.generate.verification.schemas import fault
from shared.errors import shown

MOST_CALLS = 64


def held(calls: Sequence[ToolCall], chat: Chat) -> list[Failure]:
    """What is wrong with the calls of a draft, or with there being none."""
    functions = {one["function"]["name"]: one["function"] for one in chat.tools or ()}
    failures = [one for call in calls for one in _fits(call, functions)]
    if len(calls) > MOST_CALLS:
        failures.append(_failure(f"{len(calls)} calls, {MOST_CALLS} are the most"))
    if not all(call.id for call in calls) or len({call.id for call in calls}) < len(calls):
        failures.append(_failure("a call has no id of its own, which its result would name"))
    if chat.parallel_tool_calls is False and len(calls) > 1:
        failures.append(_failure("one call at a time was asked for"))
    choice = chat.tool_choice
    if not calls and choice not in (None, "auto"):
        failures.append(_failure("a call was asked for, the draft has none"))
    if isinstance(choice, Mapping):
        wanted = choice["function"]["name"]
        if any(call.name != wanted for call in calls):
            failures.append(_failure(f"only {wanted} was to be called"))
    return failures


def _fits(call: ToolCall, functions: Mapping[str, Mapping[str, Any]]) -> list[Failure]:
    name = shown(call.name)
    function = functions.get(call.name)
    if function is None:
        return [_failure(f"there is no tool {name}")]
    try:
        arguments = orjson.loads(call.arguments)
    except ValueError:
        return [_failure(f"the arguments of {name} are no JSON")]
    if not isinstance(arguments, dict):
        return [_failure(f"the arguments of {name} are no object")]
    parameters = function.get("parameters")
    wrong = fault(parameters, arguments) if parameters is not None else None
    return [] if wrong is None else [_failure(f"the arguments of {name} don't fit: {wrong}")]


def _failure(detail: str) -> Failure:
    return Failure(Check.TOOLS, detail)
