"""Text to token ids, as the model itself would have it."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tokenizers import Encoding, Tokenizer

from shared.encoder.weights import ModelError
from shared.encoder.window import window

TOKENIZER_FILE = "tokenizer.json"
# The library takes some 50 bytes for each character until a group's encodings are let go of.
_GROUP_CHARACTERS = 1_000_000

Keep = Literal["start", "end"]  # of a text that is too long: the part that is read


@dataclass(frozen=True)
class Tokenized:
    """A text as the model reads it. Its length is the number of tokens, special ones included.

    ids: the token ids, special ones included, cut to the model's window. cut: how many tokens of
    the text did not fit. types: of a pair of texts, the kind of each token as the model has it;
    empty where all are 0.
    """

    ids: tuple[int, ...]
    cut: int
    types: tuple[int, ...] = ()

    def __len__(self) -> int:
        return len(self.ids)


def read_whole(tokenizer: Tokenizer) -> Tokenizer:
    """The tokenizer, made to neither pad nor cut. May be used from any thread from then on.

    A definition may bring a window and a fixed padding of its own, which are not the model's. Both
    are switched off once and never touched again: the library only fails across threads ("Already
    borrowed") where one of them is changed while another encodes.
    """
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return tokenizer


def load_tokenizer(folder: Path) -> tuple[Tokenizer, int]:
    """The tokenizer in a model's folder, as `read_whole` makes it, and the model's window.

    Raises ModelError where a file of it is damaged, or where none says how long an input may be.
    """
    path = folder / TOKENIZER_FILE
    try:
        tokenizer = Tokenizer.from_str(path.read_text("utf-8"))
    except OSError as error:
        raise ModelError(path, f"can't be read ({error.strerror})") from None
    except Exception as error:  # the library raises bare Exception for a bad definition
        raise ModelError(path, f"is not a tokenizer ({error})") from None
    truncation = tokenizer.truncation["max_length"] if tokenizer.truncation else None
    return read_whole(tokenizer), window(folder, truncation)


class TextTokenizer:
    """A model's tokenizer, with the model's own window. May be used from any thread.

    max_tokens: the longest input that reaches the model whole, `special_tokens` of them its own.
    """

    def __init__(self, folder: Path) -> None:
        """Load the tokenizer in `folder`. Raises ModelError where a file of it is damaged."""
        self._folder = folder
        self._tokenizer, self.max_tokens = load_tokenizer(folder)
        self.special_tokens = self._tokenizer.num_special_tokens_to_add(is_pair=False)

    def definition(self) -> bytes:
        """The contents of its tokenizer.json."""
        return (self._folder / TOKENIZER_FILE).read_bytes()

    def tokenize(
        self, texts: Sequence[str], max_tokens: int | None = None, keep: Keep = "start"
    ) -> list[Tokenized]:
        """The tokens of each text, in order.

        max_tokens: of the text's own at most so many; None: all that the window holds. keep: which
        part of a longer text stays.
        """
        own = self.max_tokens - self.special_tokens
        limit = self.special_tokens + (own if max_tokens is None else min(own, max_tokens))
        tokenized: list[Tokenized] = []
        for group in in_groups(texts):
            encodings = self._tokenizer.encode_batch_fast(group)
            tokenized += [_fit(encoding, limit, keep) for encoding in encodings]
        return tokenized


def _fit(encoding: Encoding, limit: int, keep: Keep) -> Tokenized:
    ids = encoding.ids
    excess = len(ids) - limit
    if excess <= 0:
        return Tokenized(tuple(ids), 0)
    # The special tokens around the text stay.
    special = encoding.special_tokens_mask
    gap = special.index(0) if keep == "end" else len(ids) - special[::-1].index(0) - excess
    return Tokenized(tuple(ids[:gap] + ids[gap + excess :]), excess)


def in_groups(texts: Sequence[str]) -> Iterator[Sequence[str]]:
    """The texts in order, in groups of at most `_GROUP_CHARACTERS`, or of one longer text."""
    start = characters = 0
    for place, text in enumerate(texts):
        if place > start and characters + len(text) > _GROUP_CHARACTERS:
            yield texts[start:place]
            start, characters = place, 0
        characters += len(text)
    yield texts[start:]
