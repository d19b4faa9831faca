"""The one error shape: ``{"error": {"message", "type", "param", "code"}}``.

Whatever a caller should be told is raised as `ApiError`; what keeps a process from starting is a
`StartupError`. Nothing else is turned into an answer: any other exception is a defect, is logged
with its traceback and answered as a bare 500.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import BaseModel

# The names follow OpenAI's error types where it has one, so that its clients raise the right class.
_TYPES = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    429: "rate_limit_error",
    500: "internal_error",
    502: "upstream_error",
    503: "service_unavailable_error",
    504: "timeout_error",
    507: "storage_error",
}
_SHOWN_NAME = 64  # characters of a name of the caller's own that an error repeats
_SHOWN_WORDS = 500  # of a sentence that may hold a caller's value


class ApiError(Exception):
    """A failure that the caller is told about.

    status: the HTTP status. code: a stable word for programs. message: what was wrong, where, and
    what to do, for people. param: the field at fault (``documents.3.text``), if one is.
    headers: extra response headers, such as ``Retry-After`` in seconds.
    """

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        *,
        param: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.param = param
        self.headers = dict(headers or {})

    @property
    def type(self) -> str:
        """The error's family, from its status (``invalid_request_error`` for other 4xx)."""
        return _TYPES.get(
            self.status, "invalid_request_error" if self.status < 500 else "internal_error"
        )

    def body(self) -> dict[str, Any]:
        """The JSON body of the answer."""
        return error_body(self.status, self.code, self.message, self.param)


def error_body(status: int, code: str, message: str, param: str | None = None) -> dict[str, Any]:
    """The one error shape as a dict, for answers that no `ApiError` was raised for."""
    family = ApiError(status, code, message).type
    return {"error": {"message": message, "type": family, "param": param, "code": code}}


def refusal(place: Sequence[str | int], words: str, status: int = 422) -> ApiError:
    """What pydantic found wrong with something of a caller's, as an error that names its place.

    place: the fields and indexes that lead to it; none for the whole. words: pydantic's own. What
    the caller chose in either of them, a field's name or a value, is cut where it is long.
    """
    param = ".".join(shown(str(part)) for part in place) or None
    # pydantic wraps what a validator raised; its own words are the clear ones.
    message = shown(words.removeprefix("Value error, "), _SHOWN_WORDS)
    text = f"{param}: {message}" if param else message
    return ApiError(status, "invalid_request", text, param=param)


def shown(text: str, most: int = _SHOWN_NAME) -> str:
    """A caller's own text as an error repeats it: at most so many characters of it."""
    return text if len(text) <= most else text[: most - 1] + "…"


class ErrorFields(BaseModel):
    """What was wrong: in words, its family, the field at fault if one is, a word for programs."""

    message: str
    type: str
    param: str | None
    code: str


class ErrorAnswer(BaseModel):
    """The body of every answer that is not a success."""

    error: ErrorFields


# Of an app or a route: how the OpenAPI document describes every status that is not a success.
ERRORS: dict[int | str, dict[str, Any]] = {
    "default": {"model": ErrorAnswer, "description": "What was wrong, where, and what to do"}
}


class StartupError(Exception):
    """A service can't start: one sentence that says why and what to do about it.

    The process prints it on one line and exits with `EXIT_CONFIG`, so that a supervisor knows that
    starting it again will not help.
    """


EXIT_CONFIG = 78  # EX_CONFIG of sysexits.h
