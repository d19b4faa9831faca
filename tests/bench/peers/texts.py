"""Real texts of a collection in BEIR layout, each given once, in an order that is always the same.

No text comes twice, so no cache of vectors has what is measured.
"""

import json
import random
from collections.abc import Iterator
from itertools import count
from pathlib import Path

from tokenizers import Tokenizer

WORDS = (None, 8, 16, 32, 64, 128, 400)  # in a piece of a document; None: its title


def records(path: Path) -> list[dict[str, str]]:
    """The lines of a file of JSON lines, shuffled."""
    with path.open(encoding="utf-8") as lines:
        found = [json.loads(line) for line in lines]
    random.Random(0).shuffle(found)
    return found


def queries(folder: Path) -> Iterator[str]:
    """Short queries, of all splits."""
    for path in sorted(folder.glob("queries*.jsonl")):
        yield from (record["text"] for record in records(path))


def mixed(folder: Path) -> Iterator[str]:
    """Titles and pieces of documents, from 8 words to the whole, in turn."""
    documents = records(folder / "corpus.jsonl")
    seen: set[str] = set()
    for first in count():
        for place, document in enumerate(documents):
            size = WORDS[(place + first) % len(WORDS)]
            words = document["text"].split()[5 * first :]
            text = " ".join(words[:size]) if size else document["title"]
            if text and text not in seen:
                seen.add(text)
                yield text


def passages(folder: Path, tokenizer: Tokenizer, tokens: int) -> Iterator[str]:
    """Starts of documents, each of so many tokens (special ones not counted)."""
    for document in records(folder / "corpus.jsonl"):
        offsets = tokenizer.encode(document["text"], add_special_tokens=False).offsets
        if len(offsets) >= tokens:
            yield document["text"][: offsets[tokens - 1][1]]
