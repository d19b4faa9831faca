"""The graph built from the weights gives the vectors of the original implementation."""

import json
import re
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from numpy.typing import NDArray
from tokenizers import Tokenizer

from shared.encoder.encoder import Encoder
from shared.encoder.quantize import quantise_rows
from shared.encoder.tokenizer import TextTokenizer
from shared.settings import Precision
from tests.suite import REPOSITORY

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

TEXTS = 33  # the fidelity over 1,000 is in tests/bench/fidelity.py
LENGTHS = (3, 4, 6, 9, 14, 25, 45, 80, 130, 190, 250)  # tokens, special ones included


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for the graphs that these tests build."""
    return tmp_path_factory.mktemp("built")


@pytest.fixture(scope="module")
def encoder_of(minilm_dir: Path, built: Path) -> Callable[[Precision], Encoder]:
    """The encoder in a precision, opened once."""
    return cache(lambda precision: Encoder.open(minilm_dir, built, precision, 2))


@pytest.fixture(scope="module")
def texts(request: pytest.FixtureRequest, minilm_dir: Path) -> list[str]:
    """33 pieces of real text of 3 to 250 tokens: of abstracts, or without them of the handbook."""
    try:
        corpus = request.getfixturevalue("datasets") / "scifact" / "corpus.jsonl"
        sources = [json.loads(line)["text"] for line in corpus.read_text("utf-8").splitlines()]
    except pytest.skip.Exception:
        sources = [
            page[found.start() :][:2000]
            for page in (
                path.read_text("utf-8") for path in sorted(REPOSITORY.glob("docs/**/*.md"))
            )
            for found in re.finditer(r"(?<=\n\n)\w.{200}", page)
        ]
    tokenizer = Tokenizer.from_file(str(minilm_dir / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.no_truncation()
    pieces: list[str] = []
    for source in sources:
        offsets = tokenizer.encode(source, add_special_tokens=False).offsets
        words = LENGTHS[len(pieces) % len(LENGTHS)] - 2
        if words <= len(offsets):
            pieces.append(source[: offsets[words - 1][1]])
        if len(pieces) == TEXTS:
            break
    assert len(set(pieces)) > TEXTS * 0.8
    return pieces


@pytest.fixture(scope="module")
def original(minilm_dir: Path) -> "SentenceTransformer":
    """The model as sentence-transformers runs it."""
    from sentence_transformers import SentenceTransformer

    return SentenceTransformer(str(minilm_dir), device="cpu", local_files_only=True)


@pytest.fixture(scope="module")
def reference(original: "SentenceTransformer", texts: list[str]) -> NDArray[np.float32]:
    """sentence-transformers' own fp32 vectors."""
    vectors: NDArray[np.float32] = original.encode(texts, normalize_embeddings=True)
    return vectors


@pytest.mark.parametrize(
    ("precision", "mean", "least"), [("fp32", 0.99999, 0.9999), ("int8", 0.995, 0.98)]
)
def test_vectors_agree_with_sentence_transformers_on_real_texts(
    encoder_of: Callable[[Precision], Encoder],
    texts: list[str],
    reference: NDArray[np.float32],
    precision: Precision,
    mean: float,
    least: float,
) -> None:
    encoder = encoder_of(precision)
    batch = encoder.tokenizer.tokenize(texts)
    assert {len(text) for text in batch} <= set(range(3, 251))
    cosines = (encoder.embed(batch) * reference).sum(axis=1)
    assert cosines.mean() >= mean
    assert cosines.min() >= least


def test_a_text_longer_than_the_window_is_read_as_far_as_sentence_transformers_reads_it(
    encoder_of: Callable[[Precision], Encoder], original: "SentenceTransformer"
) -> None:
    text = " ".join(f"word{number}" for number in range(400))
    encoder = encoder_of("fp32")
    [vector] = encoder.embed(encoder.tokenizer.tokenize([text]))
    assert vector @ original.encode(text, normalize_embeddings=True) >= 0.9999


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_a_vector_does_not_depend_on_the_other_texts_of_its_batch(
    encoder_of: Callable[[Precision], Encoder], texts: list[str], precision: Precision
) -> None:
    encoder = encoder_of(precision)
    batch = encoder.tokenizer.tokenize(texts[: len(LENGTHS)])
    together = encoder.embed(batch)
    alone = np.concatenate([encoder.embed([text]) for text in batch])
    # Not bit for bit: sums are ordered by the shape of the product.
    assert (together * alone).sum(axis=1).min() >= 0.9999


def test_quantised_rows_are_within_half_a_step_and_an_empty_row_stays_empty() -> None:
    table = np.random.default_rng(0).normal(size=(50, 64)).astype(np.float32)
    table[7] = 0
    quantised, scales = quantise_rows(table)
    assert (np.abs(quantised * scales - table) <= scales * 0.5001).all()
    assert not quantised[7].any()
    assert np.isfinite(scales).all()


def test_the_window_is_the_models_own_and_not_the_tokenizer_files(minilm_dir: Path) -> None:
    baked_in = json.loads((minilm_dir / "tokenizer.json").read_text("utf-8"))
    assert baked_in["truncation"]["max_length"] == 128
    tokenizer = TextTokenizer(minilm_dir)
    assert tokenizer.max_tokens == 256
    assert len(tokenizer.tokenize(["word " * 200])[0]) == 202
