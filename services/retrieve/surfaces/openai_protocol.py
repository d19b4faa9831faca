"""OpenAI's bodies of vector stores. Source: its API reference, `/vector_stores`."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, Field

from services.retrieve.stores.base import JsonScalar
from services.retrieve.surfaces.asked import Asked, JsonObject

MAX_QUERIES = 16

Flag = Annotated[bool, Field(strict=True)]


def _as_list(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


# A text or several, as a list.
Queries = Annotated[
    list[str],
    Field(min_length=1, max_length=MAX_QUERIES),
    BeforeValidator(
        _as_list,
        json_schema_input_type=str
        | Annotated[list[str], Field(min_length=1, max_length=MAX_QUERIES)],
    ),
]


class RankingOptions(Asked):
    """ranker: `none` leaves the curator out, any other name is the corpus's own way.

    score_threshold: least score of a result.
    """

    ranker: Annotated[str, Field(max_length=256)] = "auto"
    score_threshold: Annotated[float, Field(ge=0, le=1)] | None = None


class SearchRequest(Asked):
    """What to search for. Fields of OpenAI's that mean nothing here are ignored.

    rewrite_query: accepted; `search_query` in the answer says what was searched for.
    """

    query: Queries
    filters: JsonObject | None = None
    max_num_results: Annotated[int, Field(strict=True, ge=1, le=50)] = 10
    ranking_options: RankingOptions | None = None
    rewrite_query: Flag | None = None


class TextPart(BaseModel):
    """A piece of text."""

    type: Literal["text"] = "text"
    text: str


class SearchResult(BaseModel):
    """A passage. file_id: its document. attributes: the document's metadata."""

    file_id: str
    filename: str
    score: float
    attributes: dict[str, JsonScalar]
    content: list[TextPart]


class SearchPage(BaseModel):
    """The passages that answer, best first; all of them, so that there is never a next page."""

    object: Literal["vector_store.search_results.page"] = "vector_store.search_results.page"
    search_query: list[str]
    data: list[SearchResult]
    has_more: bool = False
    next_page: str | None = None


class FileCounts(BaseModel):
    """Documents by what became of them; those of a corpus are all completed."""

    in_progress: int = 0
    completed: int
    failed: int = 0
    cancelled: int = 0
    total: int


class VectorStore(BaseModel):
    """A corpus. usage_bytes is not counted. created_at, last_active_at: seconds since 1970."""

    id: str
    object: Literal["vector_store"] = "vector_store"
    created_at: int
    name: str
    description: str
    usage_bytes: int = 0
    file_counts: FileCounts
    status: Literal["completed"] = "completed"
    expires_after: None = None
    expires_at: None = None
    last_active_at: int | None = None
    metadata: dict[str, str]


class VectorStoreList(BaseModel):
    """A page of vector stores."""

    object: Literal["list"] = "list"
    data: list[VectorStore]
    first_id: str | None
    last_id: str | None
    has_more: bool


class VectorStoreFile(BaseModel):
    """A document. created_at: when it was last written, seconds since 1970.

    usage_bytes, attributes: known where one document is asked for; in a list 0 and null.
    """

    id: str
    object: Literal["vector_store.file"] = "vector_store.file"
    usage_bytes: int = 0
    created_at: int
    vector_store_id: str
    status: Literal["completed"] = "completed"
    last_error: None = None
    attributes: dict[str, JsonScalar] | None = None


class VectorStoreFileList(BaseModel):
    """A page of documents in the order of their ids."""

    object: Literal["list"] = "list"
    data: list[VectorStoreFile]
    first_id: str | None
    last_id: str | None
    has_more: bool


class FileContentPage(BaseModel):
    """The whole text of a document, as parsed."""

    object: Literal["vector_store.file_content.page"] = "vector_store.file_content.page"
    data: list[TextPart]
    has_more: bool = False
    next_page: str | None = None
