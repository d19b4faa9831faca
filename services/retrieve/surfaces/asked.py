"""What the bodies of all surfaces share: what is null is not there, and a word for what is no
object."""

from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, model_validator
from pydantic_core import PydanticCustomError


def an_object(value: Any) -> dict[str, Any]:
    """The value, if it is a JSON object."""
    if not isinstance(value, dict):
        raise PydanticCustomError("no_object", "must be a JSON object")
    return value


JsonObject = Annotated[dict[str, Any], BeforeValidator(an_object)]


class Asked(BaseModel):
    """A body, or an object in one. A field that is null is one that is absent, as the clients of
    these APIs mean it."""

    model_config = ConfigDict(extra="ignore", allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _without_nulls(cls, body: Any) -> Any:
        return {key: value for key, value in an_object(body).items() if value is not None}
