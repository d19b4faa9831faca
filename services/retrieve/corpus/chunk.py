"""Chunks of a document that the embedder takes whole.

semchunk finds the borders (headings set off by blank lines, then paragraphs, lines, sentences,
words), the corpus's own tokenizer measures, and what is measured is what is sent: the title line,
the text and the special tokens together.
"""

import re
from collections.abc import Callable
from functools import lru_cache
from itertools import pairwise
from typing import cast

from semchunk.semchunk import chunk as split
from tokenizers import Tokenizer

from services.retrieve.stores.base import NewChunk

# Names the method in a corpus's stamp and in each document's hash: raise it whenever the same
# document would be read (parse.py) or cut otherwise.
CHUNKER = "semchunk-1"

TITLE_TOKENS = 32

# Tokenizers give one "unknown" token for a word of any length. Without a floor a chunk of a few
# tokens could hold a megabyte, which no embedder takes and no reader wants.
_CHARACTERS_PER_TOKEN = 16

_CACHED_WORDS = 50_000
_CACHED_WORD_LENGTH = 40
_CACHED_TITLES = 10_000

_SENTENCE_START = re.compile(
    "(?:[.!?\u2026]['\"\u201d\u2019)\\]]*\\s+|[\u3002\uff01\uff1f]|\\n\\s*)(?=\\S)"
)
_WORD_START = re.compile(r"\s+(?=\S)")

Span = tuple[int, int]


class TokenCounter:
    """Counts tokens as an embedding model's own tokenizer does; safe to share between threads."""

    def __init__(self, tokenizer_json: bytes) -> None:
        """Load a `tokenizer.json`. Raises ValueError where it can't be read as one."""
        try:
            self._tokenizer = Tokenizer.from_str(tokenizer_json.decode("utf-8"))
        except Exception as error:  # the library raises bare Exception
            raise ValueError(f"not a tokenizer.json: {error}") from error
        # A tokenizer.json may carry a fixed padding and a truncation; both would falsify counts.
        self._tokenizer.no_padding()
        self._tokenizer.no_truncation()
        self.special_tokens: int = self._tokenizer.num_special_tokens_to_add(is_pair=False)
        self._word = lru_cache(_CACHED_WORDS)(self.count)

    def token_spans(self, text: str) -> list[Span]:
        """The character offsets of the tokens of `text`, without special tokens."""
        encoding = self._tokenizer.encode(text, add_special_tokens=False)
        return list(encoding.offsets)

    def count(self, text: str) -> int:
        """What `text` costs: its tokens without special ones, at least one for 16 characters."""
        tokens = len(self._tokenizer.encode(text, add_special_tokens=False).ids)
        return max(_floor(text), tokens)

    def estimate(self, text: str) -> int:
        """The sum of what the words of `text` cost. For a tokenizer that splits at white space
        first, as BERT's, this is its `count`, at a tenth of the time."""
        return sum(
            self._word(word) if len(word) <= _CACHED_WORD_LENGTH else self.count(word)
            for word in text.split()
        )


@lru_cache(_CACHED_TITLES)  # a search asks again for each passage that the curator reads
def title_line(title: str | None, counter: TokenCounter, limit: int) -> str:
    """The line that stands before a chunk's text for the embedder: the beginning of the document's
    title, at most 32 tokens (of a `limit` for the whole input: a quarter), and a line feed."""
    most = min(TITLE_TOKENS, limit // 4)
    text = " ".join((title or "").split())[: most * _CHARACTERS_PER_TOKEN]
    tokens = counter.token_spans(text)
    head = text if len(tokens) <= most else text[: tokens[most - 1][1]]
    return f"{head}\n" if head else ""


def chunk(
    text: str, title: str | None, counter: TokenCounter, limit: int, overlap: int
) -> list[NewChunk]:
    """Cut a parsed text into chunks of at most `limit` tokens as the embedder sees them.

    `limit` (at least 32) counts `title_line`, text and special tokens. A chunk is a span of `text`
    without white space around it; every other character is in at least one chunk. Neighbours share
    up to `overlap` tokens (at most a quarter of `limit`), beginning with a sentence or a word where
    there is one. A text that fits is one chunk; a text of white space has none.
    """
    line = title_line(title, counter, limit)
    room = limit - counter.special_tokens
    share = min(overlap, limit // 4)

    def measured_by(count: Callable[[str], int]) -> Callable[[str], int]:
        # The cheap test first: what is far too long need not be tokenized to be known as such.
        return lambda part: _floor(part) if _floor(part) > room else count(line + part)

    exact = measured_by(counter.count)
    spans = _spans(text, measured_by(counter.estimate), room, share, counter)
    if any(exact(text[a:b]) > room for a, b in spans):
        spans = _spans(text, exact, room, share, counter)
    return [NewChunk(text[a:b], a, b, counter.count(text[a:b])) for a, b in spans]


def _floor(text: str) -> int:
    return -(-len(text) // _CHARACTERS_PER_TOKEN)


def _spans(
    text: str, measure: Callable[[str], int], room: int, overlap: int, counter: TokenCounter
) -> list[Span]:
    start, end = len(text) - len(text.lstrip()), len(text.rstrip())
    if start >= end:
        return []
    if measure(text[start:end]) <= room:
        return [(start, end)]
    found = split(text, room - overlap, measure, memoize=False, offsets=True)
    pieces = cast(tuple[list[str], list[Span]], found)[1]
    whole = _merged(text, [_stripped(text, a, b) for a, b in pieces], measure, room, overlap)
    if overlap == 0:
        return whole
    return [whole[0]] + [
        (_overlapped(text, before, span, measure, room, overlap, counter), span[1])
        for before, span in pairwise(whole)
    ]


def _stripped(text: str, start: int, end: int) -> Span:
    part = text[start:end]
    return start + len(part) - len(part.lstrip()), start + len(part.rstrip())


def _merged(
    text: str, spans: list[Span], measure: Callable[[str], int], room: int, overlap: int
) -> list[Span]:
    # semchunk never joins the rest of one paragraph with the next one; short rests rank badly.
    merged = spans[:1]
    for index, (start, end) in enumerate(spans[1:], start=1):
        # Only the last chunk may use the room that is kept for a neighbour's overlap.
        most = room if index == len(spans) - 1 else room - overlap
        if measure(text[merged[-1][0] : end]) <= most:
            merged[-1] = (merged[-1][0], end)
        else:
            merged.append((start, end))
    return merged


def _overlapped(
    text: str,
    before: Span,
    span: Span,
    measure: Callable[[str], int],
    room: int,
    overlap: int,
    counter: TokenCounter,
) -> int:
    """Where `span` starts once it takes over the end of the chunk `before` it."""
    start = max(before[0] + 1, before[1] - overlap * _CHARACTERS_PER_TOKEN)
    tail = text[start : span[0]]
    tokens = counter.token_spans(tail)
    if len(tokens) > overlap:
        first = tokens[-overlap][0]
        start, tail = start + first, tail[first:]
    for border in (_SENTENCE_START, _WORD_START):
        found = border.search(tail)
        if found and measure(text[start + found.end() : span[1]]) <= room:
            return start + found.end()
    return span[0]
