"""A draft that has to be JSON is one JSON value, and fits the schema that was sent."""

from collections.abc import Mapping
from typing import Any

import orjson

from services.generate.verification.checks.failure import Check, Failure
from services.generate.verification.schemas import fault


def held(text: str, response_format: Mapping[str, Any]) -> list[Failure]:
    """What keeps a draft from being what was asked for.

    The text must be the value and nothing else: a program reads it, and one that would take a fence
    of Markdown away is not the program that asked for JSON.
    """
    try:
        value = orjson.loads(text)
    except ValueError:
        return [Failure(Check.SCHEMA, "the draft is not one JSON value")]
    if response_format["type"] == "json_object" and not isinstance(value, dict):
        return [Failure(Check.SCHEMA, "the draft is JSON, but no object")]
    schema = response_format.get("json_schema", {}).get("schema")
    if schema is None:
        return []
    wrong = fault(schema, value)
    return [] if wrong is None else [Failure(Check.SCHEMA, wrong)]
