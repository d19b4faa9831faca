"""The ways to cut that `tests.bench.chunking` compares. chonkie, which is no dependency, must be
installed for those that are its own."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from importlib import import_module

from services.retrieve.corpus.chunk import TokenCounter, chunk, embedder_input, title_line
from services.retrieve.stores.outline import Outline


@dataclass(frozen=True)
class Piece:
    """A chunk. read: what the embedder gets, words: what the word index gets."""

    start: int
    end: int
    tokens: int
    read: str
    words: str


@dataclass(frozen=True)
class Way:
    """A way to cut."""

    cut: Callable[[str, str, Outline, TokenCounter, int], list[Piece]]


def _ours(name: str, overlap: int, share: float = 1.0) -> Way:
    def cut(
        text: str, title: str, outline: Outline, counter: TokenCounter, limit: int
    ) -> list[Piece]:
        most = int(limit * share)
        return [
            Piece(
                part.start,
                part.end,
                part.tokens,
                embedder_input(title, part, counter, most),
                f"{title}\n{part.text}",
            )
            for part in chunk(text, title, outline, counter, most, overlap, name)
        ]

    return Way(cut)


def _foreign(spans: Callable[[str, int, TokenCounter], Sequence[tuple[int, int]]]) -> Way:
    def cut(
        text: str, title: str, outline: Outline, counter: TokenCounter, limit: int
    ) -> list[Piece]:
        line = title_line(title, counter, limit)
        room = limit - counter.special_tokens - counter.count(line)
        found = []
        for a, b in spans(text, room, counter):
            part = text[a:b].strip()
            if part:
                found.append(Piece(a, b, counter.count(part), line + part, f"{title}\n{part}"))
        return found

    return Way(cut)


def _fixed(text: str, room: int, counter: TokenCounter, overlap: int = 0) -> list[tuple[int, int]]:
    """So many tokens a chunk, wherever that is."""
    tokens = counter.token_spans(text)
    return [
        (tokens[first][0], tokens[min(first + room, len(tokens)) - 1][1])
        for first in range(0, len(tokens) - (overlap if len(tokens) > room else 0), room - overlap)
    ]


def _chonkie(text: str, room: int, counter: TokenCounter) -> list[tuple[int, int]]:
    chunker = import_module("chonkie").RecursiveChunker(counter.estimate, chunk_size=room)
    return [(one.start_index, one.end_index) for one in chunker.chunk(text)]


def _chonkie_sentences(text: str, room: int, counter: TokenCounter) -> list[tuple[int, int]]:
    chunker = import_module("chonkie").SentenceChunker(
        counter.estimate, chunk_size=room, chunk_overlap=0
    )
    return [(one.start_index, one.end_index) for one in chunker.chunk(text)]


WAYS: Mapping[str, Way] = {
    "semchunk-1": _ours("semchunk-1", 32),
    "semchunk-1, no overlap": _ours("semchunk-1", 0),
    "fixed": _foreign(_fixed),
    "fixed, overlap 32": _foreign(partial(_fixed, overlap=32)),
    "chonkie recursive": _foreign(_chonkie),
    "chonkie sentences": _foreign(_chonkie_sentences),
    "structure-1": _ours("structure-1", 32),
    "structure-1, no overlap": _ours("structure-1", 0),
    "structure-1, half size": _ours("structure-1", 16, 0.5),
}
