"""What a reindex would take, told from a sample."""

import asyncio
import time
from dataclasses import dataclass

from services.retrieve.corpus.reindex.copying import Copier
from services.retrieve.corpus.reindex.gates import sample_of
from services.retrieve.corpus.reindex.protocol import Estimate, Made
from services.retrieve.corpus.reindex.target import planned
from services.retrieve.stores.base import CorpusStore
from services.retrieve.stores.corpus import EngineName
from services.retrieve.stores.engine import Cut

_SAMPLE = 64  # documents
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
    """Make a sample of documents as they would be, and scale what that took; nothing is kept.

    Raises what `Copier.make` does.
    """
    info = live.info
    sample = await asyncio.to_thread(sample_of, live, _SAMPLE)
    found = list((await asyncio.to_thread(live.whole, [one.id for one in sample])).values())
    start = time.monotonic()
    made, copied = await copier.make(found)
    took = time.monotonic() - start
    scale = info.documents / max(1, len(made))
    characters = sum(len(one.text) for one in found) * scale
    return Estimate(
        now=made_as(Cut.of(info), info.engine),
        then=made_as(cut, engine),
        documents=info.documents,
        sampled=len(made),
        chunks=round(copied.chunks * scale),
        reused=copied.reused / copied.chunks if copied.chunks else 1.0,
        seconds=round(took * scale, 1),
        bytes=_Size(characters, copied.chunks * scale, planned(info, cut).dimension).bytes,
    )


def made_as(cut: Cut, engine: EngineName) -> Made:
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
