"""A query and a document as one input, as the model was trained to read them."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tokenizers import Tokenizer

from shared.encoder.tokenizer import (
    TOKENIZER_FILE,
    Keep,
    Tokenized,
    in_groups,
    load_tokenizer,
)
from shared.encoder.weights import ModelError


@dataclass(frozen=True)
class Pairs:
    """A query with each of some documents, in their order.

    items: what the model reads; its `cut` is of the document alone. document_tokens: of each
    document's own that are read. query_cut: how many tokens of the query did not fit.
    document_limit: how many of a document's own may be read.
    """

    items: list[Tokenized]
    document_tokens: list[int]
    query_cut: int
    query_limit: int
    document_limit: int


@dataclass(frozen=True)
class Template:
    """What the model puts before, between and after the two texts, as token ids.

    types: of the tokens of: before, query, between, document, after. leads: words that stand at the
    head of the query and of the document, and are split into tokens with them.
    """

    before: list[int]
    between: list[int]
    after: list[int]
    types: tuple[list[int], int, list[int], int, list[int]]
    leads: tuple[str, str] = ("", "")

    @property
    def tokens(self) -> int:
        """How many it has of its own, the leads not counted."""
        return len(self.before) + len(self.between) + len(self.after)

    def join(self, query: list[int], document: list[int], cut: int) -> Tokenized:
        """The whole input."""
        before, of_query, between, of_document, after = self.types
        types = (
            *before,
            *[of_query] * len(query),
            *between,
            *[of_document] * len(document),
            *after,
        )
        ids = (*self.before, *query, *self.between, *document, *self.after)
        return Tokenized(ids, cut, types if any(types) else ())


class PairTokenizer:
    """A cross-encoder's tokenizer, with the model's own window. May be used from any thread.

    max_tokens: the longest pair that reaches the model whole, `special_tokens` of them its own.
    """

    def __init__(self, folder: Path, template: Template | None = None) -> None:
        """Load the tokenizer in `folder`.

        template: for a model that was trained on another than the tokenizer's own. Raises
        ModelError where a file of it is damaged, or where it does not put two texts together.
        """
        self._tokenizer, self.max_tokens = load_tokenizer(folder)
        self._template = template or _template(self._tokenizer, folder / TOKENIZER_FILE)
        # Without white space at its end, which may be part of the text's first token.
        self._leads = [
            len(ids) for ids in self._ids([lead.rstrip() for lead in self._template.leads])
        ]
        self.special_tokens = self._template.tokens + sum(self._leads)

    def tokenize(
        self,
        query: str,
        documents: Sequence[str],
        max_tokens: int | None = None,
        keep: Keep = "start",
    ) -> Pairs:
        """The query with each document.

        The query keeps up to half of the window, and its start where it is longer; a document gets
        what is left. max_tokens: of a document at most so many; None: all that fit. keep: which
        part of a longer document stays.
        """
        own = self.max_tokens - self.special_tokens
        of_query, of_document = self._leads
        [asked] = self._ids([self._template.leads[0] + query])
        lead, asked = asked[:of_query], asked[of_query:]
        query_limit = own // 2
        read = asked[:query_limit]
        limit = own - len(read)
        if max_tokens is not None:
            limit = min(limit, max_tokens)
        items: list[Tokenized] = []
        lengths: list[int] = []
        for group in in_groups(documents):
            for led in self._ids([self._template.leads[1] + text for text in group]):
                head, ids = led[:of_document], led[of_document:]
                kept = ids[max(0, len(ids) - limit) :] if keep == "end" else ids[:limit]
                items.append(self._template.join(lead + read, head + kept, len(ids) - len(kept)))
                lengths.append(len(kept))
        return Pairs(items, lengths, len(asked) - len(read), query_limit, limit)

    def _ids(self, texts: Sequence[str]) -> list[list[int]]:
        """The token ids of each text, without special ones."""
        encodings = self._tokenizer.encode_batch_fast(texts, add_special_tokens=False)
        return [encoding.ids for encoding in encodings]


def _template(tokenizer: Tokenizer, path: Path) -> Template:
    """What the tokenizer makes of two texts, read off from a pair of words."""
    pair = tokenizer.encode("a", "a")
    sides = pair.sequence_ids
    if 0 not in sides or 1 not in sides or sides.index(0) > sides.index(1):
        raise ModelError(path, "does not put a query before a document")
    ends = (
        sides.index(0),
        len(sides) - sides[::-1].index(0),
        sides.index(1),
        len(sides) - sides[::-1].index(1),
    )
    ids, types = pair.ids, pair.type_ids
    return Template(
        ids[: ends[0]],
        ids[ends[1] : ends[2]],
        ids[ends[3] :],
        (
            types[: ends[0]],
            types[ends[0]],
            types[ends[1] : ends[2]],
            types[ends[2]],
            types[ends[3] :],
        ),
    )
