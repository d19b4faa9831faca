"""Stored documents, cut anew for another generation: what is computed, and nothing else.

Pure and synchronous, on values that can be pickled, for the worker processes.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from services.retrieve.corpus.chunk import chunk, embedder_input
from services.retrieve.corpus.prepare import Recipe, token_counter
from services.retrieve.stores.base import NewChunk
from services.retrieve.stores.outline import Outline


@dataclass(frozen=True)
class Body:
    """What of a stored document is cut: its parsed text with its structure, and its chunks now."""

    text: str
    title: str | None
    outline: Outline
    chunks: Sequence[NewChunk]


@dataclass(frozen=True)
class Recut:
    """Documents to cut. was, will: how they are cut now and how they shall be. tokenizer: the file
    of the tokenizer that the next generation's model has."""

    bodies: Sequence[Body]
    was: Recipe
    will: Recipe
    tokenizer: Path


@dataclass(frozen=True)
class Piece:
    """A document as it shall be. inputs: what the embedder gets for each chunk. reused: for each
    chunk the number of the old one whose vectors it can have, None where it needs new ones."""

    chunks: Sequence[NewChunk]
    inputs: Sequence[str]
    reused: Sequence[int | None]


def recut(task: Recut) -> list[Piece]:
    """Cut each document as it shall be, and see which vectors still fit."""
    was, will = task.was, task.will
    counter = token_counter(task.tokenizer)
    pieces = []
    for body in task.bodies:
        chunks = body.chunks
        if not same_cut(was, will):
            chunks = chunk(
                body.text,
                body.title,
                body.outline,
                counter,
                will.chunk_tokens,
                will.chunk_overlap,
                will.chunker,
            )
        inputs = [embedder_input(body.title, one, counter, will.chunk_tokens) for one in chunks]
        old: dict[str, int] = {}
        if same_vectors(was, will):
            for number, one in enumerate(body.chunks):
                old[embedder_input(body.title, one, counter, was.chunk_tokens)] = number
        pieces.append(Piece(chunks, inputs, [old.get(one) for one in inputs]))
    return pieces


def same_cut(was: Recipe, will: Recipe) -> bool:
    """Whether both cut a document into the same chunks; tokens are counted by the model."""
    return (was.stamp, was.chunker, was.chunk_tokens, was.chunk_overlap) == (
        will.stamp,
        will.chunker,
        will.chunk_tokens,
        will.chunk_overlap,
    )


def same_vectors(was: Recipe, will: Recipe) -> bool:
    """Whether the vectors of one fit the other, where the embedder's input is the same."""
    return was.stamp == will.stamp and (was.sparse or not will.sparse)
