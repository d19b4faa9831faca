"""How a corpus, or its next generation, is to be made: as was asked, and checked before it is."""

from dataclasses import replace

from services.retrieve.corpus.chunk import CHUNKER, check_chunker
from services.retrieve.corpus.embedding import Librarian
from services.retrieve.stores.analysis import analyser
from services.retrieve.stores.corpus import CorpusSpec, ModelStamp
from services.retrieve.stores.engine import Cut
from shared.errors import ApiError


async def made_as(
    spec: CorpusSpec,
    librarian: Librarian,
    *,
    embedder: str = "",
    dimension: int | None = None,
    chunker: str = CHUNKER,
    unless: ModelStamp | None = None,
) -> Cut:
    """How a corpus of these settings is made.

    embedder: a model that embed serves, "" for its default one. dimension: so many of the first
    numbers of its vectors, None for all. unless: the stamp of a corpus that is made anew, which
    keeps its dimension where the model stays, whatever its revision, as far as its vectors reach.
    It has sparse vectors where the model makes them.

    Raises ApiError 404 `unknown_model`, 422 `chunk_too_long`, `too_many_dimensions`,
    `unknown_chunker` and `unknown_language`, and what embed's errors are.
    """
    check_chunker(chunker, param="chunker")
    analyser(spec.language)  # raises for one that there is not
    served = await librarian.served(embedder)
    stamp = served.stamp
    if spec.chunk_tokens > served.max_tokens:
        raise ApiError(
            422,
            "chunk_too_long",
            f"chunk_tokens is {spec.chunk_tokens}, and {stamp.model} reads at most "
            f"{served.max_tokens} tokens: ask for {served.max_tokens} or fewer",
            param="chunk_tokens",
        )
    if dimension is None and unless is not None and unless.model == stamp.model:
        dimension = min(unless.dimension, stamp.dimension)
    if dimension is not None and dimension > stamp.dimension:
        raise ApiError(
            422,
            "too_many_dimensions",
            f"dimension is {dimension}, and {stamp.model} makes {stamp.dimension} numbers: ask for "
            f"{stamp.dimension} or fewer",
            param="dimension",
        )
    return Cut(spec, replace(stamp, dimension=dimension or stamp.dimension), chunker, served.sparse)
