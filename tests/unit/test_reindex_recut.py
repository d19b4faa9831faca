"""Documents cut anew: which chunks keep their vectors."""

from pathlib import Path

import pytest

from services.retrieve.corpus.chunk import TokenCounter, chunk
from services.retrieve.corpus.prepare import Recipe
from services.retrieve.corpus.reindex.recut import Body, Recut, recut
from services.retrieve.stores.corpus import ModelStamp

STAMP = ModelStamp("m", "1-fp32", 4)
# One short paragraph that is a chunk of its own at any length, and a long one.
TEXT = "# One\n\nShort.\n\n# Two\n\n" + " ".join(
    f"Sentence {n} of the long part." for n in range(60)
)


def recipe(chunk_tokens: int, stamp: ModelStamp = STAMP, *, sparse: bool = False) -> Recipe:
    return Recipe("c", stamp, "structure-1", chunk_tokens, 0, sparse)


@pytest.fixture(scope="module")
def tokenizer(minilm_dir: Path) -> Path:
    return minilm_dir / "tokenizer.json"


@pytest.fixture(scope="module")
def body(tokenizer: Path) -> Body:
    counter = TokenCounter(tokenizer.read_bytes())
    return Body(TEXT, "Title", (), chunk(TEXT, "Title", (), counter, 256, 0, "structure-1"))


def test_the_same_recipe_keeps_all(body: Body, tokenizer: Path) -> None:
    (piece,) = recut(Recut([body], recipe(256), recipe(256), tokenizer))
    assert list(piece.chunks) == list(body.chunks)
    assert list(piece.reused) == list(range(len(body.chunks)))


def test_shorter_chunks_are_embedded_anew(body: Body, tokenizer: Path) -> None:
    (piece,) = recut(Recut([body], recipe(256), recipe(64), tokenizer))
    assert len(piece.chunks) > len(body.chunks)
    kept = [one for one, old in zip(piece.inputs, piece.reused, strict=True) if old is not None]
    assert len(kept) < len(piece.chunks)
    assert (
        "".join(TEXT[one.start : one.end] for one in piece.chunks)
        .replace(" ", "")
        .startswith("#One")
    )


@pytest.mark.parametrize(
    "will", [recipe(256, ModelStamp("m", "2-fp32", 4)), recipe(256, sparse=True)]
)
def test_another_revision_or_missing_sparse_vectors_reuse_none(
    body: Body, tokenizer: Path, will: Recipe
) -> None:
    (piece,) = recut(Recut([body], recipe(256), will, tokenizer))
    assert list(piece.reused) == [None] * len(piece.chunks)


def test_of_sparse_vectors_that_are_no_longer_wanted_the_dense_ones_stay(
    body: Body, tokenizer: Path
) -> None:
    (piece,) = recut(Recut([body], recipe(256, sparse=True), recipe(256), tokenizer))
    assert None not in piece.reused
