"""Ingest into a real corpus, with an embed over real HTTP that can be told to misbehave."""

import base64
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from fastapi import FastAPI, Request, Response

from services.retrieve.corpus.catalog import Catalog
from services.retrieve.corpus.embedding import Librarian
from services.retrieve.corpus.ingest import Entry, Ingest, Refused
from services.retrieve.corpus.source import SourceDocument
from services.retrieve.stores.corpus import CorpusSpec, ModelStamp
from shared.client import ServiceClient
from shared.settings import Settings
from tests.corpora import STAMP, vector_of
from tests.suite import serving


@dataclass
class Embed:
    """A server that speaks embed's HTTP, with vectors of its own; `spoil` makes it misbehave."""

    tokenizer: bytes
    stamp: ModelStamp = STAMP
    spoil: Callable[[dict[str, Any]], Any] = lambda answer: answer
    inputs: list[list[str]] = field(default_factory=list)

    def app(self) -> FastAPI:
        """The HTTP side."""
        app = FastAPI()

        @app.get("/info")
        def info() -> dict[str, Any]:
            stamp = self.stamp
            return {
                "model": stamp.model,
                "revision": stamp.revision,
                "dimension": stamp.dimension,
                "max_tokens": 256,
            }

        @app.get("/v1/models/{model}/tokenizer")
        def tokenizer(model: str) -> Response:
            assert model == self.stamp.model
            return Response(self.tokenizer, media_type="application/json")

        @app.post("/v1/embeddings")
        async def embeddings(request: Request) -> Any:
            body = await request.json()
            assert body["encoding_format"] == "base64"
            if body["input_type"] == "document":
                self.inputs.append(body["input"])
            data = [
                {"index": place, "embedding": encoded(vector_of(text))}
                for place, text in enumerate(body["input"])
            ]
            return self.spoil({"object": "list", "data": data, "model": body["model"]})

        return app


def encoded(vector: Any) -> str:
    """Base64 of little-endian float32."""
    return base64.b64encode(np.asarray(vector, "<f4").tobytes()).decode()


@dataclass
class Desk:
    """An ingest into corpus "c" with that server."""

    ingest: Ingest
    catalog: Catalog
    embed: Embed
    librarian: Librarian

    async def write(
        self, *documents: SourceDocument, atomic: bool = False
    ) -> list[tuple[str, str]]:
        """Write and give (id, status) of each, an error's code for one that was refused."""
        result = await self.ingest.write("c", entries(*documents), atomic=atomic)
        return [
            (one.id, one.error.code if isinstance(one, Refused) else one.status)
            for one in result.results
        ]


def entries(*documents: SourceDocument) -> list[Entry]:
    """The documents as those of a request."""
    return [Entry(one, f"documents.{place}.text") for place, one in enumerate(documents)]


@asynccontextmanager
async def open_desk(
    folder: Path, embed: Embed, overlap: int = 32, tokens: int = 256
) -> AsyncIterator[Desk]:
    """A desk with a corpus "c", which is made where there is none."""
    catalog = Catalog.open(folder / "corpora")
    async with serving(embed.app()) as url:
        client = ServiceClient("embed", url, settings=Settings())
        librarian = Librarian(client)
        ingest = Ingest(catalog, librarian)
        await ingest.create(CorpusSpec("c", chunk_tokens=tokens, chunk_overlap=overlap))
        yield Desk(ingest, catalog, embed, librarian)
        await client.close()
    catalog.close()
