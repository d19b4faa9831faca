"""What the tests of tools and formats share: a tool, a schema, a server that calls and writes."""

import json
from pathlib import Path
from typing import Any

from tests.upstream import Behaviour, Wire

WEATHER: dict[str, Any] = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "The weather in a city.",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}, "days": {"type": "integer", "minimum": 1}},
            "required": ["city"],
            "additionalProperties": False,
        },
    },
}
YEAR: dict[str, Any] = {
    "type": "json_schema",
    "json_schema": {
        "name": "year",
        "schema": {
            "type": "object",
            "properties": {"year": {"type": "integer"}},
            "required": ["year"],
        },
    },
}


def call(city: str, at: str = "call_1") -> dict[str, Any]:
    """A call of `WEATHER`, as a message of an assistant has it."""
    arguments = json.dumps({"city": city})
    function = {"name": "weather", "arguments": arguments}
    return {"id": at, "type": "function", "function": function}


def calls(*arguments: str, name: str = "weather", text: str = "") -> Behaviour:
    """A model that calls a tool with each of the arguments, in two pieces each."""

    async def behave(wire: Wire) -> None:
        await wire.head()
        await wire.delta(role="assistant", content=text or None)
        for n, one in enumerate(arguments):
            half = len(one) // 2
            first = {"index": n, "id": f"call_{n}", "type": "function"}
            first["function"] = {"name": name, "arguments": one[:half]}
            await wire.delta(tool_calls=[first])
            await wire.delta(tool_calls=[{"index": n, "function": {"arguments": one[half:]}}])
        await wire.delta(finish="tool_calls")
        await wire.usage({"prompt_tokens": 300, "completion_tokens": 12})
        await wire.done()

    return behave


def writes(text: str, finish: str = "stop") -> Behaviour:
    """A model that writes a text as it stands, in pieces of five characters."""

    async def behave(wire: Wire) -> None:
        await wire.head()
        for at in range(0, len(text), 5):
            await wire.delta(content=text[at : at + 5])
        await wire.delta(finish=finish)
        await wire.usage({"prompt_tokens": 300, "completion_tokens": 12})
        await wire.done()

    return behave


def served(folder: Path, *urls: str, checks: str = "strict", price: int = 0) -> Path:
    """A policy whose tiers are servers, the first asked first; without any, one that quotes.

    checks: of all of them. price: of a token, nano-dollars.
    """
    tokens = {"input": price, "output": price}
    models = {
        f"m{n}": {"tier": f"tier{n}", "kind": "openai", "url": url, "model": "m", "price": tokens}
        for n, url in enumerate(urls)
    }
    quote = {"tier": "tier0", "kind": "extractive", "price": {"input": 0, "output": 0}}
    tiers = {one["tier"]: {"models": [name]} for name, one in models.items()}
    policy = {
        "version": 1,
        "classes": ["open"],
        "default_class": "open",
        "models": {**models, "quote": quote},
        "tiers": tiers or {"tier0": {"models": ["quote"]}},
        "compliance": {"open": ["*"]},
        "rules": [{"name": "all", "then": {"tier": "tier0"}}],
        "checks": checks,
        "escalation": {"max_hops": max(0, len(urls) - 1)},
        "last_resort": "quote",
    }
    path = folder / "policy.yaml"
    path.write_text(json.dumps(policy))  # JSON is YAML
    return path
