"""The names that a request may name as its model."""

from typing import Literal

from services.generate.protocol.base import Own


class ModelCard(Own):
    """A name that `model` may have."""

    id: str
    object: Literal["model"] = "model"
    created: int = 0
    owned_by: str = "refdesk"


class ModelList(Own):
    """All of them."""

    object: Literal["list"] = "list"
    data: list[ModelCard]
