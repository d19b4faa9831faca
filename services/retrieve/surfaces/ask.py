"""What all surfaces share: a question to the desk, and errors in the words of the surface."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from pydantic import ValidationError

from services.retrieve.desk import Desk
from services.retrieve.protocol import RetrieveRequest, RetrieveResponse
from services.retrieve.surfaces.degraded import note
from shared.errors import ApiError, refusal

_CANDIDATES: int = RetrieveRequest.model_fields["candidates"].default
# Where the desk's errors name its comparisons: "for gt", "use eq", "`in` and `nin`".
_COMPARISON = re.compile(r"\b(for|use) (eq|ne|gte?|lte?|n?in)\b|`(n?in)`")


@dataclass(frozen=True)
class Words:
    """How a surface says what the desk says.

    places: by field of RetrieveRequest, or by a place in its filter, where in the surface's own
    body the value came from. comparisons: by the desk's names of them; the others are called the
    same. invalid: the status of an answer to a body that can't be worked with.
    """

    places: Mapping[str, str]
    comparisons: Mapping[str, str] = field(default_factory=dict)
    invalid: int = 422

    def at(self, places: Mapping[str, str]) -> "Words":
        """The same words, with more places."""
        return replace(self, places={**self.places, **places})

    def of(self, error: ApiError) -> ApiError:
        """The same error in these words."""
        status = self.invalid if error.status == 422 else error.status
        param, message = error.param, error.message
        if param is not None:
            said = message.removeprefix(f"{param}:")
            place = self._place(param)
            message = f"{place}:{self._compared(said)}" if said != message else message
            param = place
        return ApiError(status, error.code, message, param=param, headers=error.headers)

    def _place(self, param: str) -> str:
        # A surface names one corpus, where the desk has a list of them.
        if param == "corpora.0" and "corpora" in self.places:
            param = "corpora"
        known = [one for one in self.places if param == one or param.startswith(f"{one}.")]
        nearest = max(known, key=len, default="")
        return self.places[nearest] + param.removeprefix(nearest) if nearest else param

    def _compared(self, message: str) -> str:
        def theirs(found: re.Match[str]) -> str:
            name = found[2] or found[3]
            word = f"`{self.comparisons[name]}`"
            return f"{found[1]} {word}" if found[1] else word

        if not self.comparisons:
            return message
        ours, shown, value = message.partition(", and is ")  # the caller's value stays as it is
        return _COMPARISON.sub(theirs, ours) + shown + value


async def ask(desk: Desk, fields: Mapping[str, Any], words: Words) -> RetrieveResponse:
    """The desk's answer to a RetrieveRequest of these fields; what it went without is noted.

    Each arm finds as many candidates as there are to be hits, if the fields don't say how many.
    Raises ApiError as `Desk.retrieve` does, and for fields that are out of range.
    """
    # Here, as the request's own words tell of `messages`, which no surface has.
    if not fields["query"].strip():
        message = "query: is blank: there is nothing in it to work with"
        raise words.of(ApiError(422, "invalid_request", message, param="query"))
    candidates = max(_CANDIDATES, fields["top_k"])
    try:
        request = RetrieveRequest.model_validate({"candidates": candidates, **fields})
    except ValidationError as error:
        fault = error.errors(include_input=False, include_url=False)[0]
        raise words.of(refusal(fault["loc"], fault["msg"])) from None
    try:
        found = await desk.retrieve(request)
    except ApiError as error:
        raise words.of(error) from None
    note(list(found.degraded))
    return found
