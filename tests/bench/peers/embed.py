"""embed beside its peers: the same model on the same cores, each measured while the others sleep.

    make bench-peers
    python -m tests.bench.peers.embed FOLDER [--rounds 5] [--threads 2]

FOLDER is a collection in BEIR layout; its texts are what is embedded, none of them twice. In every
round all contenders take each load in turn, in another order each time:
(a) one short query at a time; (b) eight requests at once, of 64 mixed texts each; (c) 16 clients,
each with one mixed text at a time. All are asked over HTTP, the libraries behind a small server,
except for (b), where the libraries run bare, all 512 texts in one call; for (a) their bare time is
told too. All read 256 tokens of a text at most, have as many threads, and no cache of vectors.
Vectors travel as base64. The client has the same cores.
"""

import argparse
import asyncio
import base64
import json
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain, islice
from pathlib import Path
from typing import Self

import aiohttp
import numpy as np
import onnx
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from shared.encoder.graph import Float32, encoder_graph
from shared.encoder.weights import open_weights, read_config
from shared.modelstore.store import ModelStore
from shared.settings import Settings
from tests.bench.peers.contenders import MODEL, Contender, Contenders, python_of
from tests.bench.peers.texts import mixed, queries

QUERIES = 40  # in a round of (a), the libraries run half of them bare
REQUESTS, TEXTS = 8, 64  # of (b)
CLIENTS, TURNS = 16, 8  # of (c)
LIKE_MEAN, LIKE_LEAST = 0.99, 0.97  # cosine to the reference: int8 is not fp32
REFERENCE = "sentence-transformers"


@dataclass
class Entrant:
    """A contender and what was measured of it: milliseconds of single texts, texts a second.

    bare_ms: of a query within the library's process.
    """

    contender: Contender
    library: bool
    query_ms: list[float] = field(default_factory=list)
    bare_ms: list[float] = field(default_factory=list)
    bulk_rate: list[float] = field(default_factory=list)
    client_ms: list[float] = field(default_factory=list)
    client_rate: list[float] = field(default_factory=list)


@dataclass(frozen=True)
class Round:
    """The texts of one round: of (a), of each request of (b), of each client of (c)."""

    queries: list[str]
    requests: list[list[str]]
    clients: list[list[str]]

    @classmethod
    def draw(cls, short: Iterator[str], long: Iterator[str], texts: int) -> "Round":
        """The next texts. texts: in a request of (b)."""
        return cls(
            list(islice(short, QUERIES)),
            [list(islice(long, texts)) for _ in range(REQUESTS)],
            [list(islice(long, TURNS)) for _ in range(CLIENTS)],
        )


class Client:
    """Asks a contender. Anything but success ends the program.

    One for each time that a contender is awake: what sleeps drops the connections of before.
    """

    def __init__(self) -> None:
        self._http = aiohttp.ClientSession(
            timeout=aiohttp.ClientTimeout(total=600), connector=aiohttp.TCPConnector(limit=0)
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._http.close()

    async def post(self, url: str, body: object) -> bytes:
        """The answer's bytes."""
        async with self._http.post(url, json=body) as response:
            data = await response.read()
            if response.status != 200:
                sys.exit(f"{url}: {response.status} {data[:300]!r}")
            return data

    async def embed(self, url: str, texts: Sequence[str]) -> bytes:
        """The vectors of one request, in OpenAI's form."""
        body = {"model": MODEL, "input": texts, "encoding_format": "base64"}
        return await self.post(f"{url}/v1/embeddings", body)

    async def timed(self, url: str, texts: Sequence[str]) -> float:
        """Milliseconds that one request takes."""
        started = time.perf_counter()
        await self.embed(url, texts)
        return (time.perf_counter() - started) * 1000

    async def bare(self, url: str, batches: Sequence[Sequence[str]]) -> list[float]:
        """Seconds that each call of the library takes, within its process."""
        seconds: list[float] = json.loads(await self.post(f"{url}/bare", {"batches": batches}))
        return seconds

    async def vectors(self, url: str, texts: Sequence[str]) -> NDArray[np.float32]:
        """Unit vectors of the texts, float32 [n, d]."""
        answer = json.loads(await self.embed(url, texts))
        rows = [base64.b64decode(one["embedding"]) for one in answer["data"]]
        found = np.stack([np.frombuffer(row, "<f4") for row in rows])
        unit: NDArray[np.float32] = found / np.linalg.norm(found, axis=1, keepdims=True)
        return unit


async def measure(entrant: Entrant, texts: Round) -> None:
    """One round of one contender."""
    with entrant.contender.awake() as url:
        async with Client() as client:
            await client.embed(url, ["is anyone awake?"])
            entrant.query_ms += [await client.timed(url, [query]) for query in texts.queries[::2]]
            if entrant.library:
                seconds = await client.bare(url, [[query] for query in texts.queries[1::2]])
                entrant.bare_ms += [1000 * one for one in seconds]
                [taken] = await client.bare(url, [list(chain.from_iterable(texts.requests))])
            else:
                entrant.query_ms += [
                    await client.timed(url, [query]) for query in texts.queries[1::2]
                ]
                started = time.perf_counter()
                await asyncio.gather(*(client.embed(url, request) for request in texts.requests))
                taken = time.perf_counter() - started
            entrant.bulk_rate.append(sum(map(len, texts.requests)) / taken)

            async def turns(own: Sequence[str]) -> list[float]:
                return [await client.timed(url, [text]) for text in own]

            started = time.perf_counter()
            times = await asyncio.gather(*map(turns, texts.clients))
            entrant.client_rate.append(CLIENTS * TURNS / (time.perf_counter() - started))
            entrant.client_ms += list(chain.from_iterable(times))


def start(contenders: Contenders, folder: Path, scratch: Path, batch: int) -> list[Entrant]:
    """Every contender, asleep. refdesk's own come first."""
    settings = Settings()
    fp32 = fastembed_folder(folder, scratch / "fastembed")
    ours = contenders.service("refdesk", "embed", scratch / "data", REFDESK_EMBED_CACHE_MB="0")
    loop = contenders.worker(
        "refdesk, bare loop", "refdesk", folder, batch=settings.embed_batch_tokens
    )
    torch = contenders.worker(REFERENCE, "sentence-transformers", folder, batch=batch)
    fastembed = contenders.worker(
        "fastembed", "fastembed", fp32, batch=batch, python=python_of("fastembed")
    )
    infinity = contenders.infinity("Infinity", folder, batch=batch)
    return [
        Entrant(ours, library=False),
        Entrant(loop, library=True),
        Entrant(torch, library=True),
        Entrant(fastembed, library=True),
        Entrant(infinity, library=False),
    ]


def fastembed_folder(model: Path, folder: Path) -> Path:
    """The model as fastembed takes it: fp32 ONNX, and its window where it looks for it."""
    folder.mkdir(parents=True)
    for name in ("config.json", "tokenizer.json", "special_tokens_map.json"):
        shutil.copy(model / name, folder)
    with open_weights(model) as weights:
        graph = encoder_graph(read_config(model), weights, Float32())
    onnx.save(graph, folder / "model.onnx")
    window = json.loads((model / "sentence_bert_config.json").read_text())["max_seq_length"]
    tokenizer = json.loads((model / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(
        json.dumps(tokenizer | {"model_max_length": window})
    )
    return folder


async def require_likeness(entrants: Sequence[Entrant], texts: list[str]) -> None:
    """End the program unless all make the same vectors, but for their precision."""
    found = {}
    for one in entrants:
        with one.contender.awake() as url:
            async with Client() as client:
                found[one.contender.name] = await client.vectors(url, texts)
    for name, own in found.items():
        cosines = (own * found[REFERENCE]).sum(axis=1)
        like = f"cosine to {REFERENCE}: mean {cosines.mean():.5f}, least {cosines.min():.5f}"
        print(f"{name}: {like}", file=sys.stderr)
        if cosines.mean() < LIKE_MEAN or cosines.min() < LIKE_LEAST:
            sys.exit(f"{name} makes other vectors than {REFERENCE}")


def table(entrants: Sequence[Entrant]) -> Table:
    """What was measured, a row for each."""
    found = Table(
        "",
        "(a) query p50 / p95 ms",
        "(a) bare p50 ms",
        "(b) 8 x 64 texts/s (by round)",
        "(c) 16 x 1 texts/s (by round)",
        "(c) p50 / p99 ms",
    )
    for one in entrants:
        found.add_row(
            one.contender.name,
            f"{statistics.median(one.query_ms):.1f} / {np.quantile(one.query_ms, 0.95):.1f}",
            f"{statistics.median(one.bare_ms):.1f}" if one.library else "",
            _rates(one.bulk_rate),
            _rates(one.client_rate),
            f"{statistics.median(one.client_ms):.0f} / {np.quantile(one.client_ms, 0.99):.0f}",
        )
    return found


def _rates(rates: Sequence[float]) -> str:
    return f"{statistics.median(rates):.1f} ({', '.join(f'{rate:.0f}' for rate in rates)})"


def verdict(entrants: Sequence[Entrant]) -> Iterator[str]:
    """refdesk against the best peer of each load, and against its own bare loop."""
    ours, loop, *peers = entrants
    mine = statistics.median(ours.query_ms)
    best = min(statistics.median(one.query_ms) for one in peers)
    yield f"(a) p50 {mine:.1f} ms, {mine / best:.2f} of the best peer's (asked: ≤ 5 ms, ≤ 0.33)"
    bulk = statistics.median(ours.bulk_rate)
    best = max(statistics.median(one.bulk_rate) for one in peers)
    yield f"(b) {bulk / best:.2f} times the best peer's rate (asked: ≥ 1.5)"
    by_round = zip(ours.bulk_rate, loop.bulk_rate, strict=True)
    cost = statistics.median(bare / served - 1 for served, bare in by_round)
    yield f"(b) HTTP, JSON and batching: {cost:+.1%} of the bare loop's time (asked: ≤ 10 %)"
    rate = statistics.median(ours.client_rate)
    best = max(statistics.median(one.client_rate) for one in peers)
    late = min(float(np.quantile(one.client_ms, 0.99)) for one in peers)
    yield (
        f"(c) {rate / best:.2f} times the best peer's rate (asked: ≥ 1.5), p99 "
        f"{np.quantile(ours.client_ms, 0.99):.0f} ms, the best peer's {late:.0f} ms"
    )


async def run(options: argparse.Namespace, scratch: Path) -> None:
    """Start all, compare their vectors, measure, print."""
    model = ModelStore(Settings().models_dir).require(MODEL).path
    short, long = queries(options.folder), mixed(options.folder)
    with Contenders(scratch, options.threads) as contenders:
        entrants = start(contenders, model, scratch, options.batch)
        await require_likeness(entrants, list(islice(long, 32)))
        for number in range(-1, options.rounds):
            texts = Round.draw(short, long, TEXTS if number >= 0 else TEXTS // 8)
            turn = max(number, 0) % len(entrants)
            for entrant in entrants[turn:] + entrants[:turn]:
                await measure(entrant, texts)
                print(f"round {number}: {entrant.contender.name}", file=sys.stderr)
            if number < 0:  # each loads and lays out its weights
                for one in entrants:
                    for name in (
                        "query_ms",
                        "bare_ms",
                        "bulk_rate",
                        "client_ms",
                        "client_rate",
                    ):
                        getattr(one, name).clear()
    Console(width=140).print(table(entrants), *verdict(entrants), sep="\n")


def main() -> None:
    """Read the command line and run."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2, help="and cores, for each")
    parser.add_argument("--batch", type=int, default=32, help="texts in a batch of a peer")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        asyncio.run(run(options, Path(scratch)))


if __name__ == "__main__":
    main()
