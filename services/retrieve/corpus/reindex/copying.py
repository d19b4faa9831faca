"""Documents of one generation, made anew for another: cut, embedded where they must be."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from services.retrieve.corpus.preparation import Preparation
from services.retrieve.corpus.prepare import Recipe
from services.retrieve.corpus.reindex.recut import (
    Body,
    Piece,
    Recut,
    recut,
    same_cut,
    same_vectors,
)
from services.retrieve.corpus.vectors import Embed
from services.retrieve.stores.base import NewDocument
from services.retrieve.stores.corpus import CorpusInfo
from shared.together import together

# Texts that are cut in one piece of work of a worker process, together at most.
_CHARACTERS = 500_000
_SECONDS = 300.0  # for one piece of work


@dataclass(frozen=True)
class Copied:
    """What was made: documents and chunks, and how many of these kept their vectors; bytes of the
    documents' texts as UTF-8."""

    documents: int = 0
    chunks: int = 0
    reused: int = 0
    bytes: int = 0

    def __add__(self, other: "Copied") -> "Copied":
        return Copied(
            self.documents + other.documents,
            self.chunks + other.chunks,
            self.reused + other.reused,
            self.bytes + other.bytes,
        )


@dataclass(frozen=True)
class Copier:
    """Makes documents for a generation `will` of those of a generation `was`."""

    was: CorpusInfo
    will: CorpusInfo
    embed: Embed
    preparation: Preparation

    async def make(self, found: Sequence[NewDocument]) -> tuple[list[NewDocument], Copied]:
        """The documents as the next generation is to have them. Raises what embed's errors are, and
        ApiError 422 where one of them can't be cut."""
        pieces = await self.pieces(found)
        fresh = await self.embed(to_embed(pieces), self.will)
        made, at, reused = [], 0, 0
        for document, piece in zip(found, pieces, strict=True):
            vectors = np.empty((len(piece.chunks), self.will.dimension), np.float32)
            sparse = []
            for number, kept in enumerate(piece.reused):
                vectors[number] = fresh.dense[at] if kept is None else document.vectors[kept]
                if self.will.sparse:
                    words = fresh.sparse if kept is None else document.sparse
                    assert words is not None  # noqa: S101 - those that have none are not reused
                    sparse.append(words[at if kept is None else kept])
                at += kept is None
                reused += kept is not None
            made.append(
                replace(
                    document,
                    chunks=piece.chunks,
                    vectors=vectors,
                    sparse=sparse if self.will.sparse else None,
                )
            )
        chunks = sum(len(document.chunks) for document in made)
        size = sum(len(document.text.encode()) for document in made)
        return made, Copied(len(made), chunks, reused, size)

    async def pieces(self, found: Sequence[NewDocument]) -> list[Piece]:
        """The documents as they are cut; `make` says what that raises."""
        was, will = _recipe(self.was), _recipe(self.will)
        if same_cut(was, will) and same_vectors(was, will):
            # Neither a tokenizer nor embed is needed: they are as they are to be.
            return [
                Piece(one.chunks, [""] * len(one.chunks), range(len(one.chunks))) for one in found
            ]
        file = await self.preparation.tokenizer_file(self.will)
        parts = await together(
            self.preparation.computed(
                recut,
                Recut([_body(one) for one in part], was, will, file),
                seconds=_SECONDS,
                param=f"document '{part[0].id}', or one after it,",
            )
            for part in _parts(found)
        )
        return [piece for part in parts for piece in part]


def to_embed(pieces: Sequence[Piece]) -> list[str]:
    """What embed is to get: the inputs of the chunks for which no vector is there."""
    return [
        text
        for piece in pieces
        for text, kept in zip(piece.inputs, piece.reused, strict=True)
        if kept is None
    ]


def _parts(found: Sequence[NewDocument]) -> Iterator[list[NewDocument]]:
    part: list[NewDocument] = []
    size = 0
    for one in found:
        if part and size + len(one.text) > _CHARACTERS:
            yield part
            part, size = [], 0
        part.append(one)
        size += len(one.text)
    if part:
        yield part


def _body(document: NewDocument) -> Body:
    return Body(document.text, document.title, document.outline, document.chunks)


def _recipe(info: CorpusInfo) -> Recipe:
    """As `recipe_of`, also of a chunker that is no more."""
    return Recipe(
        info.name, info.stamp, info.chunker, info.chunk_tokens, info.chunk_overlap, info.sparse
    )
