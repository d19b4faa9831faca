"""The errors of text-embeddings-inference (TEI), for the requests that are in its form."""

from typing import Any

from services.rerank.protocol import is_tei
from shared.envelope import ErrorShape
from shared.errors import ApiError, ErrorAnswer
from shared.tei import TeiErrorAnswer, tei_error_body

RERANK_PATHS = ("/rerank", "/v1/rerank", "/v2/rerank")


def _by_form(error: ApiError, body: object) -> dict[str, Any]:
    """TEI's shape where the request has `texts`, ours for any other."""
    return tei_error_body(error) if is_tei(body) else error.body()


ERROR_SHAPES: dict[str, ErrorShape] = dict.fromkeys(RERANK_PATHS, _by_form)

# The same for the OpenAPI document.
EITHER_ERRORS: dict[int | str, dict[str, Any]] = {
    "default": {
        "model": ErrorAnswer | TeiErrorAnswer,
        "description": "What was wrong, where, and what to do; TEI's form if `texts` were sent",
    }
}
