"""How fast files are read: MB/s of HTML and Markdown, pages/s of PDF, in worker processes.

    python -m tests.bench.parsing FOLDER... [--workers 2] [--most-mb 20]

Every file below the folders whose format is HTML, Markdown or PDF is read as an ingest reads it,
each in a worker process; files come in random order (fixed seed), up to so many MB of a format.
`MB/s a core` goes by the processor's time of the reading itself, whatever else the machine does.
"""

import argparse
import asyncio
import os
import random
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from services.retrieve.corpus.parsing.file import parse_file
from services.retrieve.corpus.parsing.formats import format_of
from services.retrieve.corpus.parsing.workers import Workers
from services.retrieve.stores.base import DocumentFormat
from shared.errors import ApiError

FORMATS: tuple[DocumentFormat, ...] = ("html", "markdown", "pdf")
MEGABYTE = 1e6


def files(folders: list[Path]) -> Iterator[Path]:
    """Every file below the folders; links to folders are not followed."""
    for folder in folders:
        for root, _, names in os.walk(folder):
            yield from (path for name in names if (path := Path(root, name)).is_file())


@dataclass(frozen=True)
class Read:
    """A file that was read. cpu: seconds of the processor's time."""

    pages: int
    cpu: float


def read(task: tuple[str, bytes]) -> Read:
    """Read a file in a worker."""
    begin = time.process_time()
    parsed = parse_file(*task, None, None, param="file")
    pages = sum(mark.kind == "page" for mark in parsed.outline)
    return Read(pages, time.process_time() - begin)


async def measure(
    tasks: list[tuple[str, bytes]], workers: Workers
) -> tuple[float, list[Read | None]]:
    """Seconds for all of them, and what came of each: None where it was refused."""

    # As a worker can import it: this module's own name may be __main__.
    from tests.bench.parsing import read as work

    async def one(task: tuple[str, bytes]) -> Read | None:
        try:
            return await workers.run(work, task, seconds=120, param=task[0])
        except ApiError:
            return None

    await asyncio.gather(*(one(tasks[0]) for _ in range(workers.count)))  # starts the processes
    begin = time.perf_counter()
    found = await asyncio.gather(*map(one, tasks))
    return time.perf_counter() - begin, found


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folders", nargs="+", type=Path)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--most-mb", type=float, default=20)
    arguments = parser.parse_args()
    paths = sorted(files(arguments.folders))
    random.Random(0).shuffle(paths)
    chosen: dict[DocumentFormat, list[tuple[str, bytes]]] = {one: [] for one in FORMATS}
    sizes = dict.fromkeys(FORMATS, 0)
    for path in paths:
        data = path.read_bytes()
        found = format_of(path.name, data)
        if found in chosen and sizes[found] < arguments.most_mb * MEGABYTE:
            chosen[found].append((path.name, data))
            sizes[found] += len(data)
    table = Table("format", "files", "MB", "seconds", "MB/s", "MB/s a core", "pages/s", "refused")
    workers = Workers(arguments.workers)
    for format_, tasks in chosen.items():
        if tasks:
            seconds, answers = await measure(tasks, workers)
            size = sizes[format_] / MEGABYTE
            whole = [one for one in answers if one is not None]
            count, cpu = sum(one.pages for one in whole), sum(one.cpu for one in whole)
            numbers = [f"{size:.1f}", f"{seconds:.2f}", f"{size / seconds:.1f}"]
            speed = f"{count / seconds:.0f}" if count else ""
            table.add_row(
                *(format_, str(len(tasks)), *numbers, f"{size / cpu:.1f}", speed),
                str(len(answers) - len(whole)),
            )
    await workers.close()
    Console().print(table)


if __name__ == "__main__":
    asyncio.run(main())
