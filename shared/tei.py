"""The error shape of text-embeddings-inference (TEI), for the paths that its clients call.

Source: `ErrorResponse` and `ErrorType` in the router of TEI.
"""

from typing import Any, Literal

from pydantic import BaseModel

from shared.errors import ApiError

_TYPES = {424: "Backend", 429: "Overloaded", 503: "Unhealthy", 504: "Overloaded"}


class TeiErrorAnswer(BaseModel):
    """The body of every answer to TEI's clients that is not a success."""

    error: str
    error_type: Literal["Backend", "Overloaded", "Unhealthy", "Validation"]


# Of a route: `shared.errors.ERRORS` in this shape.
TEI_ERRORS: dict[int | str, dict[str, Any]] = {
    "default": {"model": TeiErrorAnswer, "description": "What was wrong, where, and what to do"}
}


def tei_error_body(error: ApiError, _: object = None) -> dict[str, Any]:
    """The body that TEI gives: ``{"error": message, "error_type": one of TEI's words}``.

    An ErrorShape, whatever the request's body is.
    """
    kind = _TYPES.get(error.status, "Validation" if error.status < 500 else "Backend")
    return {"error": error.message, "error_type": kind}
