"""Reads a test collection in BEIR's layout: documents, queries and judgements.

    corpus.jsonl            {"_id", "title", "text"} per line
    queries.jsonl           {"_id", "text"} per line
    qrels.tsv               query-id, corpus-id, score; with that header

Another split has its name in the last two: queries_dev.jsonl, qrels_dev.tsv.
Layout: https://github.com/beir-cellar/beir/wiki/Load-your-custom-dataset
"""

import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from shared.cli.failures import CliError

_HEADER = ["query-id", "corpus-id", "score"]


@dataclass(frozen=True)
class CollectionDocument:
    """A document. title may be empty."""

    id: str
    title: str
    text: str


@dataclass(frozen=True)
class Collection:
    """A collection with one split's queries.

    queries: text by id, only those with judgements. qrels: relevance by document id by query id,
    0 is not relevant. digest: hash of the documents, hex.
    """

    name: str
    documents: list[CollectionDocument]
    queries: dict[str, str]
    qrels: dict[str, dict[str, int]]
    digest: str


def read_collection(folder: Path, split: str = "test") -> Collection:
    """Read the collection in `folder`. Raises CliError naming the file and line at fault."""
    if not folder.is_dir():
        raise CliError(f"there is no folder {folder}")
    suffix = "" if split == "test" else f"_{split}"
    corpus_path = _existing(folder, "corpus.jsonl")
    queries_path = _existing(folder, f"queries{suffix}.jsonl")
    qrels_path = _existing(folder, f"qrels{suffix}.tsv")
    documents: dict[str, CollectionDocument] = {}
    for where, data in _lines(corpus_path):
        identifier = _text(data, "_id", where)
        if identifier in documents:
            raise CliError(f"{where}: document '{identifier}' was there before")
        title = data.get("title") or ""
        if not isinstance(title, str):
            raise CliError(f"{where}: the field title must be a text")
        documents[identifier] = CollectionDocument(identifier, title, _text(data, "text", where))
    texts = {
        _text(data, "_id", where): _text(data, "text", where)
        for where, data in _lines(queries_path)
    }
    qrels = _read_qrels(qrels_path)
    queries = {identifier: text for identifier, text in texts.items() if identifier in qrels}
    missing = sorted(set(qrels) - set(queries))
    if missing:
        raise CliError(f"{qrels_path} judges query '{missing[0]}', which {queries_path} lacks")
    if not documents:
        raise CliError(f"{corpus_path} holds no document")
    if not queries:
        raise CliError(f"{qrels_path} holds no judgement")
    digest = hashlib.sha256(corpus_path.read_bytes()).hexdigest()
    name = folder.resolve().name
    return Collection(name, list(documents.values()), queries, qrels, digest)


def corpus_name(collection: Collection) -> str:
    """A corpus name that stands for exactly these documents: eval-FOLDER-HASH."""
    folder = re.sub(r"[^a-z0-9]+", "-", collection.name.lower()).strip("-")[:40]
    return f"eval-{folder or 'collection'}-{collection.digest[:12]}"


def _existing(folder: Path, name: str) -> Path:
    path = folder / name
    if not path.is_file():
        there = sorted(one.name for one in folder.glob("*.*") if one.suffix in (".jsonl", ".tsv"))
        raise CliError(f"there is no {name} in {folder}; there are {', '.join(there) or 'no such'}")
    return path


def _lines(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Each object of a JSON-lines file, with ``FILE:LINE`` for messages."""
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            where = f"{path}:{number}"
            try:
                data = orjson.loads(line)
            except orjson.JSONDecodeError as error:
                raise CliError(f"{where}: not JSON in UTF-8: {error.msg}") from None
            if not isinstance(data, dict):
                raise CliError(f"{where}: not a JSON object")
            yield where, data


def _text(data: dict[str, Any], name: str, where: str) -> str:
    value = data.get(name)
    if not isinstance(value, str):
        raise CliError(f"{where}: the field {name} must be a text")
    return value


def _read_qrels(path: Path) -> dict[str, dict[str, int]]:
    qrels: dict[str, dict[str, int]] = {}
    try:
        lines = path.read_text("utf-8").splitlines()
    except UnicodeDecodeError:
        raise CliError(f"{path}: not UTF-8") from None
    if not lines or lines[0].split("\t") != _HEADER:
        raise CliError(f"{path}:1: the header must be {', '.join(_HEADER)}, with tabs between")
    for number, line in enumerate(lines[1:], start=2):
        if not line.strip():
            continue
        try:
            query, document, score = line.split("\t")
            qrels.setdefault(query, {})[document] = int(score)
        except ValueError:
            raise CliError(
                f"{path}:{number}: expected a query, a document and a whole number, "
                "with tabs between"
            ) from None
    return qrels
