"""The desk as a retriever of LangChain. Needs the extra `langchain`."""

from functools import cached_property
from typing import Any

from pydantic import ConfigDict, Field, SecretStr

from shared.desk.client import Pair
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
        "the LangChain retriever needs langchain-core: pip install -e '.[langchain]'"
    ) from error


class DeskRetriever(BaseRetriever):
    """Passages of the desk as LangChain documents.

    corpora: one name or several. url: of the service retrieve. options: further arguments of
    `Client.retrieve`, such as ``{"curate": False}``; the keyword arguments of a call go before
    them, and they before `top_k`. A document's metadata holds the document's own, and over it
    `corpus`, `document_id`, `title`, `url`, `source`, `score` and `rank`.
    """

    model_config = ConfigDict(extra="forbid")  # or a mistyped argument would be left out

    corpora: str | list[str]
    url: str = "http://127.0.0.1:8003"
    api_key: SecretStr | None = None
    top_k: int = 5
    timeout_s: float = 60
    options: dict[str, Any] = Field(default_factory=dict)

    @cached_property
    def _desk(self) -> Pair:
        key = self.api_key.get_secret_value() if self.api_key else None
        return Pair(self.url, api_key=key, timeout_s=self.timeout_s)

    def close(self) -> None:
        """Close the connections."""
        self._desk.close()

    def _get_relevant_documents(
        self,
        query: str,
        *,
        run_manager: CallbackManagerForRetrieverRun,  # noqa: ARG002 - the framework's signature
        **options: Any,
    ) -> list[Document]:
        return _documents(self._desk.plain.retrieve(query, self.corpora, **self._with(options)))

    async def _aget_relevant_documents(
        self,
        query: str,
        *,
        run_manager: AsyncCallbackManagerForRetrieverRun,  # noqa: ARG002 - as above
        **options: Any,
    ) -> list[Document]:
        found = await self._desk.asyncio.retrieve(query, self.corpora, **self._with(options))
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
        **hit.all_metadata,
        "source": hit.url or hit.document_id,
        "score": hit.score,
        "rank": hit.rank,
    }
