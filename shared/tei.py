"""The error shape of text-embeddings-inference (TEI), for the paths that its clients call.

Source: `ErrorResponse` and `ErrorType` in the router of TEI.
"""

from typing import Any

from shared.errors import ApiError

_TYPES = {424: "Backend", 429: "Overloaded", 503: "Unhealthy", 504: "Overloaded"}


def tei_error_body(error: ApiError) -> dict[str, Any]:
    """The body that TEI gives: ``{"error": message, "error_type": one of TEI's words}``."""
    kind = _TYPES.get(error.status, "Validation" if error.status < 500 else "Backend")
    return {"error": error.message, "error_type": kind}
