"""What a call to the desk can fail with. Every one of them is a `DeskError`."""


class DeskError(Exception):
    """A call that came to nothing; the message says why, and what to do."""


class UnreachableError(DeskError):
    """Nobody answers at the address, the connection broke, or what answers is no desk."""


class RefusedError(DeskError):
    """The desk answered with an error.

    status: the HTTP status. code: a stable word for programs (docs/concepts/errors.md lists them).
    param: the field at fault, if one is. request_id: what the desk's log calls this request.
    """

    def __init__(
        self, message: str, status: int, code: str, param: str | None, request_id: str | None
    ) -> None:
        super().__init__(message)
        self.message = message
        self.status = status
        self.code = code
        self.param = param
        self.request_id = request_id

    def __str__(self) -> str:
        told = f"{self.message} ({self.status} {self.code}"
        return f"{told}, request {self.request_id})" if self.request_id else f"{told})"

    def __reduce__(self) -> tuple[type["RefusedError"], tuple[object, ...]]:
        """For pickle, which would call it with the message alone."""
        return type(self), (self.message, self.status, self.code, self.param, self.request_id)


class InvalidRequestError(RefusedError):
    """The request is wrong; `param` names the field at fault."""


class AuthenticationError(RefusedError):
    """The API key is missing or unknown."""


class ForbiddenError(RefusedError):
    """The API key may not do this."""


class NotFoundError(RefusedError):
    """There is no such corpus or document, or the API key may not read it."""


class ConflictError(RefusedError):
    """It contradicts what is there, as a corpus of the same name with other settings."""


class BusyError(RefusedError):
    """The desk, or a service that it needs, has no room or is away, after all tries."""


class OutOfTimeError(RefusedError):
    """The call's time ran out; status 504. code: `deadline_exceeded` as a rule."""


class ServerError(RefusedError):
    """The fault is on the desk's side: its log has more under the request's id."""


_BY_STATUS: dict[int, type[RefusedError]] = {
    401: AuthenticationError,
    403: ForbiddenError,
    404: NotFoundError,
    409: ConflictError,
    429: BusyError,
    503: BusyError,
    504: OutOfTimeError,
}


def error_class(status: int) -> type[RefusedError]:
    """The class of the error that an answer of this status is."""
    return _BY_STATUS.get(status, InvalidRequestError if status < 500 else ServerError)
