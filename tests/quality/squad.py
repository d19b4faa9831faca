"""The questions of SQuAD 2.0 dev, split by article in those for tuning and those for reporting."""

import hashlib
import json
import random
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Question:
    """A question and the paragraph it is about. answers: empty if that does not answer it.

    document_id: empty for a stranger.
    """

    id: str
    text: str
    article: str
    document_id: str
    answers: tuple[str, ...]


def rows(path: Path) -> Iterator[dict[str, Any]]:
    """The objects of a JSON-lines file."""
    with path.open(encoding="utf-8") as file:
        for line in file:
            yield json.loads(line)


def is_tuning(article: str) -> bool:
    """Whether an article's questions are for tuning; the others are reported."""
    return hashlib.sha256(article.encode()).digest()[0] < 128


def questions(folder: Path) -> list[Question]:
    """All questions of the collection, answerable ones first."""
    titles = {row["_id"]: row["title"] for row in rows(folder / "corpus.jsonl")}
    lines = (folder / "qrels.tsv").read_text("utf-8").splitlines()[1:]
    paragraph = {query: document for query, document, _ in (line.split("\t") for line in lines)}
    found = [(row, paragraph[row["_id"]]) for row in rows(folder / "queries.jsonl")]
    found += [
        (row, row["unanswerable_from"]) for row in rows(folder / "queries_unanswerable.jsonl")
    ]
    return [
        Question(row["_id"], row["text"], titles[document], document, tuple(row["answers"]))
        for row, document in found
    ]


def strangers(folder: Path) -> list[Question]:
    """The questions of another collection, each an article of its own."""
    return [
        Question(f"{folder.name} {row['_id']}", row["text"], f"{folder.name} {row['_id']}", "", ())
        for row in rows(folder / "queries.jsonl")
    ]


def sample(asked: Sequence[Question], count: int) -> list[Question]:
    """`count` questions, as evenly over the articles, and within each, as it goes. No chance."""
    by_article: dict[str, list[Question]] = defaultdict(list)
    for one in asked:
        by_article[one.article].append(one)
    share, extra = divmod(count, len(by_article))
    chosen = []
    for place, article in enumerate(sorted(by_article)):
        several = by_article[article]
        wanted = min(len(several), share + (place < extra))
        chosen += [several[step * len(several) // wanted] for step in range(wanted)]
    return chosen


def sampled(every: Sequence[Question], count: int) -> list[Question]:
    """`count` questions of each kind and half, mixed, so that a part of them is a sample, too."""
    found = []
    for half in (True, False):
        for answerable in (True, False):
            kind = [
                one
                for one in every
                if is_tuning(one.article) == half and bool(one.answers) == answerable
            ]
            found += sample(kind, count)
    random.Random(0).shuffle(found)
    return found
