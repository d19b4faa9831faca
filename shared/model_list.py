"""OpenAI's list of models, ``GET /v1/models``, as every service with models has it."""

from typing import Literal

from pydantic import BaseModel


class Model(BaseModel):
    """A model in the list. created: Unix seconds; unknown here, and 0."""

    id: str
    object: Literal["model"] = "model"
    created: int = 0
    owned_by: str = "refdesk"


class ModelList(BaseModel):
    """The models that a request can name."""

    object: Literal["list"] = "list"
    data: list[Model]
