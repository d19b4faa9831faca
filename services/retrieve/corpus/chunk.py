"""Chunks of a document that the embedder takes whole.

A chunker finds the borders, the corpus's own tokenizer measures, and what is measured is what is
sent: the title line, the text and the special tokens together.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol

from services.retrieve.corpus.chunking.counter import (
    CHARACTERS_PER_TOKEN,
    Span,
    TokenCounter,
    floor_of,
)
from services.retrieve.corpus.chunking.places import places
from services.retrieve.corpus.chunking.prose import cut_prose, pieces, stripped
from services.retrieve.corpus.chunking.structure import cut_structure
from services.retrieve.stores.base import NewChunk
from services.retrieve.stores.outline import Outline
from shared.errors import ApiError

__all__ = [
    "CHUNKER",
    "CHUNKERS",
    "TokenCounter",
    "check_chunker",
    "chunk",
    "embedder_input",
    "title_line",
]

TITLE_TOKENS = 32

_CACHED_TITLES = 10_000


class Passage(Protocol):
    """A chunk, whether it is to be written or was stored."""

    @property
    def text(self) -> str:
        """A span of the document's text."""


@dataclass(frozen=True)
class _Task:
    """A text to be cut. limit: of the embedder's input."""

    text: str
    title: str | None
    outline: Outline
    counter: TokenCounter
    limit: int
    overlap: int


def _measured_by(task: _Task, count: Callable[[str], int]) -> Callable[[str], int]:
    """What the title line and a text cost by `count`, or anything above the limit."""
    line, room = title_line(task.title, task.counter, task.limit), _room(task)
    # The cheap test first: what is far too long need not be tokenized to be known as such.
    return lambda part: floor_of(len(part)) if floor_of(len(part)) > room else count(line + part)


def _room(task: _Task) -> int:
    return task.limit - task.counter.special_tokens


def _by_semchunk(task: _Task) -> list[Span]:
    exact = _measured_by(task, task.counter.count)
    estimate = _measured_by(task, task.counter.estimate)
    rest = (_room(task), task.overlap, task.counter)
    spans = cut_prose(task.text, estimate, *rest)
    if any(exact(task.text[a:b]) > _room(task) for a, b in spans):
        spans = cut_prose(task.text, exact, *rest)
    return spans


def _by_structure(task: _Task) -> list[Span]:
    counter, room = task.counter, _room(task)
    left = room - counter.count(title_line(task.title, counter, task.limit))
    spans = cut_structure(task.text, task.outline, counter, left, task.overlap)
    if counter.counts_by_words(task.text):
        return spans  # what was measured is exact
    exact = _measured_by(task, counter.count)
    found: list[Span] = []
    reached, broken = 0, False
    for start, end in spans:
        # What is cut again shares nothing with its neighbours, whose pieces could change places.
        if broken or exact(task.text[start:end]) > room:
            start, _ = stripped(task.text, max(start, reached), end)
        broken = exact(task.text[start:end]) > room
        if broken:
            cut = pieces(task.text[start:end], exact, room)
            found += [(start + a, start + b) for a, b in cut]
        else:
            found.append((start, end))
        reached = end
    return found


# The ways to cut, by the name in a corpus's stamp: a new name wherever the same text and outline
# would be cut or embedded otherwise. Those of old corpora stay, so that they can be written to.
CHUNKERS: Mapping[str, Callable[[_Task], list[Span]]] = {
    "semchunk-1": _by_semchunk,
    "structure-1": _by_structure,
}
CHUNKER = "structure-1"


def check_chunker(name: str, *, param: str) -> str:
    """The name itself. Raises ApiError 422 `unknown_chunker`, naming `param`, unless there is one
    of that name."""
    if name not in CHUNKERS:
        message = f"there is no chunker '{name}': there are {', '.join(sorted(CHUNKERS))}"
        raise ApiError(422, "unknown_chunker", message, param=param)
    return name


def chunk(
    text: str,
    title: str | None,
    outline: Outline,
    counter: TokenCounter,
    limit: int,
    overlap: int,
    chunker: str = CHUNKER,
) -> list[NewChunk]:
    """Cut a parsed text into chunks of at most `limit` tokens as the embedder sees them.

    `limit` (at least 32) counts `title_line`, text and special tokens. A chunk is a span of `text`
    without white space around it; every other character is in at least one chunk. Neighbours share
    up to `overlap` tokens (at most a quarter of `limit`), beginning with a sentence or a word where
    there is one. A text that fits is one chunk; a text of white space has none. The outline tells
    each chunk's place, and the chunker where to cut, if it asks. Raises KeyError for a chunker
    that is not in CHUNKERS (see `check_chunker`).
    """
    task = _Task(text, title, outline, counter, limit, min(overlap, limit // 4))
    spans = CHUNKERS[chunker](task)
    count = counter.count_by_words if counter.counts_by_words(text) else counter.count
    return [
        NewChunk(text[a:b], a, b, count(text[a:b]), place)
        for (a, b), place in zip(spans, places(text, outline, spans), strict=True)
    ]


@lru_cache(_CACHED_TITLES)  # a search asks again for each passage that the curator reads
def title_line(title: str | None, counter: TokenCounter, limit: int) -> str:
    """The line that stands before a chunk's text for the embedder: the beginning of the document's
    title, at most 32 tokens (of a `limit` for the whole input: a quarter), and a line feed."""
    most = min(TITLE_TOKENS, limit // 4)
    text = " ".join((title or "").split())[: most * CHARACTERS_PER_TOKEN]
    tokens = counter.token_spans(text)
    head = text if len(tokens) <= most else text[: tokens[most - 1][1]]
    return f"{head}\n" if head else ""


def embedder_input(title: str | None, chunk: Passage, counter: TokenCounter, limit: int) -> str:
    """What the embedder reads of a chunk, and the curator: the title line, then its text.

    With special tokens it has at most `limit` tokens. Headings are not among it: a line with those
    that a chunk stands under found nothing better (docs/benchmarks.md).
    """
    return title_line(title, counter, limit) + chunk.text
