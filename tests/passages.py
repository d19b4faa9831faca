"""Chunks and passages made up for tests of what comes after the ranking."""

from datetime import UTC, datetime

from services.retrieve.search.candidates import ChunkKey
from services.retrieve.search.curate import Ranked
from services.retrieve.search.fusion import Fused
from services.retrieve.search.pack import Passage
from services.retrieve.stores.base import ChunkRecord


def chunk(
    number: int,
    text: str = "text",
    *,
    document: str = "d",
    start: int = 0,
    tokens: int = 10,
    key: int | None = None,
) -> ChunkRecord:
    """Chunk `number` of a document; its key is its number where none is given."""
    return ChunkRecord(
        key=number if key is None else key,
        id=f"{document}#{number}",
        document_id=document,
        title=None,
        url=None,
        text=text,
        tokens=tokens,
        start=start,
        end=start + len(text),
        number=number,
        count=100,
        metadata={},
        updated_at=datetime(2026, 1, 1, tzinfo=UTC),
    )


def found(record: ChunkRecord, score: float = 0.5, corpus: str = "c") -> Passage:
    """A chunk as a ranked passage."""
    key = ChunkKey(corpus, record.key)
    return Passage(Ranked(key, score, Fused(key, score, {}), 1, None), record)


def passage(
    number: int,
    score: float = 0.5,
    tokens: int = 10,
    document: str | None = None,
    text: str = "text",
    corpus: str = "c",
) -> Passage:
    """A ranked passage of a document of its own, where none is given."""
    record = chunk(number, text, document=document or f"d{number}", tokens=tokens)
    return found(record, score, corpus)
