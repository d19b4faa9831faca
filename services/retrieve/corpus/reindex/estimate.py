"""What a reindex would take, told from a sample."""

import asyncio
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass

from services.retrieve.corpus.reindex.copying import Copier, to_embed
from services.retrieve.corpus.reindex.gates import sample_of
from services.retrieve.corpus.reindex.protocol import Estimate, Made
from services.retrieve.corpus.reindex.target import planned
from services.retrieve.stores.base import CorpusStore, NewDocument
from services.retrieve.stores.corpus import EngineName
from services.retrieve.stores.engine import Cut

_SAMPLE = 64  # documents, of so many characters in all (or one that is longer)
_CHARACTERS = 500_000
_TRIED = 128  # texts that embed gets
_CHUNK_BYTES = 200  # of a chunk beside its text and vectors: keys, places, checksums
_TEXTS = 3.0  # a text is kept with its document and with its chunk, and its words in their index


@dataclass(frozen=True)
class _Size:
    """Of a corpus with so many characters and chunks."""

    characters: float
    chunks: float
    dimension: int

    @property
    def bytes(self) -> int:
        return round(self.characters * _TEXTS + self.chunks * (self.dimension * 4 + _CHUNK_BYTES))


async def estimate(live: CorpusStore, cut: Cut, engine: EngineName, copier: Copier) -> Estimate:
    """Cut a sample of documents as they would be, embed some of their chunks, and scale what that
    took; nothing is kept.

    Raises what `Copier.make` does.
    """
    info = live.info
    found = await asyncio.to_thread(_sample, live)
    await copier.pieces(found[:1])  # what has to be started for it is started once
    start = time.monotonic()
    pieces = await copier.pieces(found)
    took = time.monotonic() - start
    texts = to_embed(pieces)
    took += await _seconds_to_embed(texts, copier)
    scale = info.documents / max(1, len(found))
    characters = sum(len(one.text) for one in found) * scale
    chunks = sum(len(one.chunks) for one in pieces)
    return Estimate(
        now=told_of(Cut.of(info), info.engine),
        then=told_of(cut, engine),
        documents=info.documents,
        sampled=len(found),
        chunks=round(chunks * scale),
        reused=1 - len(texts) / chunks if chunks else 1.0,
        seconds=round(took * scale, 1),
        bytes=_Size(characters, chunks * scale, planned(info, cut).dimension).bytes,
    )


def _sample(live: CorpusStore) -> list[NewDocument]:
    chosen = sample_of(live, _SAMPLE)
    random.Random(0).shuffle(chosen)  # noqa: S311 - no secret
    found: list[NewDocument] = []
    for one in chosen:
        if sum(len(other.text) for other in found) < _CHARACTERS:
            found += live.whole([one.id]).values()
    return found


async def _seconds_to_embed(texts: Sequence[str], copier: Copier) -> float:
    """At the rate at which some of them are, once the model is loaded."""
    tried = texts[:: -(-len(texts) // _TRIED)] if texts else []
    if not tried:
        return 0.0
    await copier.embed(tried[:1], copier.will)
    start = time.monotonic()
    await copier.embed(tried, copier.will)
    return (time.monotonic() - start) * len(texts) / len(tried)


def told_of(cut: Cut, engine: EngineName) -> Made:
    """How a generation is made, as it goes over the wire."""
    return Made(
        model=cut.stamp.model,
        revision=cut.stamp.revision,
        dimension=cut.stamp.dimension,
        chunker=cut.chunker,
        chunk_tokens=cut.spec.chunk_tokens,
        chunk_overlap=cut.spec.chunk_overlap,
        language=cut.spec.language,
        sparse=cut.sparse,
        engine=engine,
    )
