"""The price of one call between services, by HTTP client: processor time and latency.

    python -m tests.bench.http_clients [--calls N]

A server process answers a small JSON body; both clients call it in turns, one call at a time, with
their connections kept open.
"""

import argparse
import asyncio
import statistics
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable

import httpx
import uvicorn
import uvloop
from rich.console import Console
from rich.table import Table
from starlette.responses import JSONResponse
from starlette.types import Receive, Scope, Send

from shared.client import ServiceClient
from shared.settings import Settings
from tests.suite import free_port

BODY = {"input": ["how do I reset my password?"], "model": "m", "encoding_format": "base64"}


async def answer(scope: Scope, receive: Receive, send: Send) -> None:
    """Read the body and answer 2 KB, about what a query's vector takes."""
    while (await receive()).get("more_body"):
        pass
    await JSONResponse({"data": "x" * 2048})(scope, receive, send)


async def measure(url: str, calls: int) -> dict[str, tuple[float, float]]:
    """Per client: processor milliseconds per call, and the median latency in milliseconds."""
    ours = ServiceClient("echo", url, settings=Settings())
    theirs = httpx.AsyncClient(base_url=url)

    async def by_httpx() -> None:
        (await theirs.post("/x", json=BODY)).json()

    async def by_aiohttp() -> None:
        await ours.post("/x", BODY)

    clients: dict[str, Callable[[], Awaitable[None]]] = {
        "aiohttp (ServiceClient)": by_aiohttp,
        "httpx": by_httpx,
    }
    used = dict.fromkeys(clients, 0.0)
    latency: dict[str, list[float]] = {name: [] for name in clients}
    for turn in range(calls + 20):  # the first 20 warm up
        for name, call in clients.items():
            cpu, wall = time.process_time(), time.perf_counter()
            await call()
            if turn >= 20:
                used[name] += (time.process_time() - cpu) * 1000
                latency[name].append((time.perf_counter() - wall) * 1000)
    await ours.close()
    await theirs.aclose()
    return {name: (used[name] / calls, statistics.median(latency[name])) for name in clients}


def main() -> None:
    """Start the server, measure, print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--calls", type=int, default=500)
    parser.add_argument("--serve", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        uvicorn.run(answer, port=options.serve, log_level="error", access_log=False)
        return
    port = free_port()
    server = subprocess.Popen(
        [sys.executable, "-m", "tests.bench.http_clients", "--serve", str(port)]
    )
    try:
        url = f"http://127.0.0.1:{port}"
        for _ in range(100):
            try:
                httpx.get(url)
                break
            except httpx.TransportError:
                time.sleep(0.1)
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            result = runner.run(measure(url, options.calls))
    finally:
        server.terminate()
        server.wait()
    table = Table("client", "CPU ms per call", "p50 ms")
    for name, (cpu, median) in result.items():
        table.add_row(name, f"{cpu:.2f}", f"{median:.2f}")
    Console().print(table)


if __name__ == "__main__":
    main()
