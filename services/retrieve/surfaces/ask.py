"""What all surfaces share: a question to the desk, and errors in the words of the surface."""

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from services.retrieve.desk import Desk
from services.retrieve.protocol import RetrieveRequest, RetrieveResponse
from shared.errors import ApiError


async def ask(
    desk: Desk, fields: Mapping[str, Any], places: Mapping[str, str], *, invalid: int = 422
) -> RetrieveResponse:
    """The desk's answer to a RetrieveRequest of these fields.

    places: where in the surface's own body the value of a field came from, so that errors name
    what the caller sent. invalid: the status of an answer to a body that can't be worked with.
    Raises ApiError as `Desk.retrieve` does, and for fields that are out of range.
    """
    try:
        request = RetrieveRequest.model_validate(fields)
    except ValidationError as error:
        raise in_words_of(refusal(error), places, invalid) from None
    try:
        return await desk.retrieve(request)
    except ApiError as error:
        raise in_words_of(error, places, invalid) from None


def refusal(error: ValidationError) -> ApiError:
    """The first fault that pydantic found, as an error that names its place."""
    fault = error.errors(include_input=False, include_url=False)[0]
    param = ".".join(str(part) for part in fault["loc"]) or None
    # pydantic wraps what a validator raised; its own words are the clear ones.
    message = fault["msg"].removeprefix("Value error, ")
    text = f"{param}: {message}" if param else message
    return ApiError(422, "invalid_request", text, param=param)


def in_words_of(error: ApiError, places: Mapping[str, str], invalid: int = 422) -> ApiError:
    """The same error, with the surface's name of the place at fault."""
    param, message = error.param, error.message
    # A surface names one corpus, where the desk has a list of them.
    if param == "corpora.0" and "corpora" in places:
        param = "corpora"
    for field, place in places.items():
        if param is not None and (param == field or param.startswith(f"{field}.")):
            renamed = place + param.removeprefix(field)
            if message.startswith(f"{param}:"):
                message = renamed + message.removeprefix(param)
            param = renamed
            break
    status = invalid if error.status == 422 else error.status
    return ApiError(status, error.code, message, param=param, headers=error.headers)
