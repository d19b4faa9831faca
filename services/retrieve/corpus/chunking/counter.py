"""Tokens, counted as an embedding model's own tokenizer counts them."""

import json
import re
from functools import lru_cache

from tokenizers import Tokenizer

# Tokenizers give one "unknown" token for a word of any length. Without a floor a chunk of a few
# tokens could hold a megabyte, which no embedder takes and no reader wants.
CHARACTERS_PER_TOKEN = 16

_CACHED_WORDS = 50_000
_CACHED_WORD_LENGTH = 40

# White space to Python that is none to tokenizers; a parsed text has none of it.
_ODD_SPACE = re.compile("[\x0b\x0c\x1c-\x1f\x85]")

Span = tuple[int, int]


class TokenCounter:
    """Counts tokens as an embedding model's own tokenizer does; safe to share between threads, and
    may be pickled.

    special_tokens: those put around a text.
    """

    def __init__(self, tokenizer_json: bytes) -> None:
        """Load a `tokenizer.json`. Raises ValueError where it can't be read as one."""
        try:
            text = tokenizer_json.decode("utf-8")
            self._tokenizer = Tokenizer.from_str(text)
        except Exception as error:  # the library raises bare Exception
            raise ValueError(f"not a tokenizer.json: {error}") from error
        # A tokenizer.json may carry a fixed padding and a truncation; both would falsify counts.
        self._tokenizer.no_padding()
        self._tokenizer.no_truncation()
        self._definition = tokenizer_json
        self.special_tokens: int = self._tokenizer.num_special_tokens_to_add(is_pair=False)
        self._splits_at_space = _splits_at_space(json.loads(text))
        self._tokens_of = lru_cache(_CACHED_WORDS)(self._tokens)
        self._word = lru_cache(_CACHED_WORDS)(self.count)

    def __reduce__(self) -> tuple[type["TokenCounter"], tuple[bytes]]:
        return TokenCounter, (self._definition,)

    def token_spans(self, text: str) -> list[Span]:
        """The character offsets of the tokens of `text`, without special tokens."""
        encoding = self._tokenizer.encode(text, add_special_tokens=False)
        return list(encoding.offsets)

    def count(self, text: str) -> int:
        """What `text` costs: its tokens without special ones, at least one for 16 characters."""
        return max(floor_of(len(text)), self._tokens(text))

    def counts_by_words(self, text: str) -> bool:
        """Whether `count_by_words` is `count` for every span of this text: no token depends on what
        stands beyond the next space."""
        return self._splits_at_space and not _ODD_SPACE.search(text)

    def count_by_words(self, text: str) -> int:
        """What `text` costs if its words are counted one by one, at a tenth of the time.

        This is `count` where `counts_by_words` says so.
        """
        tokens, cached, long = 0, self._tokens_of, _CACHED_WORD_LENGTH
        for word in text.split():
            tokens += cached(word) if len(word) <= long else self._tokens(word)
        return max(floor_of(len(text)), tokens)

    def estimate(self, text: str) -> int:
        """The sum of what the words of `text` cost, by which the first chunker measured: a long
        word that is one token costs more here."""
        return sum(
            self._word(word) if len(word) <= _CACHED_WORD_LENGTH else self.count(word)
            for word in text.split()
        )

    def _tokens(self, text: str) -> int:
        return len(self._tokenizer.encode(text, add_special_tokens=False).ids)


def floor_of(characters: int) -> int:
    """The least that a text of so many characters may cost."""
    return -(-characters // CHARACTERS_PER_TOKEN)


def _splits_at_space(definition: dict[str, object]) -> bool:
    # Only BERT's own way, which is known to work character by character and to end a word at every
    # white space; others may look at what stands beside it.
    ways = (definition.get("normalizer"), definition.get("pre_tokenizer"))
    kinds = [one.get("type") if isinstance(one, dict) else None for one in ways]
    added = definition.get("added_tokens")
    names = [one.get("content") for one in added] if isinstance(added, list) else []
    return kinds == ["BertNormalizer", "BertPreTokenizer"] and not any(
        isinstance(name, str) and name.split() != [name] for name in names
    )
