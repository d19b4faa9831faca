"""Words as sparse vectors."""

import math
from collections import Counter

import numpy as np
import pytest

from services.retrieve.stores.local.lexical import LexicalIndex
from services.retrieve.stores.qdrant.words import Words, body, of_chunk
from shared.errors import ApiError


def test_a_query_weighs_each_term_as_often_as_it_comes() -> None:
    words = Words("en")
    indices, weights = words.of_query("red hens and a red fox")
    assert sorted(weights.tolist()) == [1.0, 1.0, 2.0]
    assert indices.dtype == np.uint32
    assert (np.diff(indices.astype(np.int64)) > 0).all()
    one, other = words.of_query("hens"), words.of_query("Hen")
    assert one[0].tolist() == other[0].tolist()
    assert len(words.of_query("the, of!")[0]) == 0


def test_a_chunk_weighs_its_terms_by_the_formula() -> None:
    terms = ["red", "red", "hen", "fox"]
    found = dict(zip(*(part.tolist() for part in of_chunk(terms, 8.0)), strict=True))
    expected = [
        count * 2.2 / (count + 1.2 * (0.25 + 0.75 * 4 / 8.0)) for count in Counter(terms).values()
    ]
    assert sorted(found.values()) == pytest.approx(sorted(expected), rel=1e-6)
    assert all(math.isfinite(weight) for weight in of_chunk(terms, 0.0)[1])
    assert len(of_chunk([], 8.0)[0]) == 0


def test_chunks_of_any_length_score_as_in_the_local_stores_index() -> None:
    """Tantivy keeps a length in a byte: in steps, beyond 40 terms."""
    lengths = [*range(1, 700), *(int(1.1**power) for power in range(70, 110))]
    chunks = [(key, "red " + "hen " * (length - 1)) for key, length in enumerate(lengths)]
    others = [(key + len(lengths), "blue") for key in range(len(lengths))]
    index = LexicalIndex.build(None, "en", [*chunks, *others])
    exact = index.scores("red", range(len(lengths)))
    words = Words("en")
    ((place,), _) = words.of_query("red")
    count = 2 * len(lengths)
    average = (sum(lengths) + len(others)) / count
    idf = math.log(1 + (count - len(lengths) + 0.5) / (len(lengths) + 0.5))
    for key, text in chunks:
        weights = dict(
            zip(*(part.tolist() for part in of_chunk(words.terms(text), average)), strict=True)
        )
        assert idf * weights[int(place)] == pytest.approx(exact[key], rel=1e-6), lengths[key]


def test_many_terms_have_places_of_their_own() -> None:
    indices, _ = of_chunk([f"term{number}" for number in range(20_000)], 1.0)
    assert len(indices) >= 19_998


def test_the_title_belongs_to_a_chunks_words() -> None:
    assert body("Title", "text") == "Title\ntext"
    assert body(None, "text") == body("", "text") == "text"


def test_an_unknown_language_is_refused() -> None:
    with pytest.raises(ApiError, match="ISO 639-1"):
        Words("xx")
