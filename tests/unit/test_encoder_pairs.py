"""A query and a document as one input, as the tokenizer itself would put them together."""

from pathlib import Path

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from shared.encoder.pairs import PairTokenizer
from shared.encoder.weights import ModelError

QUERY = "How do I reset my password?"
DOCUMENTS = ["Open the account page.", "", "Übung 🙂 漢字 " * 3]


@pytest.fixture(scope="module")
def pairs(minilm_dir: Path) -> PairTokenizer:
    return PairTokenizer(minilm_dir)


@pytest.fixture(scope="module")
def library(minilm_dir: Path) -> Tokenizer:
    tokenizer = Tokenizer.from_file(str(minilm_dir / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return tokenizer


def test_a_pair_has_the_ids_and_types_that_the_library_gives_it(
    pairs: PairTokenizer, library: Tokenizer
) -> None:
    found = pairs.tokenize(QUERY, DOCUMENTS)
    for item, document in zip(found.items, DOCUMENTS, strict=True):
        expected = library.encode(QUERY, document)
        assert list(item.ids) == expected.ids
        assert list(item.types) == expected.type_ids
        assert item.cut == 0
    assert found.query_cut == 0
    assert pairs.special_tokens == 3


@pytest.mark.parametrize("direction", ["right", "left"])
def test_of_a_long_pair_the_document_alone_is_cut(
    pairs: PairTokenizer, library: Tokenizer, direction: str
) -> None:
    text = " ".join(f"word{number}" for number in range(400))
    [item] = pairs.tokenize(QUERY, [text], keep="start" if direction == "right" else "end").items
    whole = library.encode(QUERY, text)
    library.enable_truncation(pairs.max_tokens, strategy="only_second", direction=direction)
    expected = library.encode(QUERY, text)
    library.no_truncation()
    assert list(item.ids) == expected.ids
    assert len(item) + item.cut == len(whole.ids)


def test_a_long_query_keeps_half_of_the_window(pairs: PairTokenizer) -> None:
    found = pairs.tokenize("word " * 500, ["other " * 500, "other"])
    own = pairs.max_tokens - 3
    assert found.query_limit == own // 2
    assert found.query_cut == 500 - own // 2
    assert found.document_tokens == [own - own // 2, 1]
    assert len(found.items[0]) == pairs.max_tokens


def test_fewer_tokens_of_a_document_may_be_asked_for(pairs: PairTokenizer) -> None:
    found = pairs.tokenize(QUERY, ["one two three"], max_tokens=2)
    assert found.document_tokens == [2]
    assert found.items[0].cut == 1
    assert found.items[0].ids == pairs.tokenize(QUERY, ["one two"]).items[0].ids


def test_a_tokenizer_that_puts_the_document_first_is_refused(tmp_path: Path) -> None:
    tokenizer = Tokenizer(models.WordLevel({"a": 0, "[S]": 1}, unk_token="a"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="$A [S]", pair="$B [S] $A", special_tokens=[("[S]", 1)]
    )
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    (tmp_path / "config.json").write_text('{"max_position_embeddings": 64}')
    with pytest.raises(ModelError, match="query before a document"):
        PairTokenizer(tmp_path)
