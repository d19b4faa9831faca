"""Numbers that JSON can't hold: they would be sent as null, which is something else."""

import math
from collections.abc import Mapping
from typing import Any

import orjson


def to_json(body: Mapping[str, Any]) -> bytes:
    """The body as it is sent. Raises ValueError, in a sentence, for what JSON can't hold."""
    try:
        content = orjson.dumps(body)
    except orjson.JSONEncodeError as error:
        raise ValueError(f"this can't be sent as JSON: {error}") from None
    field = not_finite(body)
    if field is not None:
        raise ValueError(f"{field}: is no finite number, and can't be sent as JSON")
    return content


def not_finite(value: object, name: str = "") -> str | None:
    """Where in `value` the first NaN or infinity is, as in `fusion.weights.bm25`; None if nowhere.

    name: of the value itself.
    """
    if isinstance(value, float) and not math.isfinite(value):
        return name
    inner: list[tuple[object, object]] = []
    if isinstance(value, Mapping):
        inner = list(value.items())
    elif isinstance(value, list | tuple):
        inner = list(enumerate(value))
    for key, one in inner:
        found = not_finite(one, f"{name}.{key}" if name else str(key))
        if found is not None:
            return found
    return None
