"""Corpora of any size to measure the desk and its peers on: the same texts and vectors for all.

    python -m tests.bench.search.corpus FOLDER DATASETS [--chunks 10000] [--real 12000]

DATASETS is the folder of the test collections, in BEIR layout. SciFact comes first, the documents
that its test queries were judged on before all others, then NFCorpus, Cranfield and SQuAD in turn:
cut by refdesk's own chunker and embedded by embed, once, and kept in FOLDER/real. What is missing
is invented, five chunks a document about the subject of one real chunk. Each has sentences of two
of that chunk's nearest neighbours, two words that hardly any other has, and the length of some real
chunk; its vector is a mix of those neighbours' vectors, with noise that varies as real vectors do.
Nothing invented borrows from a judged document, so judgements hold at every size. The same
arguments give the same corpus.

FOLDER/<chunks>/ then has, a line or row for each chunk, in the order of the documents:
chunks.jsonl   {"document", "title", "text", "tokens", "shelf"}; one of 100 shelves a document
vectors.npy    float32 [chunks, d], unit rows
and FOLDER/real/ the questions, none of which is in a corpus:
queries.jsonl  {"id", "text", "judged"}; SciFact's test queries are judged
queries.npy    float32 [queries, d], unit rows
qrels.json     {query: {document: relevance}}
"""

import argparse
import json
import re
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import chain, zip_longest
from pathlib import Path

import httpx
import numpy as np
from numpy.typing import NDArray
from rich.progress import track

from services.retrieve.corpus.chunk import TokenCounter, chunk, title_line
from services.retrieve.stores.corpus import CorpusSpec, ModelStamp
from shared.cli.collection import Collection, CollectionDocument, read_collection
from shared.vectors import read_vectors
from tests.suite import prepare_suite

Floats = NDArray[np.float32]

JUDGED = "scifact"
OTHERS = {"nfcorpus": "test", "cranfield": "test", "squad-v1-dev": "sample1000"}
QUESTIONS = 200  # of each of the others
SPEC = CorpusSpec("bench", chunk_overlap=0)
SHELVES = 100
BATCH = 64  # texts in a request to embed
IN_DOCUMENT = 5  # chunks of an invented document
NEAR = 10  # neighbours that a chunk is mixed with
NOISE = 0.4  # standard deviations
RARE_WORDS = 200_000
PART = 2_000  # chunks that are compared or invented at a time

_SENTENCE = re.compile(r"(?<=[.!?])\s+")


@dataclass(frozen=True)
class Chunk:
    """A line of chunks.jsonl. shelf: metadata that one in a hundred documents shares."""

    document: str
    title: str
    text: str
    tokens: int
    shelf: int


@dataclass(frozen=True)
class Real:
    """Real chunks that others may be made of, with vectors, float32 [n, d].

    near: the places of each one's nearest neighbours, int64 [n, NEAR]. spread: what turns standard
    normal numbers into ones that vary as the vectors do, float32 [d, d].
    """

    chunks: list[Chunk]
    vectors: Floats
    near: NDArray[np.int64]
    spread: Floats

    @classmethod
    def of(cls, chunks: list[Chunk], vectors: Floats) -> "Real":
        """Find the neighbours, a part at a time."""
        near = np.empty((len(vectors), NEAR), np.int64)
        for start in range(0, len(vectors), PART):
            similar = vectors[start : start + PART] @ vectors.T
            places = np.arange(len(similar))
            similar[places, start + places] = -1.0  # itself
            near[start : start + PART] = np.argpartition(-similar, NEAR, axis=1)[:, :NEAR]
        covariance = np.cov(vectors.T) + 1e-6 * np.eye(vectors.shape[1])
        return cls(chunks, vectors, near, np.linalg.cholesky(covariance).astype(np.float32))


@dataclass(frozen=True)
class Query:
    """A question. judged: it has judgements."""

    id: str
    text: str
    judged: bool


def chunks_of(folder: Path) -> Iterator[Chunk]:
    """The chunks in a folder that `make` made, or in FOLDER/real."""
    with (folder / "chunks.jsonl").open(encoding="utf-8") as lines:
        for line in lines:
            yield Chunk(**json.loads(line))


def queries_of(folder: Path) -> tuple[list[Query], Floats]:
    """The questions of FOLDER, and their vectors."""
    lines = (folder / "real" / "queries.jsonl").read_text(encoding="utf-8").splitlines()
    return [Query(**json.loads(line)) for line in lines], np.load(folder / "real" / "queries.npy")


def stamp_of(folder: Path) -> ModelStamp:
    """The model that made the vectors in FOLDER."""
    told = json.loads((folder / "real" / "about.json").read_text())
    return ModelStamp(**told["stamp"])


def make(folder: Path, datasets: Path, chunks: int, real: int) -> Path:
    """The folder of a corpus of so many chunks; it is only made where it is not there yet."""
    place = folder / str(chunks)
    about = folder / "real" / "about.json"
    if not about.exists() or json.loads(about.read_text())["asked"] != real:
        shutil.rmtree(folder, ignore_errors=True)  # corpora of other real chunks, too
        _embed_real(folder / "real", datasets, real)
    if (place / "vectors.npy").exists():
        return place
    place.mkdir(parents=True, exist_ok=True)
    real_chunks = list(chunks_of(folder / "real"))
    real_vectors: Floats = np.load(folder / "real" / "vectors.npy")
    judged = json.loads(about.read_text())["judged"]
    first = min(chunks, len(real_chunks))
    found = np.lib.format.open_memmap(
        place / "vectors.npy.part", "w+", np.float32, (chunks, real_vectors.shape[1])
    )
    found[:first] = real_vectors[:first]
    with (place / "chunks.jsonl").open("w", encoding="utf-8") as lines:
        lines.writelines(map(_line, real_chunks[:first]))
        if chunks > first:
            source = Real.of(real_chunks[judged:], real_vectors[judged:])
            for start in track(range(first, chunks, PART), f"inventing {chunks - first} chunks"):
                texts, vectors = _invent(source, start - first, min(PART, chunks - start))
                found[start : start + len(texts)] = vectors
                lines.writelines(map(_line, texts))
    found.flush()
    (place / "vectors.npy.part").rename(place / "vectors.npy")  # it is whole now
    return place


def _embed_real(place: Path, datasets: Path, most: int) -> None:
    """Chunk and embed real documents until there are `most` chunks, and the questions."""
    judged = read_collection(datasets / JUDGED)
    others = [read_collection(datasets / name, split) for name, split in OTHERS.items()]
    queries = [Query(one, text, judged=True) for one, text in judged.queries.items()]
    for other in others:
        texts = list(other.queries.items())[:QUESTIONS]
        queries += [Query(f"{other.name}:{one}", text, judged=False) for one, text in texts]
    with tempfile.TemporaryDirectory() as scratch:
        suite = prepare_suite(Path(scratch), REFDESK_LOG_LEVEL="warning")
        try:
            with httpx.Client(base_url=suite.url("embed"), timeout=600) as embed:
                info = embed.get("/info").raise_for_status().json()
                stamp = ModelStamp(info["model"], info["revision"], info["dimension"])
                name = f"/v1/models/{info['model']}/tokenizer"
                counter = TokenCounter(embed.get(name).raise_for_status().content)
                chunks, inputs, borders = _cut(judged, others, counter, most)
                vectors = _vectors(embed, inputs, "document")
                asked = _vectors(embed, [query.text for query in queries], "query")
        finally:
            suite.stop()
    place.mkdir(parents=True)
    np.save(place / "vectors.npy", vectors)
    np.save(place / "queries.npy", asked)
    (place / "chunks.jsonl").write_text("".join(map(_line, chunks)), encoding="utf-8")
    (place / "queries.jsonl").write_text("".join(map(_line, queries)), encoding="utf-8")
    (place / "qrels.json").write_text(json.dumps(judged.qrels))
    about = {"asked": most, "judged": borders, "stamp": asdict(stamp)}
    (place / "about.json").write_text(json.dumps(about))


def _cut(
    judged: Collection, others: Sequence[Collection], counter: TokenCounter, most: int
) -> tuple[list[Chunk], list[str], int]:
    """Chunks, what embed reads of each, and how many of them are of judged documents."""
    relevant = {document for found in judged.qrels.values() for document in found}
    by_judgement = sorted(judged.documents, key=lambda document: document.id not in relevant)
    mixed = chain.from_iterable(zip_longest(*(other.documents for other in others)))
    documents: chain[CollectionDocument | None] = chain(by_judgement, mixed)
    chunks: list[Chunk] = []
    inputs: list[str] = []
    count = 0
    for number, document in enumerate(documents):
        if document is None or not document.text.strip():
            continue
        parts = chunk(document.text, document.title or None, (), counter, SPEC.chunk_tokens, 0)
        if len(chunks) + len(parts) > most:
            break
        line = title_line(document.title or None, counter, SPEC.chunk_tokens)
        # Collections number their documents alike; the judged one keeps its own ids.
        name = document.id if number < len(by_judgement) else f"x{number}"
        shelf = number % SHELVES
        chunks += [Chunk(name, document.title, one.text, one.tokens, shelf) for one in parts]
        inputs += [line + one.text for one in parts]
        count = len(chunks) if number < len(relevant) else count
    if count == len(chunks):
        sys.exit(f"--real {most} leaves no room for documents that were not judged")
    return chunks, inputs, count


def _vectors(embed: httpx.Client, texts: Sequence[str], kind: str) -> Floats:
    """Unit vectors of the texts, by embed."""
    found = []
    for at in track(range(0, len(texts), BATCH), f"embedding, {kind}"):
        batch = texts[at : at + BATCH]
        body = {"input": batch, "input_type": kind, "encoding_format": "base64"}
        answer = embed.post("/v1/embeddings", json=body).raise_for_status().json()
        found.append(read_vectors(answer, len(batch)))
    return np.concatenate(found)


def _line(row: Chunk | Query) -> str:
    return json.dumps(asdict(row), ensure_ascii=False) + "\n"


def _invent(source: Real, start: int, count: int) -> tuple[list[Chunk], Floats]:
    """The invented chunks `start`… of a corpus, `count` of them, with their vectors."""
    random = np.random.default_rng([7, start])
    subjects = random.integers(len(source.chunks), size=-(-count // IN_DOCUMENT))
    subject = np.repeat(subjects, IN_DOCUMENT)[:count]
    one, other = source.near[subject, random.integers(NEAR, size=(2, count))]
    share = random.uniform(0.3, 1.0, size=(count, 1)).astype(np.float32)
    noise = random.standard_normal((count, source.vectors.shape[1]), np.float32) @ source.spread.T
    mixed = share * source.vectors[one] + (1 - share) * source.vectors[other] + NOISE * noise
    unit: Floats = mixed / np.linalg.norm(mixed, axis=1, keepdims=True)
    return [
        Chunk(
            f"made-{(start + place) // IN_DOCUMENT}",
            source.chunks[subject[place]].title,
            *_write(source, (source.chunks[one[place]], source.chunks[other[place]]), random),
            (start + place) // IN_DOCUMENT % SHELVES,
        )
        for place in range(count)
    ], unit


def _write(
    source: Real, parents: tuple[Chunk, Chunk], random: np.random.Generator
) -> tuple[str, int]:
    """Sentences of two chunks, in any order, as long as some real chunk, and its tokens."""
    both = [one for parent in parents for one in _SENTENCE.split(parent.text)]
    sentences = list(dict.fromkeys(both))  # they may be the same chunk
    length = len(source.chunks[int(random.integers(len(source.chunks)))].text)
    rare = [_name(int(number)) for number in random.integers(RARE_WORDS, size=2)]
    parts = [f"See {' and '.join(rare)}."]
    size = len(parts[0])
    for place in random.permutation(len(sentences)):
        if size >= length:
            break
        parts.append(sentences[place])
        size += len(sentences[place]) + 1
    text = " ".join(parts)
    tokens = sum(parent.tokens for parent in parents) / sum(len(parent.text) for parent in parents)
    return text, round(len(text) * tokens)


def _name(number: int) -> str:
    """A word that no language has, always the same for a number."""
    syllables = []
    for _ in range(4):
        number, place = divmod(number, 70)
        syllables.append("bdfgklmnprstvz"[place // 5] + "aeiou"[place % 5])
    return "".join(syllables)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What every script on these corpora is told of them."""
    parser.add_argument("folder", type=Path, help="where corpora are made and kept")
    parser.add_argument("datasets", type=Path, help="the folder of the test collections")
    parser.add_argument("--real", type=int, default=12_000, help="chunks that embed reads")


def main() -> None:
    """Make one corpus."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    add_arguments(parser)
    parser.add_argument("--chunks", type=int, default=10_000)
    options = parser.parse_args()
    print(make(options.folder, options.datasets, options.chunks, options.real))


if __name__ == "__main__":
    main()
