"""OpenAI's vector stores: a corpus is a vector store, a document one of its files."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Annotated, Any, Literal
from urllib.parse import unquote_to_bytes

from fastapi import FastAPI, Path, Query
from fastapi.routing import APIRoute
from starlette.routing import Match
from starlette.types import Scope

from services.retrieve.desk import Desk
from services.retrieve.protocol import Hit, RetrieveResponse
from services.retrieve.stores.base import DocumentSummary, JsonScalar, StoredDocument
from services.retrieve.stores.corpus import CorpusInfo
from services.retrieve.surfaces.ask import Words, ask
from services.retrieve.surfaces.openai_protocol import (
    FileContentPage,
    FileCounts,
    SearchPage,
    SearchRequest,
    SearchResult,
    TextPart,
    VectorStore,
    VectorStoreFile,
    VectorStoreFileList,
    VectorStoreList,
)
from shared.errors import ApiError
from shared.together import together

StoreId = Annotated[str, Path(max_length=256)]
FileId = Annotated[str, Path(max_length=512)]
Limit = Annotated[int, Query(ge=1, le=100)]
Cursor = Annotated[str | None, Query(max_length=512)]

_WORDS = Words(
    {
        "filter": "filters",
        "top_k": "max_num_results",
        "min_score": "ranking_options.score_threshold",
        "corpora": "vector_store_id",
    },
    invalid=400,
)


class _ContentRoute(APIRoute):
    """The route of a file's content, which is not that of a file whose id ends in `/content`.

    The slashes of an id are %2F where the client encodes them, as the official one does. The
    router sees no difference; the path as it was sent has it.
    """

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        """Whether the last part of the path itself, and not of an id, is `content`."""
        sent: bytes = scope.get("raw_path") or scope["path"].encode()
        if unquote_to_bytes(sent.rpartition(b"/")[2]) != b"content":
            return Match.NONE, {}
        return super().matches(scope)


def add_openai_routes(app: FastAPI, desk: Desk) -> None:
    """Add OpenAI's routes of vector stores, those that read, to the app of retrieve."""

    @app.get("/v1/vector_stores")
    async def list_vector_stores(
        limit: Limit = 20,
        order: Literal["asc", "desc"] = "desc",
        after: Cursor = None,
        before: Cursor = None,
    ) -> VectorStoreList:
        """The corpora that the caller may read, by when they were made, the youngest first."""
        stores = sorted(desk.corpora(), key=lambda info: (info.created_at, info.name))
        if order == "desc":
            stores.reverse()
        names = [info.name for info in stores]
        first = 0 if after is None else _place(names, after, "after") + 1
        end = len(names) if before is None else _place(names, before, "before")
        shown = [_vector_store(info) for info in stores[first:end]]
        page = shown[:limit] if before is None else shown[-limit:]
        return VectorStoreList(
            data=page,
            first_id=page[0].id if page else None,
            last_id=page[-1].id if page else None,
            has_more=len(shown) > limit,
        )

    @app.get("/v1/vector_stores/{vector_store_id}")
    async def get_vector_store(vector_store_id: StoreId) -> VectorStore:
        """A corpus."""
        return _vector_store(desk.corpus(vector_store_id))

    @app.post("/v1/vector_stores/{vector_store_id}/search")
    async def search_vector_store(vector_store_id: StoreId, body: SearchRequest) -> SearchPage:
        """The passages that answer a query, or several of them, best first."""
        options = body.ranking_options
        fields = {
            "corpora": [vector_store_id],
            "filter": body.filters,
            "top_k": body.max_num_results,
            "min_score": options and options.score_threshold,
            "curate": False if options and options.ranker == "none" else None,
        }
        several = len(body.query) > 1
        found = await together(
            ask(
                desk,
                fields | {"query": query},
                _WORDS.at({"query": f"query.{place}"}) if several else _WORDS,
            )
            for place, query in enumerate(body.query)
        )
        return SearchPage(
            search_query=[one.searched.query for one in found],
            data=[_result(hit) for hit in best_of(found, body.max_num_results)],
        )

    @app.get("/v1/vector_stores/{vector_store_id}/files")
    async def list_files(
        vector_store_id: StoreId,
        limit: Limit = 20,
        after: Cursor = None,
        status: Annotated[
            Literal["in_progress", "completed", "failed", "cancelled"] | None,
            Query(alias="filter"),
        ] = None,
        order: str | None = None,
        before: str | None = None,
    ) -> VectorStoreFileList:
        """A page of a corpus's documents in the order of their ids; order and before are refused,
        as there is no other order than that."""
        for name, value in (("order", order), ("before", before)):
            if value is not None:
                message = f"{name}: can't be used here: files come in the order of their ids only"
                raise ApiError(400, "invalid_request", message, param=name)
        found = await desk.documents(vector_store_id, limit + 1, after)
        files = [_file(vector_store_id, document) for document in found[:limit]]
        if status not in (None, "completed"):  # what is not completed is not there
            files = []
        return VectorStoreFileList(
            data=files,
            first_id=files[0].id if files else None,
            last_id=files[-1].id if files else None,
            has_more=bool(files) and len(found) > limit,
        )

    async def get_file_content(vector_store_id: StoreId, file_id: FileId) -> FileContentPage:
        """A document's whole text, as parsed."""
        found = await desk.document(vector_store_id, file_id)
        return FileContentPage(data=[TextPart(text=found.text)])

    # Before the route of a file, which would take `/content` for the end of the file's id.
    app.router.add_api_route(
        "/v1/vector_stores/{vector_store_id}/files/{file_id:path}/content",
        get_file_content,
        methods=["GET"],
        route_class_override=_ContentRoute,
    )

    @app.get("/v1/vector_stores/{vector_store_id}/files/{file_id:path}")
    async def get_file(vector_store_id: StoreId, file_id: FileId) -> VectorStoreFile:
        """A document, without its text."""
        found = await desk.document(vector_store_id, file_id)
        return _file(vector_store_id, found)


def best_of(answers: Sequence[RetrieveResponse], most: int) -> list[Hit]:
    """The best hits of several searches of one corpus, each passage once, with its best score.

    Ties are broken by the passage's id.
    """
    best: dict[str, Hit] = {}
    for answer in answers:
        for hit in answer.hits:
            if hit.id not in best or hit.score > best[hit.id].score:
                best[hit.id] = hit
    if len(answers) == 1:  # in the order of the search, whose ties are already broken
        return list(best.values())
    return sorted(best.values(), key=lambda hit: (-hit.score, hit.id))[:most]


def _place(names: Sequence[str], cursor: str, param: str) -> int:
    try:
        return names.index(cursor)
    except ValueError:
        message = f"{param}: there is no vector store '{cursor}'; send an id of an earlier page"
        raise ApiError(400, "invalid_request", message, param=param) from None


def _seconds(moment: datetime) -> int:
    return int(moment.timestamp())


def _vector_store(info: CorpusInfo) -> VectorStore:
    return VectorStore(
        id=info.name,
        name=info.name,
        description=info.description,
        created_at=_seconds(info.created_at),
        file_counts=FileCounts(completed=info.documents, total=info.documents),
        metadata={"language": info.language, "model": info.model},
    )


def _file(corpus: str, document: DocumentSummary | StoredDocument) -> VectorStoreFile:
    whole = document if isinstance(document, StoredDocument) else None
    return VectorStoreFile(
        id=document.id,
        vector_store_id=corpus,
        created_at=_seconds(document.updated_at),
        usage_bytes=len(whole.text.encode()) if whole else 0,
        attributes=_attributes(whole.metadata) if whole else None,
    )


def _result(hit: Hit) -> SearchResult:
    return SearchResult(
        file_id=hit.document_id,
        filename=hit.title or hit.document_id,
        score=hit.score,
        attributes=_attributes(hit.metadata),
        content=[TextPart(text=hit.text)],
    )


def _attributes(metadata: Mapping[str, Any]) -> dict[str, JsonScalar]:
    """Metadata in OpenAI's types, which have no lists: a list becomes one text."""
    return {
        key: ", ".join(value) if isinstance(value, list) else value
        for key, value in metadata.items()
    }
