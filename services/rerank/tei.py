"""The errors of text-embeddings-inference: ``{"error", "error_type"}``."""

from collections.abc import Collection
from typing import Any, Self

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError

from services.rerank.protocol import is_tei
from shared.errors import ApiError
from shared.tei import tei_error_body


class TeiError(ApiError):
    """A failure told in the shape that clients of text-embeddings-inference read."""

    @classmethod
    def of(cls, error: ApiError) -> Self:
        """The same failure in this shape; what is wrong with a body is a 422 under every path."""
        status = 422 if error.code == "invalid_request" else error.status
        return cls(status, error.code, error.message, headers=error.headers)

    def body(self) -> dict[str, Any]:
        """The JSON body of the answer."""
        return tei_error_body(self)


def refuse_bad_bodies_in_their_form(app: FastAPI, paths: Collection[str]) -> None:
    """Refuse a body with `texts`, sent to one of `paths`, in TEI's shape, any other as ever."""
    ours = app.exception_handlers[RequestValidationError]

    async def refuse(request: Request, error: Exception) -> Response:
        try:
            found = ours(request, error)
            return found if isinstance(found, Response) else await found
        except ApiError as refusal:
            body = error.body if isinstance(error, RequestValidationError) else None
            if request.url.path in paths and is_tei(body):
                raise TeiError.of(refusal) from None
            raise

    app.add_exception_handler(RequestValidationError, refuse)
