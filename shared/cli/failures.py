"""What can go wrong in a command, each with the sentence that its user reads."""


class CliError(Exception):
    """An expected failure: one sentence that says what was wrong and what to do. Exit code 1."""


class UnreachableError(CliError):
    """Nobody answers at a service's address."""


class BrokenOffError(CliError):
    """A service's answer did not come, or not whole: whether it did what was asked is not known."""


class RefusedError(CliError):
    """A service answered with an error; the message is its own.

    status: the HTTP status. code, param: the error's stable word and the field at fault, if any.
    """

    def __init__(self, message: str, status: int, code: str, param: str | None) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.param = param
