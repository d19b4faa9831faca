"""Routing features as they are kept in an audit record, and back. Pure functions."""

import math
from collections.abc import Mapping
from typing import Any

from pydantic import TypeAdapter, ValidationError

from services.generate.routing.features import RoutingFeatures

_FEATURES = TypeAdapter(RoutingFeatures)


def kept(features: RoutingFeatures) -> dict[str, Any]:
    """All of them as JSON but the question's text, which a record keeps in its own form."""
    plain: dict[str, Any] = _FEATURES.dump_python(features, mode="json", exclude={"text"})
    if math.isinf(features.remaining_ms):  # which is no number of JSON, and the default
        del plain["remaining_ms"]
    return plain


def restored(plain: Mapping[str, Any], text: str) -> RoutingFeatures:
    """The features that were kept. Raises ValueError for what is none."""
    try:
        return _FEATURES.validate_python({**plain, "text": text})
    except ValidationError as error:
        raise ValueError(str(error)) from None
