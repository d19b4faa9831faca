"""Dify's external knowledge API: a corpus is a knowledge base of Dify's.

Source: https://docs.dify.ai/en/use-dify/knowledge/external-knowledge-api
"""

from typing import Annotated, Any, Literal

from fastapi import FastAPI
from pydantic import BaseModel, BeforeValidator, Field

from services.retrieve.desk import Desk
from services.retrieve.protocol import Hit
from services.retrieve.stores.base import JsonScalar
from services.retrieve.stores.filters import MAX_COMPARISONS
from services.retrieve.surfaces.ask import Words, ask
from services.retrieve.surfaces.asked import Asked
from shared.context import current
from shared.envelope import ErrorShape
from shared.errors import ApiError

_PLACES = {
    "corpora": "knowledge_id",
    "top_k": "retrieval_setting.top_k",
    "min_score": "retrieval_setting.score_threshold",
    "filter": "metadata_condition",
}

# Dify's comparisons that filters here have, and those of them that count or compare dates.
_OPS = {
    "is": "eq",
    "is not": "ne",
    "in": "in",
    "not in": "nin",
    "=": "eq",
    "≠": "ne",
    ">": "gt",
    "<": "lt",
    "≥": "gte",
    "≤": "lte",
    "before": "lt",
    "after": "gt",
}
_OF_NUMBERS = frozenset({"=", "≠", ">", "<", "≥", "≤", "before", "after"})
_NEGATIVE = frozenset({"ne", "nin"})
_WORDS = Words(
    _PLACES,
    {
        "eq": "is",
        "ne": "is not",
        "in": "in",
        "nin": "not in",
        "gt": ">` or `after",
        "gte": "≥",
        "lt": "<` or `before",
        "lte": "≤",
    },
)
_CONDITIONS = "metadata_condition.conditions"
_MAX_NAMES = 64  # of one condition


def _names(value: object) -> object:
    """One message for whatever is wrong: a union would give one for each of its members."""
    names = value if isinstance(value, list) else [value]
    if not 1 <= len(names) <= _MAX_NAMES or not all(isinstance(name, str) for name in names):
        raise ValueError(f"must be a text, or a list of 1 to {_MAX_NAMES} of them")
    return names


class RetrievalSetting(Asked):
    """top_k: records, at most. score_threshold: least score of a record."""

    top_k: Annotated[int, Field(ge=1, le=1000)] = 5
    score_threshold: Annotated[float, Field(ge=0, le=1)] | None = None


class Condition(Asked):
    """One comparison of a document's metadata; of several names, one has to hold it."""

    name: Annotated[
        list[str],
        BeforeValidator(_names, json_schema_input_type=str | list[str]),
    ]
    comparison_operator: Annotated[str, Field(max_length=64)]
    value: Any = None


class MetadataCondition(Asked):
    """Comparisons, all or one of which must hold."""

    logical_operator: Literal["and", "or"] | None = None
    conditions: Annotated[list[Condition], Field(max_length=256)] | None = None


class RetrievalRequest(Asked):
    """A question of Dify's. Fields that Dify may add are ignored."""

    knowledge_id: Annotated[str, Field(max_length=256)]
    query: str
    retrieval_setting: RetrievalSetting = RetrievalSetting()
    metadata_condition: MetadataCondition | None = None


class Record(BaseModel):
    """A passage. metadata: the document's, with `document_id` and, where there is one, `url`."""

    content: str
    score: float
    title: str
    metadata: dict[str, JsonScalar | list[str]]


class RetrievalAnswer(BaseModel):
    """The passages that answer, best first."""

    records: list[Record]


class DifyErrorAnswer(BaseModel):
    """The body of every answer that is not a success."""

    error_code: int
    error_msg: str


DIFY_ERRORS: dict[int | str, dict[str, Any]] = {
    "default": {"model": DifyErrorAnswer, "description": "What was wrong, where, and what to do"}
}


def dify_error_body(error: ApiError, _: object = None) -> dict[str, Any]:
    """Dify's error: 1001 and 1002 for the key, 2001 for the corpus, else the HTTP status."""
    number = error.status
    if error.code == "bad_key":
        sent = current().authorization or ""
        number = 1002 if sent.lower().startswith("bearer ") else 1001
    elif error.code in ("forbidden_service", "forbidden_host"):
        number = 1002
    elif error.code == "corpus_not_found":
        number = 2001
    return {"error_code": number, "error_msg": error.message}


ERROR_SHAPES: dict[str, ErrorShape] = {
    "/retrieval": dify_error_body,
    "/retrieval/*": dify_error_body,
}


def add_dify_routes(app: FastAPI, desk: Desk) -> None:
    """Add Dify's route to the app of retrieve."""

    @app.post("/retrieval", responses=DIFY_ERRORS)
    async def retrieval(body: RetrievalRequest) -> RetrievalAnswer:
        """The passages of one corpus that answer a question, in the form of Dify."""
        filter_, places = _filter(body.metadata_condition)
        fields = {
            "query": body.query,
            "corpora": [body.knowledge_id],
            "top_k": body.retrieval_setting.top_k,
            "min_score": body.retrieval_setting.score_threshold or None,  # 0 is how Dify says none
            "filter": filter_,
        }
        found = await ask(desk, fields, _WORDS.at(places))
        return RetrievalAnswer(records=[_record(hit) for hit in found.hits])


def _filter(
    condition: MetadataCondition | None,
) -> tuple[dict[str, Any] | None, dict[str, str]]:
    """The desk's filter for Dify's, and where its parts came from.

    Raises ApiError 422 for a comparison that the desk has not, and for too many.
    """
    if condition is None or not condition.conditions:
        return None, {}
    comparisons = sum(len(one.name) for one in condition.conditions)
    if comparisons > MAX_COMPARISONS:
        message = (
            f"{_CONDITIONS}: hold {comparisons} comparisons, one for each name, and at most "
            f"{MAX_COMPARISONS} are taken: put values of one name into one `in`"
        )
        raise ApiError(422, "bad_filter", message, param=_CONDITIONS)
    parts = [_comparison(one, place) for place, one in enumerate(condition.conditions)]
    places: dict[str, str] = {}
    for number, one in enumerate(condition.conditions):
        theirs, ours = f"{_CONDITIONS}.{number}", f"filter.filters.{number}"
        places |= {ours: theirs, f"{ours}.key": f"{theirs}.name"}
        for name in range(len(one.name)):
            part = f"{ours}.filters.{name}"
            places |= {part: theirs, f"{part}.key": f"{theirs}.name.{name}"}
    return {"type": condition.logical_operator or "and", "filters": parts}, places


def _comparison(condition: Condition, place: int) -> dict[str, Any]:
    word = condition.comparison_operator.strip()
    op = _OPS.get(word)
    if op is None:
        at = f"{_CONDITIONS}.{place}.comparison_operator"
        message = (
            f"{at}: '{word[:40]}' can't be used here: filters compare whole values; use one of "
            f"{', '.join(_OPS)} (`is` also finds one element of a list)"
        )
        raise ApiError(422, "bad_filter", message, param=at)
    value = _number(condition.value) if word in _OF_NUMBERS else condition.value
    parts = [{"type": op, "key": name, "value": value} for name in condition.name]
    if len(parts) == 1:
        return parts[0]
    # "is not" holds of several names where it holds of each.
    return {"type": "and" if op in _NEGATIVE else "or", "filters": parts}


def _number(value: Any) -> Any:
    """The number that a text holds, because Dify's forms send numbers as texts; else as it is."""
    if not isinstance(value, str):
        return value
    for read in (int, float):
        try:
            return read(value)
        except ValueError:
            continue
    return value


def _record(hit: Hit) -> Record:
    where = {"document_id": hit.document_id} | ({"url": hit.url} if hit.url else {})
    return Record(
        content=hit.text,
        score=hit.score,
        title=hit.title or hit.document_id,
        metadata={**hit.metadata, **where},
    )
