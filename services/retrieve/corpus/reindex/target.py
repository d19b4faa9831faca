"""How the next generation of a corpus is to be made."""

from dataclasses import replace

from services.retrieve.corpus.embedding import Librarian
from services.retrieve.corpus.making import made_as
from services.retrieve.corpus.reindex.protocol import ReindexRequest
from services.retrieve.stores.analysis import ANALYSER
from services.retrieve.stores.corpus import CorpusInfo, Preferences
from services.retrieve.stores.engine import Cut

_MADE_OTHERWISE = (
    "embedder",
    "dimension",
    "language",
    "chunk_tokens",
    "chunk_overlap",
    "chunker",
)


def moves_only(info: CorpusInfo, request: ReindexRequest) -> bool:
    """Whether a corpus is to go to another engine as it is."""
    moves = request.engine not in (None, info.engine)
    return moves and all(getattr(request, name) is None for name in _MADE_OTHERWISE)


async def target(info: CorpusInfo, request: ReindexRequest, librarian: Librarian) -> Cut:
    """How a corpus shall be made, as asked.

    Raises ApiError as `made_as`.
    """
    now = Cut.of(info)
    if moves_only(info, request):
        return replace(now, analyser=ANALYSER)
    overlap = request.chunk_overlap
    spec = replace(
        now.spec,
        language=request.language or info.language,
        chunk_tokens=request.chunk_tokens or info.chunk_tokens,
        chunk_overlap=info.chunk_overlap if overlap is None else overlap,
    )
    # A model that embed serves under the same name may have another revision by now: that is a
    # reason to reindex, too.
    return await made_as(
        spec,
        librarian,
        embedder=info.model if request.embedder is None else request.embedder,
        dimension=request.dimension,
        chunker=request.chunker or info.chunker,
        unless=info.stamp,
    )


def same_made(one: Cut, other: Cut) -> bool:
    """Whether two generations are made alike, whatever their corpus prefers."""
    return _plain(one) == _plain(other)


def _plain(cut: Cut) -> Cut:
    spec = replace(cut.spec, description="", curate=None, recency=None, readers=None)
    return replace(cut, spec=spec)


def planned(info: CorpusInfo, cut: Cut) -> CorpusInfo:
    """A corpus as it will be once it is made like that."""
    return replace(
        info,
        language=cut.spec.language,
        model=cut.stamp.model,
        revision=cut.stamp.revision,
        dimension=cut.stamp.dimension,
        chunk_tokens=cut.spec.chunk_tokens,
        chunk_overlap=cut.spec.chunk_overlap,
        chunker=cut.chunker,
        sparse=cut.sparse,
        analyser=cut.analyser,
    )


def preferences_of(info: CorpusInfo) -> Preferences:
    """What of a corpus may change at any time."""
    return Preferences(info.description, info.curate, info.recency, info.readers)
