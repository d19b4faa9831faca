"""What generate adds to the model server behind it.

    python -m tests.bench.overhead [--rate 200] [--seconds 20] [--streams 300]

A desk, a librarian and a model server that take no time of their own (model_server.py) run in one
process, generate in another, this client in a third. `whole`: requests come at a fixed rate,
whether earlier ones are answered or not, and each counts from when it was due; the draft is
verified strictly and put on record. What is told is the time of the answer without what the model
server took to think and without the desk's. `streams`: on a route with light checks; each token
carries the time at which it was written. A stall is the longest time between two tokens of a
stream beyond that at which they were written.
"""

import argparse
import asyncio
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import aiohttp
import httpx
import orjson
import uvloop
from rich.console import Console
from rich.table import Table

from tests.suite import free_port

THINK_MS = 50
GAP_MS = 50
TOKENS = 100
QUESTION = "Which port does the rerank service listen on?"
POLICY = """\
version: 1
classes: [open]
default_class: open
models:
  whole: {{tier: careful, kind: openai, url: "{server}/1/{think}/0/v1", model: m,
    price: {{input: 1, output: 1}}}}
  streamed: {{tier: quick, kind: openai, url: "{server}/{tokens}/{think}/{gap}/v1", model: m,
    price: {{input: 1, output: 1}}}}
  quote: {{tier: careful, kind: extractive, price: {{input: 0, output: 0}}}}
tiers:
  careful: {{models: [whole]}}
  quick: {{models: [streamed], checks: light}}
compliance: {{open: ["*"]}}
rules: [{{name: all, then: {{tier: careful}}}}]
last_resort: quote
"""


@contextmanager
def served(command: Sequence[str], url: str, **env: str) -> Iterator[int]:
    """A process that answers at `url`; its id."""
    process = subprocess.Popen([sys.executable, "-m", *command], env={**os.environ, **env})
    try:
        for _ in range(300):
            try:
                if httpx.get(url, timeout=10).status_code == 200:
                    break
            except httpx.TransportError:
                time.sleep(0.1)
        yield process.pid
    finally:
        process.terminate()
        process.wait()


def body(model: str, *, stream: bool) -> bytes:
    """A request."""
    messages = [{"role": "user", "content": QUESTION}]
    options = {"corpora": ["handbook"]}
    whole = {"model": model, "messages": messages, "stream": stream, "refdesk": options}
    return orjson.dumps(whole)


async def at_rate(
    url: str, request: bytes, headers: Mapping[str, str], rate: int, seconds: float
) -> list[tuple[float, dict[str, Any]]]:
    """Milliseconds from when each request was due to its answer, and the answer.

    Without those of the first second, in which connections are opened.
    """
    answers: list[tuple[float, dict[str, Any]]] = []

    async def one(due: float, session: aiohttp.ClientSession) -> None:
        async with session.post(url, data=request, headers=headers) as response:
            answer = orjson.loads(await response.read())
        if response.status != 200:
            sys.exit(f"{response.status}: {answer}")
        answers.append(((time.perf_counter() - due) * 1000, answer))

    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector) as session, asyncio.TaskGroup() as tasks:
        begun = time.perf_counter()
        for number in range(int(rate * seconds)):
            due = begun + number / rate
            await asyncio.sleep(max(0.0, due - time.perf_counter()))
            tasks.create_task(one(due, session))
    return answers[rate:]


async def whole(url: str, rate: int, seconds: float) -> list[float]:
    """Milliseconds that generate added to each answer."""
    added: list[float] = []
    for taken, answer in await at_rate(url, body("careful", stream=False), JSON, rate, seconds):
        if not answer["refdesk"]["decision"]["verification"]["passed"]:
            sys.exit(f"not verified: {answer}")
        added.append(taken - THINK_MS - answer["refdesk"]["timings_ms"]["retrieve"])
    return added


async def streams(url: str, count: int) -> tuple[list[float], list[float]]:
    """Of each stream: milliseconds from the first token's writing to its coming here, and the
    longest stall."""
    first: list[float] = []
    stalls: list[float] = []
    request = body("quick", stream=True)

    async def one(session: aiohttp.ClientSession) -> None:
        late: list[float] = []
        async with session.post(url, data=request, headers=JSON) as response:
            async for line in response.content:
                now = time.monotonic_ns()
                if not line.startswith(b"data: {"):
                    continue
                choices = orjson.loads(line[6:]).get("choices") or [{"delta": {}}]
                # Tokens that come together are told of by the oldest of them.
                written = _WRITTEN.search(choices[0]["delta"].get("content") or "")
                if written:
                    late.append((now - int(written[1])) / 1e6)
        if len(late) < 2:
            sys.exit(f"{response.status}: a stream without tokens")
        first.append(late[0])
        stalls.append(max(late) - min(late))

    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector) as session, asyncio.TaskGroup() as tasks:
        for _ in range(count):
            tasks.create_task(one(session))
            await asyncio.sleep(0.01)  # as people come: not all in the same moment
    return first, stalls


_WRITTEN = re.compile(r"t(\d+)\.")
JSON = {"content-type": "application/json"}


def told(milliseconds: Sequence[float]) -> tuple[str, str, str]:
    """p50, p99 and the most."""
    ordered = sorted(milliseconds)
    p99 = ordered[min(len(ordered) - 1, int(0.99 * len(ordered)))]
    return f"{statistics.median(ordered):.1f}", f"{p99:.1f}", f"{ordered[-1]:.1f}"


async def measure(url: str, rate: int, seconds: float, count: int, table: Table) -> None:
    """Fill the table."""
    await whole(url, 20, 2)  # warm
    table.add_row(f"whole, {rate}/s: added ms", *told(await whole(url, rate, seconds)))
    first, _ = await streams(url, 1)
    for _ in range(20):
        first += (await streams(url, 1))[0]
    table.add_row("one stream: first token, ms after the server's", *told(first[1:]))
    first, stalls = await streams(url, count)
    table.add_row(f"{count} streams: first token", *told(first))
    table.add_row(f"{count} streams: longest stall of each", *told(stalls))


def settings(folder: Path, server: str) -> dict[str, str]:
    """The environment of a generate with its data in `folder` and all that it asks at `server`."""
    policy = folder / "policy.yaml"
    filled = {"server": server, "think": THINK_MS, "gap": GAP_MS, "tokens": TOKENS}
    policy.write_text(POLICY.format(**filled))
    return {
        "REFDESK_DATA_DIR": str(folder),
        "REFDESK_POLICY_FILE": str(policy),
        "REFDESK_RETRIEVE_URL": server,
        "REFDESK_EMBED_URL": server,
        # So that the language model inside is not loaded.
        "REFDESK_REASONING_URL": f"{server}/1/0/0/v1",
        "REFDESK_REASONING_MODEL": "m",
        "REFDESK_LOG_LEVEL": "error",
        "REFDESK_ANSWER_CACHE": "off",
    }


def main() -> None:
    """Start the processes, measure, print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rate", type=int, default=200)
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--streams", type=int, default=300)
    options = parser.parse_args()
    behind, port = free_port(), free_port()
    server = f"http://127.0.0.1:{behind}"
    table = Table("what", "p50", "p99", "most")
    with tempfile.TemporaryDirectory() as folder:
        env = settings(Path(folder), server) | {"REFDESK_GENERATE_PORT": str(port)}
        url = f"http://127.0.0.1:{port}"
        with (
            served(["tests.bench.model_server", str(behind)], server),
            served(["services.generate"], f"{url}/ready", **env) as generate,
            asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner,
        ):
            before = _cpu_s(generate)
            load = measure(
                f"{url}/v1/chat/completions", options.rate, options.seconds, options.streams, table
            )
            runner.run(load)
            used = _cpu_s(generate) - before
    Console().print(table, f"generate used {used:.1f} s of CPU in all")


def _cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


if __name__ == "__main__":
    main()
