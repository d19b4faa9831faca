"""Prose, cut by semchunk: at wide gaps first, then paragraphs, lines, sentences, words."""

import re
from collections.abc import Callable
from itertools import pairwise
from typing import cast

from semchunk.semchunk import chunk as split

from services.retrieve.corpus.chunking.counter import CHARACTERS_PER_TOKEN, Span, TokenCounter

Measure = Callable[[str], int]  # what the embedder's input costs with this text in it

_SENTENCE_START = re.compile(
    "(?:[.!?\u2026]['\"\u201d\u2019)\\]]*\\s+|[\u3002\uff01\uff1f]|\\n\\s*)(?=\\S)"
)
_WORD_START = re.compile(r"\s+(?=\S)")


def cut_prose(
    text: str, measure: Measure, room: int, overlap: int, counter: TokenCounter
) -> list[Span]:
    """Spans of at most `room` by `measure` that cover `text` but for white space, in order."""
    start, end = len(text) - len(text.lstrip()), len(text.rstrip())
    if start >= end:
        return []
    if measure(text[start:end]) <= room:
        return [(start, end)]
    whole = _merged(text, pieces(text, measure, room - overlap), measure, room, overlap)
    if overlap == 0:
        return whole
    return [whole[0]] + [
        (overlapped(text, before, span, measure, room, overlap, counter), span[1])
        for before, span in pairwise(whole)
    ]


def pieces(text: str, measure: Measure, most: int) -> list[Span]:
    """Spans without white space around them of at most `most`, as semchunk finds them."""
    found = split(text, most, measure, memoize=False, offsets=True)
    return [stripped(text, a, b) for a, b in cast(tuple[list[str], list[Span]], found)[1]]


def stripped(text: str, start: int, end: int) -> Span:
    """The span without the white space at its ends."""
    part = text[start:end]
    return start + len(part) - len(part.lstrip()), start + len(part.rstrip())


def _merged(text: str, spans: list[Span], measure: Measure, room: int, overlap: int) -> list[Span]:
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


def overlapped(
    text: str,
    before: Span,
    span: Span,
    measure: Measure,
    room: int,
    overlap: int,
    counter: TokenCounter,
) -> int:
    """Where `span` starts once it takes over the end of the chunk `before` it."""
    start = max(before[0] + 1, before[1] - overlap * CHARACTERS_PER_TOKEN)
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
