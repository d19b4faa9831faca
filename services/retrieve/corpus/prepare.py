"""From a source to chunks ready for the embedder: what of an ingest is computed, and nothing else.

Pure and synchronous, on values that can be pickled: it runs in this process or in a worker process
(parsing/workers.py) alike.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from services.retrieve.corpus.chunk import CHUNKERS, TokenCounter, chunk, embedder_input
from services.retrieve.corpus.parsing.file import parse_file
from services.retrieve.corpus.parsing.formats import format_of
from services.retrieve.corpus.parsing.parse import Parsed, parse
from services.retrieve.corpus.source import Given, Source, SourceFile, hash_of
from services.retrieve.stores.base import DocumentFormat, Metadata, NewChunk, Vector
from services.retrieve.stores.corpus import CorpusInfo, ModelStamp
from services.retrieve.stores.outline import Outline
from services.retrieve.stores.sparse_vector import Sparse
from shared.errors import ApiError

# Formats of files that are no text themselves: a text sent as one of them was taken from it.
_OF_FILES: frozenset[DocumentFormat] = frozenset({"pdf", "docx", "pptx", "xlsx", "eml"})


@dataclass(frozen=True)
class Recipe:
    """What of a corpus decides how its documents are cut and embedded: while it stays the same,
    what was prepared for one generation fits the next one, too."""

    corpus: str
    stamp: ModelStamp
    chunker: str
    chunk_tokens: int
    chunk_overlap: int
    sparse: bool


def recipe_of(info: CorpusInfo) -> Recipe:
    """The recipe of a corpus. Raises ApiError 409 `chunker_mismatch` for a chunker that this
    refdesk does not have."""
    if info.chunker not in CHUNKERS:
        raise ApiError(
            409,
            "chunker_mismatch",
            f"corpus '{info.name}' was cut by {info.chunker}, which this refdesk does not have "
            f"(it has {', '.join(sorted(CHUNKERS))}): reindex the corpus",
        )
    return Recipe(
        info.name, info.stamp, info.chunker, info.chunk_tokens, info.chunk_overlap, info.sparse
    )


@dataclass(frozen=True)
class Task:
    """One document to prepare. param: what errors call its content."""

    source: Source
    recipe: Recipe
    param: str


@dataclass(frozen=True)
class WorkerTask:
    """The same for a worker process. tokenizer: the file of the corpus's tokenizer.json."""

    task: Task
    tokenizer: Path


@dataclass(frozen=True, eq=False)
class Prepared:
    """A document that is ready but for its vectors: `inputs` is what the embedder gets for each of
    its chunks. With vectors of its own it is wholly ready."""

    id: str
    content_hash: str
    title: str | None
    url: str | None
    format: DocumentFormat
    metadata: Metadata
    readers: tuple[str, ...] | None
    text: str
    outline: Outline
    chunks: list[NewChunk]
    inputs: list[str]
    vectors: Vector | None = None
    sparse: Sequence[Sparse] | None = None


def prepare_in_worker(work: WorkerTask) -> Prepared:
    """As `prepare`."""
    return prepare(work.task, token_counter(work.tokenizer))


def prepare(task: Task, counter: TokenCounter) -> Prepared:
    """Parse and chunk a document. Raises ApiError naming `task.param`: what parsing raises, and for
    chunks that were given 409 `model_mismatch` and 422 `bad_chunks`, `bad_vector`."""
    source, recipe = task.source, task.recipe
    given: Given | None = None
    if isinstance(source, SourceFile):
        parsed = parse_file(source.name, source.data, source.format, source.title, param=task.param)
        form = source.format or format_of(source.name, source.data) or "text"
    else:
        given, form = source.given, source.format
        read_as = "text" if given or form in _OF_FILES else form
        parsed = parse(source.text, read_as, source.title, param=task.param)
        if given is not None:
            parsed = Parsed(source.text, parsed.title, ())  # as it is: the offsets refer to it
    if given is None:
        chunks = chunk(
            parsed.text,
            parsed.title,
            parsed.outline,
            counter,
            recipe.chunk_tokens,
            recipe.chunk_overlap,
            recipe.chunker,
        )
    else:
        _require_fit(given, recipe, task.param)
        chunks = _given_chunks(given, parsed.text, counter, task.param)
    return Prepared(
        id=source.id,
        content_hash=hash_of(source),
        title=parsed.title,
        url=source.url,
        format=form,
        metadata=source.metadata,
        readers=source.readers,
        text=parsed.text,
        outline=parsed.outline,
        chunks=chunks,
        inputs=[embedder_input(parsed.title, one, counter, recipe.chunk_tokens) for one in chunks],
        vectors=None if given is None else given.vectors,
        sparse=None if given is None else given.sparse,
    )


@lru_cache(4)
def token_counter(tokenizer: Path) -> TokenCounter:
    """The counter of a tokenizer.json; kept, as a worker process is asked again and again."""
    return TokenCounter(tokenizer.read_bytes())


def _require_fit(given: Given, recipe: Recipe, param: str) -> None:
    """Raise ApiError where vectors are not of the corpus's space."""
    if given.stamp != recipe.stamp:
        sent, own = given.stamp, recipe.stamp
        raise ApiError(
            409,
            "model_mismatch",
            f"{param}: its vectors were made with {sent.model} {sent.revision} ({sent.dimension} "
            f"dimensions), and corpus '{recipe.corpus}' has those of {own.model} {own.revision} "
            f"({own.dimension}): send it without chunks, and it is embedded here",
            param=param,
        )
    if recipe.sparse and given.sparse is None:
        raise ApiError(
            422,
            "bad_vector",
            f"{param}: corpus '{recipe.corpus}' has sparse vectors, too: send them with every "
            "chunk, or send the document without chunks",
            param=param,
        )


def _given_chunks(given: Given, text: str, counter: TokenCounter, param: str) -> list[NewChunk]:
    """The chunks at the given places. Raises ApiError 422 for places that are not in the text."""
    chunks: list[NewChunk] = []
    for place, (start, end) in enumerate(given.spans):
        if not start < end <= len(text) or not text[start:end].strip():
            raise ApiError(
                422,
                "bad_chunks",
                f"{param}: chunk {place} is from {start} to {end}, where the text, of {len(text)} "
                "characters, has nothing to read",
                param=param,
            )
        part = text[start:end]
        chunks.append(NewChunk(part, start, end, counter.count(part)))
    return chunks
