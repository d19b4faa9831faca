"""Token ids, true counts, the window, and many threads at once."""

import random
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
from tokenizers import Tokenizer

from shared.encoder.tokenizer import TextTokenizer


@pytest.fixture(scope="module")
def tokenizer(minilm_dir: Path) -> TextTokenizer:
    return TextTokenizer(minilm_dir)


def test_a_short_text_keeps_all_its_tokens_and_gets_no_padding(tokenizer: TextTokenizer) -> None:
    [found] = tokenizer.tokenize(["hello world"])
    assert found.ids == (101, 7592, 2088, 102)
    assert found.cut == 0
    assert len(found) == 2 + tokenizer.special_tokens


def test_a_long_text_is_cut_to_the_window_as_the_library_would_cut_it(
    tokenizer: TextTokenizer, minilm_dir: Path
) -> None:
    library = Tokenizer.from_file(str(minilm_dir / "tokenizer.json"))
    library.no_padding()
    library.enable_truncation(tokenizer.max_tokens)
    text = " ".join(f"tail{number}" for number in range(500))
    [found] = tokenizer.tokenize([text])
    assert list(found.ids) == library.encode(text).ids
    library.no_truncation()
    assert len(found) + found.cut == len(library.encode(text).ids)


def test_a_text_of_exactly_the_window_is_not_cut(tokenizer: TextTokenizer) -> None:
    fitting, longer = tokenizer.tokenize(["word " * 254, "word " * 255])
    assert (len(fitting), fitting.cut) == (256, 0)
    assert (len(longer), longer.cut) == (256, 1)


def test_fewer_tokens_than_the_window_may_be_read_from_either_end(tokenizer: TextTokenizer) -> None:
    text = "one two three four five"
    assert tokenizer.tokenize([text], 2) == [
        replace(tokenizer.tokenize(["one two"])[0], cut=3),
    ]
    assert tokenizer.tokenize([text], 2, "end") == [
        replace(tokenizer.tokenize(["four five"])[0], cut=3),
    ]
    assert tokenizer.tokenize([text], 5, "end") == tokenizer.tokenize([text])
    [longest] = tokenizer.tokenize(["word " * 300], 10_000, "end")
    assert (len(longest), longest.cut) == (256, 46)


def test_texts_keep_their_order_whatever_their_lengths(tokenizer: TextTokenizer) -> None:
    texts = ["a", "word " * 300, "", "b c", "word"]
    together = tokenizer.tokenize(texts)
    assert together == [tokenizer.tokenize([text])[0] for text in texts]
    assert len(together[2]) == tokenizer.special_tokens


def test_texts_of_more_characters_than_are_read_at_once_keep_their_order(
    tokenizer: TextTokenizer,
) -> None:
    texts = ["a", "word " * 20_000, "b", "other " * 170_000, "c"]
    together = tokenizer.tokenize(texts)
    assert together == [tokenizer.tokenize([text])[0] for text in texts]
    assert tokenizer.tokenize([]) == []


def test_many_threads_may_tokenize_at_once(tokenizer: TextTokenizer) -> None:
    words = random.Random(7)
    texts = [" ".join(words.choices(["alpha", "beta", "gamma"], k=n)) for n in range(0, 400, 4)]
    expected = [tokenizer.tokenize([text])[0] for text in texts]
    with ThreadPoolExecutor(8) as pool:
        rounds = list(pool.map(tokenizer.tokenize, [texts] * 10))
    assert all(found == expected for found in rounds)
