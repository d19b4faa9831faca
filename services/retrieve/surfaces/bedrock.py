"""Amazon Bedrock's Retrieve: a corpus is a knowledge base."""

import base64
import binascii
import hashlib
import json
from collections.abc import Mapping
from typing import Annotated, Any

from fastapi import FastAPI, Path

from services.retrieve.desk import Desk
from services.retrieve.protocol import Hit
from services.retrieve.stores.filters import MAX_COMPARISONS, MAX_DEPTH, parse_filter
from services.retrieve.surfaces.ask import Words, ask
from services.retrieve.surfaces.bedrock_protocol import (
    AwsErrorAnswer,
    Content,
    KnowledgeBaseAnswer,
    KnowledgeBaseRequest,
    RetrievalResult,
)
from shared.envelope import ErrorShape
from shared.errors import ApiError

_MOST = 1000  # passages on all pages of a search together
_FILTER = "retrievalConfiguration.vectorSearchConfiguration.filter"
_PLACES = {
    "query": "retrievalQuery.text",
    "corpora": "knowledgeBaseId",
    "top_k": "retrievalConfiguration.vectorSearchConfiguration.numberOfResults",
    "filter": _FILTER,
}
_COMPARISONS = {
    "equals": "eq",
    "notEquals": "ne",
    "greaterThan": "gt",
    "greaterThanOrEquals": "gte",
    "lessThan": "lt",
    "lessThanOrEquals": "lte",
    "in": "in",
    "notIn": "nin",
    "listContains": "eq",  # which here holds of a list where it holds of one element
}
_JUNCTIONS = {"andAll": "and", "orAll": "or"}
_WORDS = Words(_PLACES, {ours: word for word, ours in reversed(_COMPARISONS.items())})
_EXCEPTIONS = {
    401: "AccessDeniedException",
    403: "AccessDeniedException",
    404: "ResourceNotFoundException",
    409: "ConflictException",
    429: "ThrottlingException",
    502: "BadGatewayException",
    503: "DependencyFailedException",
    504: "DependencyFailedException",
}

AWS_ERRORS: dict[int | str, dict[str, Any]] = {
    "default": {"model": AwsErrorAnswer, "description": "What was wrong, where, and what to do"}
}


def aws_error_body(error: ApiError, _: object = None) -> dict[str, Any]:
    """The body that AWS's clients read an exception from."""
    other = "ValidationException" if error.status < 500 else "InternalServerException"
    return {"message": error.message, "code": _EXCEPTIONS.get(error.status, other)}


ERROR_SHAPES: dict[str, ErrorShape] = {"/knowledgebases/*": aws_error_body}


def add_bedrock_routes(app: FastAPI, desk: Desk) -> None:
    """Add Bedrock's route to the app of retrieve."""

    # An id may be an ARN with slashes in it.
    @app.post(
        "/knowledgebases/{knowledgeBaseId:path}/retrieve",
        responses=AWS_ERRORS,
        response_model_exclude_none=True,
    )
    async def retrieve_from_knowledge_base(
        knowledge_base_id: Annotated[str, Path(alias="knowledgeBaseId", max_length=2048)],
        body: KnowledgeBaseRequest,
    ) -> KnowledgeBaseAnswer:
        """The passages of one corpus that answer a question, in the form of Amazon Bedrock."""
        wanted = body.retrievalConfiguration.vectorSearchConfiguration
        corpus = _corpus(knowledge_base_id)
        filter_, places = wire_filter(wanted.filter) if wanted.filter else (None, {})
        words = _WORDS.at(places)
        try:  # first: what is nested too deep can't be digested, either
            parse_filter(filter_)
        except ApiError as error:
            raise words.of(error) from None
        asked = _digest(corpus, body)
        start = 0 if body.nextToken is None else _offset(body.nextToken, asked)
        end = min(start + wanted.numberOfResults, _MOST)
        fields = {
            "query": body.retrievalQuery.text,
            "corpora": [corpus],
            "top_k": min(end + 1, _MOST),  # one more, to know whether there is another page
            "candidates": _MOST,  # the same for every page: with others the order is another one
            "filter": filter_,
            "arms": ["dense"] if wanted.overrideSearchType == "SEMANTIC" else None,
        }
        found = await ask(desk, fields, words)
        return KnowledgeBaseAnswer(
            retrievalResults=[_result(hit) for hit in found.hits[start:end]],
            nextToken=_token(end, asked) if len(found.hits) > end else None,
        )


def wire_filter(body: object) -> tuple[dict[str, Any], dict[str, str]]:
    """The desk's filter for Bedrock's, and where each of its parts came from.

    Raises ApiError 422 `bad_filter` for what the desk has no equal of (`startsWith`,
    `stringContains`), and for what is no filter; its values are for the desk to judge.
    """
    places: dict[str, str] = {}
    left = iter(range(MAX_COMPARISONS))  # refused here, before hundreds of thousands are built

    def wired(body: object, at: str, ours: str, depth: int) -> dict[str, Any]:
        if depth > MAX_DEPTH:
            raise _bad(at, f"is nested over {MAX_DEPTH} deep: write it flatter")
        if not isinstance(body, Mapping) or len(body) != 1:
            raise _bad(at, 'must be an object of one comparison, such as {"equals": {...}}')
        [(word, value)] = body.items()
        at = f"{at}.{str(word)[:40]}"
        places[ours] = at
        if word in _JUNCTIONS:
            if not isinstance(value, list) or not value:
                raise _bad(at, "must be a list of at least one filter")
            parts = [
                wired(one, f"{at}.{n}", f"{ours}.filters.{n}", depth + 1)
                for n, one in enumerate(value)
            ]
            return {"type": _JUNCTIONS[word], "filters": parts}
        if word not in _COMPARISONS:
            known = ", ".join([*_COMPARISONS, *_JUNCTIONS])
            raise _bad(at, f"can't be used here: filters compare whole values; use one of {known}")
        if not isinstance(value, Mapping) or set(value) != {"key", "value"}:
            raise _bad(at, 'must be an object {"key": ..., "value": ...}')
        if next(left, None) is None:
            message = f"holds more than {MAX_COMPARISONS} comparisons: put values of one key into"
            raise _bad(_FILTER, f"{message} one `in`")
        return {"type": _COMPARISONS[word], "key": value["key"], "value": value["value"]}

    return wired(body, _FILTER, "filter", 1), places


def _bad(at: str, what: str) -> ApiError:
    return ApiError(422, "bad_filter", f"{at}: {what}", param=at)


def _corpus(knowledge_base_id: str) -> str:
    """The corpus's name: the id, or what follows the last slash.

    AWS's clients refuse an id of under ten characters; `knowledge-base/NAME` is long enough.
    """
    return knowledge_base_id.rpartition("/")[2]


def _digest(corpus: str, body: KnowledgeBaseRequest) -> str:
    """What a page's token holds of the question, so that it is no token of another one."""
    asked = f"{corpus}/{body.model_dump_json(exclude={'nextToken'})}"
    return hashlib.sha256(asked.encode("utf-8", "surrogatepass")).hexdigest()[:16]


def _token(offset: int, asked: str) -> str:
    return base64.urlsafe_b64encode(json.dumps([offset, asked]).encode()).decode()


def _offset(token: str, asked: str) -> int:
    try:
        offset, of = json.loads(base64.urlsafe_b64decode(token))
    except (ValueError, TypeError, binascii.Error, RecursionError):
        offset, of = None, None
    if type(offset) is not int or not 0 <= offset < _MOST or of != asked:
        message = "nextToken: is not one of this question; send it as it came, all else unchanged"
        raise ApiError(422, "invalid_request", message, param="nextToken")
    return offset


def _result(hit: Hit) -> RetrievalResult:
    return RetrievalResult(
        content=Content(text=hit.text),
        documentId=hit.document_id,
        location=_location(hit),
        metadata={
            **hit.metadata,
            **({"x-amz-bedrock-kb-source-uri": hit.url} if hit.url else {}),
            "x-amz-bedrock-kb-chunk-id": hit.id,
        },
        score=hit.score,
    )


def _location(hit: Hit) -> dict[str, Any]:
    if hit.url and hit.url.lower().startswith(("http://", "https://")):
        return {"type": "WEB", "webLocation": {"url": hit.url}}
    if hit.url and hit.url.lower().startswith("s3://"):
        return {"type": "S3", "s3Location": {"uri": hit.url}}
    return {"type": "CUSTOM", "customDocumentLocation": {"id": hit.document_id}}
