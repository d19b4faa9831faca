"""The resident size of embed over minutes of texts of random lengths in requests of random sizes.

    python -m tests.bench.memory [--minutes 10] [--clients 4]

Every request has 1 to 64 texts of 1 to 400 words, no two alike, and nothing is cached: what grows
is the runtime's. A line every half minute: the size now and the highest so far (VmHWM), MiB.
"""

import argparse
import asyncio
import random
import tempfile
import time
from pathlib import Path

import aiohttp

from tests.bench.peers.contenders import Contenders
from tests.suite import REPOSITORY

EVERY_S = 30
TEXTS, WORDS = 64, 400


def sizes(pid: int) -> tuple[float, float]:
    """Resident and highest resident size of a process, MiB."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    fields = dict(line.split(":", 1) for line in lines)
    now, most = (int(fields[name].split()[0]) / 1024 for name in ("VmRSS", "VmHWM"))
    return now, most


def texts(words: list[str]) -> list[str]:
    """A request's texts; short ones and small requests are as frequent as long and large ones."""
    count = round(TEXTS ** random.random())
    return [
        " ".join(random.choices(words, k=round(WORDS ** random.random()))) for _ in range(count)
    ]


async def run(url: str, pid: int, minutes: float, clients: int) -> None:
    """Ask until the time is up, and print the sizes."""
    pages = sorted((REPOSITORY / "docs").rglob("*.md"))
    words = sorted({word for page in pages for word in page.read_text("utf-8").split()})
    end = time.monotonic() + minutes * 60
    embedded = 0

    async def client(http: aiohttp.ClientSession) -> None:
        nonlocal embedded
        while time.monotonic() < end:
            asked = texts(words)
            body = {"input": asked, "encoding_format": "base64"}
            async with http.post("/v1/embeddings", json=body) as response:
                await response.read()
                response.raise_for_status()
            embedded += len(asked)

    async def report() -> None:
        started = time.monotonic()
        while True:
            now, most = sizes(pid)
            minute = (time.monotonic() - started) / 60
            print(f"{minute:5.1f} min  {embedded:7} texts  {now:6.0f} MiB  highest {most:6.0f}")
            await asyncio.sleep(EVERY_S)

    async with aiohttp.ClientSession(url, timeout=aiohttp.ClientTimeout(total=600)) as http:
        reporting = asyncio.create_task(report())
        await asyncio.gather(*(client(http) for _ in range(clients)))
        reporting.cancel()
    now, most = sizes(pid)
    print(f"in the end {embedded} texts, {now:.0f} MiB, highest {most:.0f} MiB")


def main() -> None:
    """Start embed, ask, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--clients", type=int, default=4)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    random.seed(0)
    with (
        tempfile.TemporaryDirectory() as folder,
        Contenders(Path(folder), options.threads) as contenders,
    ):
        data = Path(folder) / "data"
        embed = contenders.service("embed", "embed", data, REFDESK_EMBED_CACHE_MB="0")
        with embed.awake() as url:
            asyncio.run(run(url, embed.process.pid, options.minutes, options.clients))


if __name__ == "__main__":
    main()
