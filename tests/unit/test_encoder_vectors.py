"""Vectors for texts and for tokens, from batches of any shape."""

import random
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from shared.encoder.encoder import Encoder
from shared.encoder.tokenizer import Tokenized


@pytest.fixture(scope="module")
def encoder(minilm_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Encoder:
    return Encoder.open(minilm_dir, tmp_path_factory.mktemp("built"), "fp32", 2)


@pytest.fixture(scope="module")
def batch() -> list[Tokenized]:
    """12 inputs of 2 to 256 random tokens, in no order."""
    numbers = random.Random(3)
    return [
        Tokenized((101, *numbers.choices(range(1000, 20000), k=numbers.randint(0, 254)), 102), 0)
        for _ in range(12)
    ]


def test_every_vector_has_length_one_and_its_texts_place(
    encoder: Encoder, batch: list[Tokenized]
) -> None:
    vectors = encoder.embed(batch)
    assert vectors.shape == (12, 384)
    assert vectors.dtype == np.float32
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    alone = np.concatenate([encoder.embed([text]) for text in batch])
    assert np.allclose(vectors, alone, atol=1e-4)


def test_token_vectors_are_one_unit_vector_a_token_without_the_padding(
    encoder: Encoder, batch: list[Tokenized]
) -> None:
    found = encoder.token_vectors(batch)
    assert [vectors.shape for vectors in found] == [(len(text), 384) for text in batch]
    assert all(np.allclose(np.linalg.norm(v, axis=1), 1, atol=1e-5) for v in found)
    [alone] = encoder.token_vectors([batch[7]])
    assert np.allclose(found[7], alone, atol=1e-3)


def test_like_texts_are_nearer_than_unlike_ones(encoder: Encoder) -> None:
    texts = ["how do I reset my password", "forgot my login credentials", "the soup is too salty"]
    question, like, unlike = encoder.embed(encoder.tokenizer.tokenize(texts))
    assert question @ like > question @ unlike + 0.3


def test_an_empty_batch_gives_no_vectors(encoder: Encoder) -> None:
    assert encoder.embed([]).shape == (0, 384)
    assert encoder.token_vectors([]) == []


def test_threads_that_share_an_encoder_get_their_own_vectors(
    encoder: Encoder, batch: list[Tokenized]
) -> None:
    expected = encoder.embed(batch[:8])
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda place: encoder.embed([batch[place]])[0], range(8)))
    assert np.allclose(np.stack(found), expected, atol=1e-4)
