"""How fast documents are loaded, beside what the embedder alone can do; and what memory it takes.

    python -m tests.bench.ingest speed FOLDER... [--files 2000] [--bare 4000]
    python -m tests.bench.ingest memory [--documents 50000]
    python -m tests.bench.ingest sync [--documents 10000]
    python -m tests.bench.ingest delete [--documents 50000]

speed: so many files of the folders (random order, fixed seed, up to 100 kB each) are put into one
folder and loaded by `refdesk ingest`. Before that, embed alone is sent chunks of the same files, as
the desk would send them, four requests at a time; its cache is off. The share of the processor's
time that embed has had is told, too: on a machine with other work it says more than the clock does.
memory: documents of one sentence are loaded with vectors of their own, by a job for each tenth; a
line for each job says what retrieve and the processes that read files have in memory then.
sync: documents of one sentence are loaded, and `POST …/changes` is asked about all of them.
delete: documents as for memory are loaded, and 1,000 of them deleted at once, five times.
"""

import argparse
import asyncio
import base64
import hashlib
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aiohttp
import httpx
import numpy as np
from rich.console import Console
from rich.table import Table

from services.retrieve.corpus.chunk import CHUNKER, TokenCounter
from services.retrieve.corpus.embedding import BATCH
from services.retrieve.corpus.parsing.formats import format_of
from services.retrieve.corpus.prepare import Recipe, Task, prepare
from services.retrieve.corpus.source import SourceFile
from services.retrieve.stores.corpus import ModelStamp
from shared.errors import ApiError
from tests.bench.memory import sizes
from tests.bench.parsing import files
from tests.suite import Suite, prepare_suite

MOST_BYTES = 100_000
AT_EMBED = 4
CORPUS = "bench"
NDJSON = {"content-type": "application/x-ndjson"}
TICKS = os.sysconf("SC_CLK_TCK")


def tree(pid: int) -> list[int]:
    """A process and its children."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [pid, *map(int, children)]


def cpu_seconds(pid: int) -> float:
    """What a process has had of the processor, with its children, those that have ended too."""
    total = 0
    for one in tree(pid):
        fields = Path(f"/proc/{one}/stat").read_text().rpartition(")")[2].split()
        total += sum(map(int, fields[11:15] if one == pid else fields[11:13]))
    return total / TICKS


def pid_of(suite: Suite, service: Any) -> int:
    """The process of a service that runs."""
    process = suite.services[service].process
    assert process is not None
    return process.pid


def choose(folders: list[Path], count: int, target: Path) -> list[SourceFile]:
    """Copy so many files of the folders that can be read as text into one folder."""
    paths = sorted(files(folders))
    random.Random(0).shuffle(paths)
    chosen: list[SourceFile] = []
    for path in paths:
        if len(chosen) == count:
            break
        if 0 < path.stat().st_size <= MOST_BYTES:
            data = path.read_bytes()
            if format_of(path.name, data) in ("text", "markdown", "html", "code"):
                name = f"{len(chosen):05}-{path.name}"
                shutil.copyfile(path, target / name)
                chosen.append(SourceFile(name, name, data))
    return chosen


def inputs_of(sources: list[SourceFile], recipe: Recipe, counter: TokenCounter) -> list[str]:
    """What the desk would have embedded, each text once."""
    found: dict[str, None] = {}
    for source in sources:
        try:
            found |= dict.fromkeys(prepare(Task(source, recipe, "file"), counter).inputs)
        except ApiError:
            continue
    return list(found)


async def embed_alone(url: str, model: str, inputs: list[str]) -> float:
    """Seconds that embed takes for all inputs."""
    batches = iter([inputs[at : at + BATCH] for at in range(0, len(inputs), BATCH)])

    async def client(http: aiohttp.ClientSession) -> None:
        for batch in batches:
            body = {"input": batch, "model": model, "input_type": "document"}
            async with http.post(
                "/v1/embeddings", json=body | {"encoding_format": "base64"}
            ) as got:
                await got.read()
                got.raise_for_status()

    async with aiohttp.ClientSession(url, timeout=aiohttp.ClientTimeout(total=3600)) as http:
        begin = time.perf_counter()
        await asyncio.gather(*(client(http) for _ in range(AT_EMBED)))
        return time.perf_counter() - begin


def speed(suite: Suite, http: httpx.Client, options: argparse.Namespace, table: Table) -> None:
    """The embedder alone, then the whole way."""
    folder = suite.data_dir.parent / "files"
    folder.mkdir()
    sources = choose(options.folders, options.files, folder)
    info = http.put(f"/corpora/{CORPUS}").json()
    embed = suite.url("embed")
    definition = httpx.get(f"{embed}/v1/models/{info['model']}/tokenizer", timeout=60).content
    stamp = ModelStamp(info["model"], info["revision"], info["dimension"])
    recipe = Recipe(
        CORPUS, stamp, CHUNKER, info["chunk_tokens"], info["chunk_overlap"], sparse=False
    )
    begin = time.process_time()
    inputs = inputs_of(sources, recipe, TokenCounter(definition))
    cutting = time.process_time() - begin
    sample = random.Random(0).sample(inputs, min(options.bare, len(inputs)))
    seconds = asyncio.run(embed_alone(embed, info["model"], sample))
    bare = len(sample) / seconds
    table.add_row("embed alone", str(len(sample)), f"{seconds:.1f}", f"{bare:.1f}", "", "")
    of_embed, of_desk = pid_of(suite, "embed"), pid_of(suite, "retrieve")
    before = cpu_seconds(of_embed), cpu_seconds(of_desk)
    begin = time.perf_counter()
    subprocess.run(
        [sys.executable, "-P", "-m", "shared.cli.main", "ingest", str(folder), "--corpus", CORPUS],
        env={**os.environ, **suite.env},
        stderr=subprocess.PIPE,
        check=False,  # 1 where a file can't be read
    )
    seconds = time.perf_counter() - begin
    used = cpu_seconds(of_embed) - before[0], cpu_seconds(of_desk) - before[1]
    stored = http.get(f"/corpora/{CORPUS}").json()["chunks"]
    share = f"{100 * used[0] / sum(used):.0f} %"
    told = [str(stored), f"{seconds:.1f}", f"{stored / seconds:.1f}"]
    table.add_row("refdesk ingest", *told, f"{100 * stored / seconds / bare:.0f} %", share)
    table.caption = (
        f"{len(sources)} files, {sum(len(one.data) for one in sources) / 1e6:.1f} MB, "
        f"{len(inputs)} different chunks; parsing and cutting them takes {cutting:.1f} s of a core"
    )


def with_vectors(first: int, count: int, info: dict[str, Any]) -> Iterator[bytes]:
    """Documents of one chunk each with a vector of its own, as lines."""
    stamp = {name: info[name] for name in ("model", "revision", "dimension")}
    chance = np.random.default_rng(first)
    for number in range(first, first + count):
        text = f"Drawer {number} holds key {number * 7919 % 10_007}."
        vector = chance.standard_normal(info["dimension"]).astype("<f4").tobytes()
        chunk = {"start": 0, "end": len(text), "vector": base64.b64encode(vector).decode()}
        document = {"id": f"d{number}", "text": text, "chunks": [chunk], "stamp": stamp}
        yield json.dumps(document).encode() + b"\n"


def load(http: httpx.Client, lines: Iterator[bytes]) -> float:
    """Load lines by a job to its end; seconds."""
    begin = time.perf_counter()
    answer = http.post(f"/corpora/{CORPUS}/ingest", content=lines, headers=NDJSON)
    answer.raise_for_status()
    job = answer.json()
    while job["state"] in ("queued", "running"):
        time.sleep(0.1)
        job = http.get(f"/jobs/{job['id']}").json()
    if job["state"] != "succeeded" or job["verdicts"]["failed"]:
        sys.exit(f"the job did not succeed: {job}")
    return time.perf_counter() - begin


def memory(suite: Suite, http: httpx.Client, options: argparse.Namespace, table: Table) -> None:
    """What is in memory after each tenth of the documents."""
    info = http.put(f"/corpora/{CORPUS}").json()
    part = options.documents // 10
    desk = pid_of(suite, "retrieve")
    for first in range(0, part * 10, part):
        seconds = load(http, with_vectors(first, part, info))
        now, most = sizes(desk)
        readers = sum(sizes(pid)[0] for pid in tree(desk)[1:])
        numbers = [f"{part / seconds:.0f}", f"{now:.0f}", f"{most:.0f}", f"{readers:.0f}"]
        table.add_row(str(first + part), f"{seconds:.1f}", *numbers)


def sync(suite: Suite, http: httpx.Client, options: argparse.Namespace, table: Table) -> None:
    """Ask which documents have changed, where none has."""
    http.put(f"/corpora/{CORPUS}").raise_for_status()
    texts = {
        f"d{n}": f"Drawer {n} holds key {n * 7919 % 10_007}." for n in range(options.documents)
    }
    load(http, (json.dumps({"id": i, "text": t}).encode() + b"\n" for i, t in texts.items()))
    states = [
        {"id": i, "format": "text", "sha256": hashlib.sha256(t.encode()).hexdigest()}
        for i, t in texts.items()
    ]
    for _ in range(3):
        begin = time.perf_counter()
        unchanged = 0
        for at in range(0, len(states), 10_000):
            body = {"documents": states[at : at + 10_000]}
            unchanged += http.post(f"/corpora/{CORPUS}/changes", json=body).json()["unchanged"]
        seconds = time.perf_counter() - begin
        table.add_row(str(len(states)), str(unchanged), f"{seconds:.2f}")


def delete(suite: Suite, http: httpx.Client, options: argparse.Namespace, table: Table) -> None:
    """Delete a thousand documents in a request, and so again."""
    info = http.put(f"/corpora/{CORPUS}").json()
    load(http, with_vectors(0, options.documents, info))
    ids = [f"d{n}" for n in random.Random(1).sample(range(options.documents), 5000)]
    for at in range(0, len(ids), 1000):
        begin = time.perf_counter()
        answer = http.post(
            f"/corpora/{CORPUS}/documents/delete", json={"ids": ids[at : at + 1000]}
        ).json()
        seconds = time.perf_counter() - begin
        if len(answer["deleted"]) != 1000:
            sys.exit(f"not all were deleted: {answer}")
        left = http.get(f"/corpora/{CORPUS}").json()["documents"]
        table.add_row(f"{left:,}", f"{seconds:.2f}")


COLUMNS = {
    speed: ("way", "chunks", "seconds", "chunks/s", "of embed alone", "embed's share of the cores"),
    memory: ("documents", "seconds", "documents/s", "MiB", "highest", "readers' MiB"),
    sync: ("documents", "unchanged", "seconds"),
    delete: ("documents left", "seconds"),
}


def main() -> None:
    """Start the services, measure, print a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    what = parser.add_subparsers(dest="what", required=True)
    of_speed = what.add_parser("speed")
    of_speed.add_argument("folders", nargs="+", type=Path)
    of_speed.add_argument("--files", type=int, default=2000)
    of_speed.add_argument("--bare", type=int, default=4000, help="chunks for embed alone, at most")
    what.add_parser("memory").add_argument("--documents", type=int, default=50_000)
    what.add_parser("sync").add_argument("--documents", type=int, default=10_000)
    what.add_parser("delete").add_argument("--documents", type=int, default=50_000)
    options = parser.parse_args()
    measure = {one.__name__: one for one in COLUMNS}[options.what]
    table = Table(*COLUMNS[measure], box=None)
    with tempfile.TemporaryDirectory() as folder:
        suite = prepare_suite(Path(folder), REFDESK_EMBED_CACHE_MB="0")
        try:
            with httpx.Client(base_url=suite.url("retrieve"), timeout=600) as http:
                measure(suite, http, options, table)
        finally:
            suite.stop()
    Console().print(table)


if __name__ == "__main__":
    main()
