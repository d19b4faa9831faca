"""The documents and questions that `tests.bench.chunking` asks."""

import json
import math
import re
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from markdown_it import MarkdownIt

from services.retrieve.stores.outline import Mark, MarkKind, Outline
from shared.cli.collection import read_collection
from tests.bench.chunking_ways import Piece
from tests.suite import REPOSITORY

_DEPTH = 10
_OTHERS = 700  # documents of a collection that are not judged
_SENTENCE = re.compile(r"\A[^\n]{40,300}?[.!?](?=\s+\S)")
_LEAST = 200  # characters of a section that is asked for


@dataclass(frozen=True)
class Source:
    """A document, parsed."""

    id: str
    title: str
    text: str
    outline: Outline = ()


@dataclass(frozen=True)
class Question:
    """A question. wanted: for documents of any chunk, their relevance; or a span of one document.

    group: what decides in which half it is.
    """

    text: str
    group: str
    documents: Mapping[str, int]
    span: tuple[int, int] | None = None
    answer: bool = False  # whether the span must be in the chunk as a whole

    def found(self, source: Source, piece: Piece) -> bool:
        """Whether a chunk is what was asked for."""
        if source.id not in self.documents:
            return False
        if self.span is None:
            return True
        common = min(piece.end, self.span[1]) - max(piece.start, self.span[0])
        length = self.span[1] - self.span[0]
        if self.answer:
            return common == length
        return common * 2 >= min(length, piece.end - piece.start)

    def ndcg(self, ranked: Sequence[tuple[Source, Piece]]) -> float:
        """nDCG@10 of the first chunk of each document, or of the first one that has the span."""
        if self.span is not None:
            for rank, (source, piece) in enumerate(ranked[:_DEPTH]):
                if self.found(source, piece):
                    return 1 / math.log2(rank + 2)
            return 0.0
        names = list(dict.fromkeys(source.id for source, _ in ranked))[:_DEPTH]
        gains = [self.documents.get(name, 0) for name in names]
        best = sorted(self.documents.values(), reverse=True)[:_DEPTH]
        return _dcg(gains) / _dcg(best)


def _dcg(gains: Sequence[int]) -> float:
    return sum(gain / math.log2(rank + 2) for rank, gain in enumerate(gains))


Loaded = tuple[list[Source], list[Question]]


def collections(datasets: Path, markdown: Sequence[Path] | None) -> dict[str, Callable[[], Loaded]]:
    """What loads each collection, by name."""
    folders = markdown or [REPOSITORY / "docs"]
    return {
        "squad": partial(_squad, datasets / "squad-v1-dev"),
        "scifact": partial(_abstracts, datasets / "scifact"),
        "cranfield": partial(_abstracts, datasets / "cranfield"),
        "headings": partial(_markdown, folders, asked_by_heading=True),
        "sentences": partial(_markdown, folders, asked_by_heading=False),
    }


def _squad(folder: Path) -> Loaded:
    paragraphs = read_collection(folder)
    articles: dict[str, list[tuple[str, str]]] = {}
    for one in paragraphs.documents:
        articles.setdefault(one.title, []).append((one.id, one.text))
    sources, places = [], {}
    for title, own in articles.items():
        at = 0
        for name, text in own:
            places[name] = (title, at, text)
            at += len(text) + 2
        sources.append(Source(title, title, "\n\n".join(text for _, text in own)))
    questions = []
    for line in (folder / "queries.jsonl").read_text("utf-8").splitlines():
        query = json.loads(line)
        ((name, _),) = paragraphs.qrels[query["_id"]].items()
        title, at, text = places[name]
        answer = query["answers"][0]
        start = at + text.index(answer)
        questions.append(
            Question(query["text"], title, {title: 1}, (start, start + len(answer)), answer=True)
        )
    return sources, questions


def _abstracts(folder: Path) -> Loaded:
    read = read_collection(folder)
    judged = {name for own in read.qrels.values() for name, gain in own.items() if gain > 0}
    others = [one.id for one in read.documents if one.id not in judged]
    kept = judged | set(sorted(others, key=lambda name: zlib.crc32(name.encode()))[:_OTHERS])
    sources = [
        Source(one.id, one.title, one.text)
        for one in read.documents
        if one.id in kept and one.text.strip()
    ]
    return sources, [
        Question(text, name, {one: gain for one, gain in read.qrels[name].items() if gain > 0})
        for name, text in read.queries.items()
    ]


@dataclass(frozen=True)
class _Block:
    """A block of Markdown. level: of a heading, 0 otherwise. name: a heading's words, or the
    language of code."""

    kind: MarkKind | None
    text: str
    level: int = 0
    name: str = ""


_parser = MarkdownIt("commonmark").enable("table")


def _blocks(source: str) -> list[_Block]:
    lines = source.split("\n")
    tokens = _parser.parse(source)
    found = []
    for place, token in enumerate(tokens):
        if token.level or token.map is None or token.nesting < 0:
            continue
        text = "\n".join(lines[slice(*token.map)]).strip("\n")
        match token.type:
            case "heading_open":
                words = re.sub(r"[`*]|\[([^]]*)\]\([^)]*\)", r"\1", tokens[place + 1].content)
                found.append(_Block("heading", words, int(token.tag[1:]), words))
            case "fence" | "code_block":
                code = token.content.strip("\n")
                if code.strip():
                    found.append(_Block("code", code, name=token.info.split(" ")[0]))
            case "table_open":
                found.append(_Block("table", text))
            case _:
                if text.strip():
                    found.append(_Block(None, text))
    return found


def _put_together(blocks: Sequence[_Block]) -> tuple[str, Outline, list[tuple[int, int]]]:
    """Text, outline, and where each block lies."""
    text, outline, spans = "", [], []
    for block in blocks:
        text += "\n\n\n" if block.kind == "heading" and text else "\n\n" if text else ""
        start = len(text)
        text += block.text
        spans.append((start, len(text)))
        if block.kind:
            outline.append(Mark(block.kind, start, len(text), block.name, block.level))
        if block.kind == "table":
            for number, row in enumerate(re.finditer(r".+", block.text)):
                outline.append(Mark("row", start + row.start(), start + row.end(), "", number))
    return text, tuple(outline), spans


def _markdown(folders: Sequence[Path], *, asked_by_heading: bool) -> Loaded:
    sources, questions = [], []
    paths = sorted(path for folder in folders for path in folder.rglob("*.md"))
    for path in paths:
        blocks = [one for one in _blocks(path.read_text("utf-8")) if one.text.strip()]
        title = next((one.name for one in blocks if one.level == 1), path.stem)
        name = str(path)
        asked: list[tuple[str, int, int]] = []
        for place, block in enumerate(blocks):
            if block.level < 2:
                continue
            end = place + 1
            while end < len(blocks) and not blocks[end].level:
                end += 1
            body = blocks[place + 1 : end]
            if not body or body[0].kind:
                continue
            if asked_by_heading:
                if (
                    sum(len(one.text) for one in body) < _LEAST
                    or zlib.crc32(block.name.encode()) % 3 == 0
                ):
                    continue
                asked.append((f"{title}: {block.name}", place, end))
                blocks[place] = _Block("heading", "Section", block.level, "Section")
            elif first := _SENTENCE.match(body[0].text):
                rest = body[0].text[first.end() :].strip()
                if len(rest) + sum(len(one.text) for one in body[1:]) < _LEAST:
                    continue
                asked.append((first[0], place, end))
                blocks[place + 1] = _Block(None, rest)
        text, outline, spans = _put_together(blocks)
        if not text.strip():
            continue
        sources.append(Source(name, title, text, outline))
        for question, first_block, last in asked:
            span = (spans[first_block + 1][0], spans[last - 1][1])
            questions.append(Question(question, f"{name}#{first_block}", {name: 1}, span))
    return sources, questions
