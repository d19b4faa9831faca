"""The desk as a retriever of LangChain. Needs the extra `langchain`."""

from functools import cached_property
from typing import Any

from pydantic import Field, SecretStr

from shared.desk.client import AsyncClient, Client
from shared.desk.models import Hit, Retrieved

try:
    from langchain_core.callbacks import (
        AsyncCallbackManagerForRetrieverRun,
        CallbackManagerForRetrieverRun,
    )
    from langchain_core.documents import Document
    from langchain_core.retrievers import BaseRetriever
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        "the LangChain retriever needs langchain-core: pip install 'refdesk[langchain]'"
    ) from error


class DeskRetriever(BaseRetriever):
    """Passages of the desk as LangChain documents.

    url: of the service retrieve. options: further arguments of `Client.retrieve`, such as
    ``{"curate": False}``; the keyword arguments of a call go before them. A document's metadata
    holds the document's own, and over it `corpus`, `document_id`, `title`, `url`, `source`, `score`
    and `rank`.
    """

    corpora: list[str]
    url: str = "http://127.0.0.1:8003"
    api_key: SecretStr | None = None
    top_k: int = 5
    timeout_s: float = 60
    options: dict[str, Any] = Field(default_factory=dict)

    @cached_property
    def _client(self) -> Client:
        return Client(self.url, api_key=self._key, timeout_s=self.timeout_s)

    @cached_property
    def _async_client(self) -> AsyncClient:
        return AsyncClient(self.url, api_key=self._key, timeout_s=self.timeout_s)

    @property
    def _key(self) -> str | None:
        return self.api_key.get_secret_value() if self.api_key else None

    def _get_relevant_documents(
        self,
        query: str,
        *,
        run_manager: CallbackManagerForRetrieverRun,  # noqa: ARG002 - the framework's signature
        **options: Any,
    ) -> list[Document]:
        return _documents(self._client.retrieve(query, self.corpora, **self._with(options)))

    async def _aget_relevant_documents(
        self,
        query: str,
        *,
        run_manager: AsyncCallbackManagerForRetrieverRun,  # noqa: ARG002 - as above
        **options: Any,
    ) -> list[Document]:
        found = await self._async_client.retrieve(query, self.corpora, **self._with(options))
        return _documents(found)

    def _with(self, options: dict[str, Any]) -> dict[str, Any]:
        return {"top_k": self.top_k, **self.options, **options}


def _documents(found: Retrieved) -> list[Document]:
    return [
        Document(id=f"{hit.corpus}/{hit.id}", page_content=hit.text, metadata=_metadata(hit))
        for hit in found.hits
    ]


def _metadata(hit: Hit) -> dict[str, Any]:
    return {
        **hit.metadata,
        "corpus": hit.corpus,
        "document_id": hit.document_id,
        "title": hit.title,
        "url": hit.url,
        "source": hit.url or hit.document_id,
        "score": hit.score,
        "rank": hit.rank,
    }
