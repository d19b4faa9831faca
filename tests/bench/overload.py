"""Twice the load that a service can bear: what it answers, how late, and how soon it is well again.

    python -m tests.bench.overload FOLDER [--service embed] [--seconds 30] [--queue 8192]

FOLDER is a collection in BEIR layout; no text of it is sent twice. embed gets one mixed text a
request, rerank a query and eight passages of 150 tokens. First one request at a time (the unloaded
p99), then as many clients as keep the model busy (the rate it can bear), then twice that rate,
whatever is answered. Then nothing but a probe every 50 ms: recovered is when one is answered as
fast as unloaded. The queue bound is what a full queue takes at the tokens a second it can bear.
"""

import argparse
import asyncio
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import numpy as np
from rich.console import Console
from rich.table import Table
from tokenizers import Tokenizer

from shared.modelstore.store import ModelStore
from shared.settings import Settings
from tests.bench.peers.contenders import MODEL, Contenders
from tests.bench.peers.texts import mixed, passages, queries

UNLOADED = 100  # requests, one at a time
CLIENTS = 16  # that find the rate, or as many as the queue has room for
PROBE_S = 0.05
PASSAGES = 8


@dataclass(frozen=True)
class Answer:
    """Status, milliseconds and tokens of a request; complete: a 429 has both of its headers."""

    status: int
    milliseconds: float
    tokens: int
    complete: bool = True


Ask = Callable[[], "asyncio.Task[Answer]"]


def embeddings(folder: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Path and body of requests to embed."""
    for text in mixed(folder):
        yield "/v1/embeddings", {"input": text, "encoding_format": "base64"}


def rankings(folder: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """The same of requests to rerank. Once all passages were seen, they start anew at other words,
    so that none is in the cache.
    """
    model = ModelStore(Settings().models_dir).require(MODEL).path
    tokenizer = Tokenizer.from_file(str(model / "tokenizer.json"))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    asked = list(queries(folder))
    texts = list(passages(folder, tokenizer, 150))
    for number in range(sys.maxsize):
        first = number * PASSAGES
        chosen = [texts[place % len(texts)] for place in range(first, first + PASSAGES)]
        fresh = [f"{number} {text}" for text in chosen]
        body = {"query": asked[number % len(asked)], "documents": fresh}
        yield "/rerank", body


def asker(http: aiohttp.ClientSession, requests: Iterator[tuple[str, dict[str, Any]]]) -> Ask:
    """Sends the next request."""

    async def ask(path: str, body: dict[str, Any]) -> Answer:
        started = time.perf_counter()
        async with http.post(path, json=body) as response:
            told = await response.json()
            complete = response.status != 429 or (
                "Retry-After" in response.headers and "x-should-retry" in response.headers
            )
            milliseconds = (time.perf_counter() - started) * 1000
            tokens = told["usage"]["total_tokens"] if response.status == 200 else 0
            return Answer(response.status, milliseconds, tokens, complete)

    return lambda: asyncio.create_task(ask(*next(requests)))


async def bearable(ask: Ask, clients: int, seconds: float) -> tuple[float, float]:
    """Requests and tokens a second that are answered while the model is always busy."""
    end = time.perf_counter() + seconds
    answers: list[Answer] = []

    async def client() -> None:
        while time.perf_counter() < end:
            answers.append(await ask())

    started = time.perf_counter()
    await asyncio.gather(*(client() for _ in range(clients)))
    taken = time.perf_counter() - started
    answered = sum(answer.status == 200 for answer in answers)
    return answered / taken, sum(answer.tokens for answer in answers) / taken


async def flood(ask: Ask, rate: float, seconds: float) -> list["asyncio.Task[Answer]"]:
    """Send so many requests a second, whatever is answered; some may still be on their way."""
    started = time.perf_counter()
    sent = []
    for number in range(int(rate * seconds)):
        await asyncio.sleep(max(0.0, started + number / rate - time.perf_counter()))
        sent.append(ask())
    return sent


async def recovery(ask: Ask, fast_ms: float) -> tuple[float, float]:
    """Seconds until a probe is taken, and until one is answered as fast as unloaded."""
    started = time.perf_counter()
    taken = float("inf")
    while True:
        sent = time.perf_counter() - started
        answer = await ask()
        if answer.status == 200:
            taken = min(taken, sent)
            if answer.milliseconds <= fast_ms:
                return taken, sent
        await asyncio.sleep(PROBE_S)


async def measure(url: str, options: argparse.Namespace) -> Table:
    """All phases, one after another."""
    requests = (embeddings if options.service == "embed" else rankings)(options.folder)
    connector = aiohttp.TCPConnector(limit=0)
    timeout = aiohttp.ClientTimeout(total=600)
    async with aiohttp.ClientSession(url, connector=connector, timeout=timeout) as http:
        ask = asker(http, requests)
        for _ in range(10):
            await ask()
        alone = [await ask() for _ in range(UNLOADED)]
        median, unloaded = np.quantile([answer.milliseconds for answer in alone], [0.5, 0.99])
        tokens = sum(answer.tokens for answer in alone) / UNLOADED
        clients = min(CLIENTS, max(2, int(options.queue / tokens)))
        rate, speed = await bearable(ask, clients, options.seconds / 2)
        sent = await flood(ask, 2 * rate, options.seconds)
        late = asyncio.create_task(recovery(ask, 2 * unloaded))
        answers = await asyncio.gather(*sent)
        taken, well = await late
    bound = options.queue / speed * 1000
    served = [answer.milliseconds for answer in answers if answer.status == 200]
    statuses = Counter(answer.status for answer in answers)
    p50, p99 = np.quantile(served, [0.5, 0.99])
    table = Table(f"{options.service}, a queue of {options.queue} tokens", "asked", "measured")
    table.add_row("unloaded p50 / p99", "", f"{median:.0f} / {unloaded:.0f} ms")
    table.add_row("rate that it can bear", "", f"{rate:.1f} requests/s, {speed:.0f} tokens/s")
    counts = ", ".join(f"{status}: {count}" for status, count in sorted(statuses.items()))
    table.add_row(f"{options.seconds} s at twice that rate", "200 and 429 alone", counts)
    incomplete = sum(not answer.complete for answer in answers)
    table.add_row("429 without Retry-After or x-should-retry", "0", str(incomplete))
    asked = f"p99 ≤ {2 * unloaded + bound:.0f} ms (2 x unloaded p99 + {bound:.0f} ms queue bound)"
    table.add_row("accepted p50 / p99", asked, f"{p50:.0f} / {p99:.0f} ms")
    table.add_row("after it, until a request is taken", "≤ 2 s", f"{taken:.2f} s")
    table.add_row("until one is as fast as unloaded", "≤ 2 s", f"{well:.2f} s")
    return table


def main() -> None:
    """Start the service, measure, print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--service", choices=["embed", "rerank"], default="embed")
    parser.add_argument("--seconds", type=float, default=30, help="of the flood")
    parser.add_argument("--queue", type=int, default=8192, help="tokens that may wait")
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    prefix = f"REFDESK_{options.service.upper()}"
    limits = {f"{prefix}_QUEUE_TOKENS": str(options.queue), f"{prefix}_CACHE_MB": "0"}
    with (
        tempfile.TemporaryDirectory() as folder,
        Contenders(Path(folder), options.threads) as contenders,
        contenders.service(
            options.service, options.service, Path(folder) / "data", **limits
        ).awake() as url,
    ):
        table = asyncio.run(measure(url, options))
    Console(width=130).print(table)


if __name__ == "__main__":
    main()
