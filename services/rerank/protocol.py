"""Request and response bodies of rerank, as the clients of Cohere and Jina know them."""

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, field_validator

MAX_DOCUMENTS = 1000
MAX_CHARACTERS = 1_000_000


class RerankRequest(BaseModel):
    """A query and the documents to judge. Fields of foreign clients that mean nothing are ignored.

    documents: texts, or objects with a `text`. top_n: answer with the best ones only; without it
    every document is answered. return_documents: repeat each text beside its score.
    """

    model_config = ConfigDict(extra="ignore")

    query: str = Field(min_length=1, max_length=MAX_CHARACTERS)
    documents: list[Annotated[str, Field(max_length=MAX_CHARACTERS)]] = Field(
        min_length=1, max_length=MAX_DOCUMENTS
    )
    model: str | None = Field(None, max_length=256)
    top_n: int | None = Field(None, ge=1)
    return_documents: bool = False

    @field_validator("query")
    @classmethod
    def _has_words(cls, value: str) -> str:
        if not value.strip():
            raise ValueError("the query is blank")
        return value

    @field_validator("documents", mode="before")
    @classmethod
    def _texts(cls, value: Any) -> Any:
        """The text of each document that came as an object."""
        if not isinstance(value, list):
            return value
        return [one["text"] if isinstance(one, dict) and "text" in one else one for one in value]


class DocumentText(BaseModel):
    """A document's text, where it was asked for."""

    text: str


class RerankResult(BaseModel):
    """One document's place: its index in the request and its relevance, 0..1."""

    index: int
    relevance_score: float
    document: DocumentText | None = None


class Usage(BaseModel):
    """Tokens of query and documents, as the model reads them."""

    total_tokens: int


class RerankResponse(BaseModel):
    """Results, best first, equal scores by index. `meta` is what Cohere's clients read."""

    id: str
    model: str
    results: list[RerankResult]
    usage: Usage
    meta: dict[str, dict[str, str | int]]
