"""What the shapes on the wire of the writers rest on."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from shared.errors import ApiError


class Foreign(BaseModel):
    """What foreign clients send: unknown fields are ignored. As JSON has values: 1 is no true, and
    "1" no number."""

    model_config = ConfigDict(extra="ignore", frozen=True, strict=True)


class Own(BaseModel):
    """What is ours alone, in and out: unknown fields are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


# The longest draft that a request may ask for, in tokens. More is a mistake; the service's own
# limit is lower and needs no error, since clients send what suits other models.
DraftTokens = Annotated[int, Field(ge=1, le=1_000_000)]


def bad(param: str, message: str) -> ApiError:
    """The error 400 of a body whose `param` can't be taken."""
    return ApiError(400, "invalid_request", f"{param}: {message}", param=param)
