"""The bodies of Amazon Bedrock's Retrieve. Source: the service model that boto3 carries.

What is not here (guardrails, a reranking model, images) is refused: to leave it out in silence
would be another answer than the one that was asked for.
"""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from services.retrieve.stores.base import JsonScalar
from services.retrieve.surfaces.asked import Asked, JsonObject


class _Asked(Asked):
    model_config = ConfigDict(extra="forbid")


class RetrievalQuery(_Asked):
    """The question."""

    text: str
    type: Literal["TEXT"] = "TEXT"


class VectorSearchConfiguration(_Asked):
    """numberOfResults: on a page. overrideSearchType: `SEMANTIC` leaves the search of words out.

    filter: Bedrock's grammar; see `services.retrieve.surfaces.bedrock.wire_filter`.
    """

    numberOfResults: Annotated[int, Field(strict=True, ge=1, le=100)] = 5
    overrideSearchType: Literal["HYBRID", "SEMANTIC"] = "HYBRID"
    filter: JsonObject | None = None


class RetrievalConfiguration(_Asked):
    """How to search."""

    vectorSearchConfiguration: VectorSearchConfiguration = VectorSearchConfiguration()


class KnowledgeBaseRequest(_Asked):
    """A question to a knowledge base. nextToken: of the answer before, for its next page."""

    retrievalQuery: RetrievalQuery
    retrievalConfiguration: RetrievalConfiguration = RetrievalConfiguration()
    nextToken: Annotated[str, Field(max_length=2048)] | None = None


class Content(BaseModel):
    """A passage's text."""

    type: Literal["TEXT"] = "TEXT"
    text: str


class RetrievalResult(BaseModel):
    """A passage. location: `WEB` or `S3` by its document's address, else `CUSTOM` by its id."""

    content: Content
    documentId: str
    location: dict[str, Any]
    metadata: dict[str, JsonScalar | list[str]]
    score: float


class KnowledgeBaseAnswer(BaseModel):
    """A page of passages, best first. nextToken: absent on the last page."""

    retrievalResults: list[RetrievalResult]
    nextToken: str | None = None


class AwsErrorAnswer(BaseModel):
    """The body of every answer that is not a success. code: the name of AWS's exception."""

    message: str
    code: str
