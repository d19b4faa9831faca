"""Chunks: what the embedder gets is never too long, and no character of a document is lost."""

import hashlib
import pickle
from functools import cache
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

from services.retrieve.corpus.chunk import (
    CHUNKERS,
    TokenCounter,
    check_chunker,
    chunk,
    embedder_input,
    title_line,
)
from services.retrieve.stores.base import NewChunk
from services.retrieve.stores.outline import Mark, MarkKind, Outline
from shared.errors import ApiError


@cache
def bytes_counter() -> TokenCounter:
    """Byte-level BPE as GPT-2's: the space is part of the next word, a character may be four
    tokens, and joining two texts may lower the count."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=["<s>", "</s>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    tokenizer.train_from_iterator(["the cat sat on the mat and the dog ran. " * 20], trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 1)]
    )
    return TokenCounter(tokenizer.to_str().encode())


@pytest.fixture(scope="session")
def bert(minilm_dir: Path) -> TokenCounter:
    """The default model's own tokenizer."""
    return TokenCounter((minilm_dir / "tokenizer.json").read_bytes())


@pytest.fixture(scope="session", params=["bert", "bytes"])
def counter(request: pytest.FixtureRequest) -> TokenCounter:
    """Two kinds of tokenizers, which count quite differently."""
    bert: TokenCounter = request.getfixturevalue("bert")
    return bert if request.param == "bert" else bytes_counter()


def assert_sound(
    chunks: list[NewChunk], text: str, title: str | None, counter: TokenCounter, limit: int
) -> None:
    """Offsets fit, all is covered in order, and nothing is over the limit."""
    covered = 0
    for part in chunks:
        assert part.text == text[part.start : part.end]
        assert part.text == part.text.strip() != ""
        assert text[covered : part.start].strip() == ""
        assert part.end > covered
        read = embedder_input(title, part, counter, limit)
        assert read == title_line(title, counter, limit) + part.text
        assert counter.count(read) + counter.special_tokens <= limit
        start, end = part.place.bytes or (0, 0)
        assert text.encode()[start:end].decode() == part.text
        assert part.tokens == counter.count(part.text)
        covered = part.end
    assert text[covered:].strip() == ""
    starts = [part.start for part in chunks]
    assert starts == sorted(set(starts))


words = st.sampled_from(
    ["the", "cat", "Sat.", "mat,", "dog!", "日本語", "😀", "\u200b", "naïve", "x"]
)
prose = st.lists(st.tuples(words, st.sampled_from([" ", "  ", "\n", "\n\n", "\n\n\n", ""])))
kinds: st.SearchStrategy[MarkKind] = st.sampled_from(["heading", "page", "code", "table", "row"])
outlines = st.lists(
    st.builds(
        lambda kind, start, length, name, number: Mark(kind, start, start + length, name, number),
        kinds,
        st.integers(-3, 500),
        st.integers(-1, 300),
        st.sampled_from(["", "A", "python"]),
        st.integers(-1, 9),
    ),
    max_size=30,
).map(tuple)
texts = st.one_of(
    st.text(max_size=600),
    prose.map(lambda pairs: "".join(word + space for word, space in pairs)),
    st.tuples(
        st.sampled_from(["a", "日", "😀", "\u200b", "é", "-", "a b"]), st.integers(1, 900)
    ).map(lambda pair: pair[0] * pair[1]),
)


@pytest.mark.parametrize("examples", [25, pytest.param(250, marks=pytest.mark.long)])
def test_every_character_is_in_a_chunk_and_no_chunk_is_too_long(
    counter: TokenCounter, examples: int
) -> None:
    @settings(max_examples=examples)
    @given(
        text=texts,
        title=st.one_of(st.none(), st.text(max_size=120)),
        limit=st.sampled_from([32, 48, 64, 256]),
        overlap=st.sampled_from([0, 5, 16, 1000]),
        outline=outlines,
        chunker=st.sampled_from(sorted(CHUNKERS)),
    )
    def holds(
        text: str, title: str | None, limit: int, overlap: int, outline: Outline, chunker: str
    ) -> None:
        chunks = chunk(text, title, outline, counter, limit, overlap, chunker)
        assert_sound(chunks, text, title, counter, limit)
        assert chunk(text, title, outline, copied, limit, overlap, chunker) == chunks

    copied = pickle.loads(pickle.dumps(counter))
    holds()


@pytest.mark.parametrize(
    "text",
    [
        "a" * 10_000,
        "日本語" * 1_500,
        "😀" * 5_000,
        "\u200b" * 10_000 + "end",
        "x-" * 3_000,
        "https://example.org/" + "path/" * 1_000,
        "{" * 1_500 + "}" * 1_500,
        " ".join("word" + " " * (n % 40) for n in range(1_000)),
        "\n".join("line" + "\n" * (n % 3) for n in range(1_000)),
        "0123456789abcdef" * 300 + "\n\n" + "Some words. " * 200,
    ],
    ids=["a", "cjk", "emoji", "zero-width", "dashes", "url", "braces", "gaps", "lines", "mixed"],
)
@pytest.mark.parametrize(  # of which the first cuts without a look at the outline
    ("chunker", "kind"), [("semchunk-1", "page"), ("structure-1", "page"), ("structure-1", "code")]
)
def test_text_without_good_places_to_cut_is_cut_all_the_same(
    counter: TokenCounter, text: str, chunker: str, kind: MarkKind
) -> None:
    outline = (Mark(kind, 0, len(text)),)
    chunks = chunk(text, "A title", outline, counter, 256, 32, chunker)
    assert len(chunks) > 1
    assert_sound(chunks, text, "A title", counter, 256)


def test_a_word_that_the_model_does_not_know_has_its_price(bert: TokenCounter) -> None:
    # The tokenizer makes one "unknown" token of it, of whatever length.
    assert bert.count("a" * 10_000) == 625
    assert max(len(part.text) for part in chunk("a" * 100_000, None, (), bert, 256, 0)) <= 4096


@pytest.mark.parametrize("text", ["", " ", "\n\n \n"])
def test_white_space_has_no_chunks(bert: TokenCounter, text: str) -> None:
    assert chunk(text, "Title", (), bert, 256, 32) == []


def test_a_text_that_fits_is_one_chunk(bert: TokenCounter) -> None:
    text = "  One sentence.\n\n\nAnother one.\n"
    (only,) = chunk(text, "Title", (), bert, 256, 32)
    assert (only.text, only.start, only.end) == (text.strip(), 2, len(text) - 1)


def test_a_text_that_just_fits_is_one_chunk(bert: TokenCounter) -> None:
    # Two special tokens, one of the title: 253 are left.
    assert len(chunk("word " * 253, "Title", (), bert, 256, 32)) == 1
    assert len(chunk("word " * 254, "Title", (), bert, 256, 32)) == 2


def test_neighbours_share_a_sentence_where_one_fits(bert: TokenCounter) -> None:
    text = " ".join(f"Sentence number {n} has exactly these nine words." for n in range(60))
    chunks = chunk(text, None, (), bert, 256, 32)
    for before, after in pairwise(chunks):
        shared = text[after.start : before.end]
        assert 0 < bert.count(shared) <= 32
        assert after.text.startswith("Sentence number")


def test_without_overlap_nothing_is_shared(bert: TokenCounter) -> None:
    chunks = chunk("Some words here. " * 300, None, (), bert, 256, 0)
    assert all(a.end <= b.start for a, b in pairwise(chunks))


def test_a_wide_gap_before_a_heading_is_preferred_as_border(bert: TokenCounter) -> None:
    section = "Words about it. " * 35
    text = f"First\n\n{section}\n\n\nSecond\n\n{section}"
    chunks = chunk(text, None, (), bert, 256, 0)
    assert [part.text.split("\n")[0] for part in chunks] == ["First", "Second"]


def test_the_title_line_is_cut_after_a_whole_token(bert: TokenCounter) -> None:
    assert title_line(None, bert, 256) == ""
    assert title_line(" \n ", bert, 256) == ""
    assert title_line("A\n  title", bert, 256) == "A title\n"
    line = title_line("internationalisation " * 30, bert, 256)
    assert bert.count(line) == 32
    assert bert.count(title_line("word " * 100, bert, 40)) == 10
    assert len(title_line("a" * 5_000, bert, 256)) <= 513


def test_padding_and_truncation_of_the_file_do_not_count(minilm_dir: Path) -> None:
    raw = (minilm_dir / "tokenizer.json").read_bytes()
    assert b'"max_length"' in raw  # the file does carry a truncation
    counter = TokenCounter(raw)
    assert counter.count("word") == 1
    assert counter.count("word " * 1_000) == 1_000
    assert counter.special_tokens == 2


@pytest.mark.parametrize("data", [b"", b"{}", b"\xff\xfe", b"[1]", b"<html>"])
def test_what_is_no_tokenizer_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match=r"not a tokenizer\.json"):
        TokenCounter(data)


def test_words_counted_one_by_one_are_what_the_tokenizer_counts(bert: TokenCounter) -> None:
    text = (
        "Internationalisation of naïve 日本語 caf\u0301e\u0301 [MASK] x-1.5 "
        + "word " * 30
        + "z" * 70
    )
    assert bert.counts_by_words(text)
    assert bert.count_by_words(text) == bert.count(text)
    assert not bert.counts_by_words("a\x1cb")
    assert not bytes_counter().counts_by_words(text)


@settings(max_examples=200)
@given(text=st.one_of(texts, st.text(max_size=60)))
def test_counting_by_words_is_exact_where_it_says_so(bert: TokenCounter, text: str) -> None:
    assert not bert.counts_by_words(text) or bert.count_by_words(text) == bert.count(text)


def test_the_first_chunker_cuts_as_it_always_did(bert: TokenCounter) -> None:
    # Corpora that it made are written to with it: a chunk that changed would need a new vector.
    sentence = (
        "Sentence {0} of the {0}th paragraph, internationalisation-wise, says: {0}; or (so) {0}!"
    )
    prose = "\n\n".join(
        " ".join(sentence.format(n * 7 + m) for m in range(n % 9 + 1)) for n in range(60)
    )
    odd = "0123456789abcdef" * 300 + "\n\n\n" + "日本語。" * 400 + "\n" + "a b\n" * 300
    digest = hashlib.sha256()
    for text in (prose, odd, prose.replace("\n\n", "\n"), prose + "\n\n\n" + odd):
        for limit, overlap in ((256, 32), (64, 0), (128, 16)):
            for one in chunk(text, "A title", (), bert, limit, overlap, "semchunk-1"):
                digest.update(f"{one.start} {one.end} {one.tokens}\n".encode())
    assert digest.hexdigest() == "f83fa5d40b76933362c4b3a6554b7ffc82c6cd512a534890c546913b6bf42086"


def test_a_chunker_that_there_is_not_is_refused() -> None:
    assert check_chunker("semchunk-1", param="chunker") == "semchunk-1"
    with pytest.raises(ApiError) as refused:
        check_chunker("semchunk-0", param="chunker")
    assert (refused.value.status, refused.value.code) == (422, "unknown_chunker")
    assert "semchunk-1, structure-1" in refused.value.message


def test_a_counter_goes_to_another_process(bert: TokenCounter) -> None:
    assert pickle.loads(pickle.dumps(bert)).count("Some words") == bert.count("Some words") == 2
