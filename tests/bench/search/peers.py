"""The desk beside other search libraries: the same chunks, vectors and questions in one run.

    make bench-peers
    python -m tests.bench.search.peers FOLDER DATASETS [--chunks 100000] [--engines refdesk txtai …]

Every library has a process of its own in which it opens what was built before
(tests/bench/search/worker.py) and is timed around its own call, one query at a time; refdesk is
asked so, too (all of its search but HTTP, the query's vector given as to the others), and over HTTP
(with embed, which has the query's vector cached). Whoever is not measured is stopped. The questions
are SciFact's test queries, asked in parts, all libraries in turn with each part, in another order
each time. Hits come with their texts from all but bm25s, which keeps none. nDCG@10 is over
documents, each at the place of its best chunk among the first 20; recall@10 is the dense arm's
against exact search. A library that is too slow for its share of the time is asked fewer queries:
the column says how many, and its nDCG is of these alone. Resident: the whole process after its
searches, libraries included.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import ir_measures
import numpy as np
from ir_measures import nDCG
from rich.console import Console
from rich.table import Table

from tests.bench.peers.contenders import Contender, Contenders, python_of
from tests.bench.search.corpus import Query, add_arguments, make, queries_of
from tests.bench.search.desk import hits, written
from tests.bench.search.engines import DENSE, ENGINES, HYBRID, LEXICAL, documents
from tests.bench.search.scale import nearest
from tests.bench.suite import Client
from tests.suite import REPOSITORY, free_port

OWN = "refdesk"
HTTP = "refdesk over HTTP"
MODES: dict[str, Sequence[str]] = {"chroma": [DENSE], "bm25s": [LEXICAL]}
LIMIT, TOP = 20, 10
WARM = 3  # queries after each waking that are not counted
WORKER = Path(__file__).with_name("worker.py")
MEASURE = nDCG @ 10
PATHS = {"PYTHONPATH": str(REPOSITORY)}

Ask = Callable[[str, Sequence[int]], "tuple[list[list[int]], list[float]]"]


@dataclass
class Entrant:
    """A library, and what was found and measured of it by mode: rows by query, milliseconds."""

    name: str
    awake: Sequence[Contender]
    ask: Ask
    modes: Sequence[str]
    build_s: float
    open_s: float | None = None
    resident_mb: float = 0.0
    rows: dict[str, dict[int, list[int]]] = field(default_factory=dict)
    milliseconds: dict[str, list[float]] = field(default_factory=dict)

    def measure(self, part: Sequence[int], patience_s: float) -> None:
        """Ask some queries in every mode that has not used up its time."""
        with ExitStack() as stack:
            for contender in self.awake:
                stack.enter_context(contender.awake())
            for mode in self.modes:
                if sum(self.milliseconds.get(mode, ())) > patience_s * 1000:
                    continue
                self.ask(mode, part[:WARM])
                rows, taken = self.ask(mode, part)
                self.rows.setdefault(mode, {}).update(zip(part, rows, strict=True))
                self.milliseconds.setdefault(mode, []).extend(taken)


def build(engine: str, corpus: Path, *, fresh: bool) -> tuple[Path, float]:
    """Where a library keeps the corpus, and the seconds that it took to put it there."""
    if engine == OWN:
        return corpus / "data", written(corpus, fresh=fresh)["build_s"]
    place, figure = corpus / "peers" / engine, corpus / "peers" / f"{engine}.json"
    if fresh or not figure.exists():
        shutil.rmtree(place, ignore_errors=True)
        print(f"building {engine}", file=sys.stderr)
        command = [python_of("search"), "-P", str(WORKER), "build", engine, str(corpus), str(place)]
        done = subprocess.run(command, env=os.environ | PATHS, stdout=subprocess.PIPE, check=False)
        if done.returncode:
            sys.exit(f"{engine} could not be built")
        figure.write_bytes(done.stdout.splitlines()[-1])
    return place, float(json.loads(figure.read_bytes()))


def library(contenders: Contenders, engine: str, corpus: Path, *, fresh: bool) -> Entrant:
    """A library in its process, opened and asleep."""
    place, seconds = build(engine, corpus, fresh=fresh)
    port = free_port()
    python = sys.executable if engine == OWN else python_of("search")
    command = [python, "-P", str(WORKER), "serve", engine, str(corpus), str(place), str(port)]
    own = contenders.start(engine, command, port, "/health", PATHS)

    def ask(mode: str, part: Sequence[int]) -> tuple[list[list[int]], list[float]]:
        body = {"mode": mode, "queries": list(part), "limit": LIMIT}
        answer = httpx.post(f"{own.url}/search", json=body, timeout=None).raise_for_status().json()
        return answer["rows"], answer["ms"]

    modes = MODES.get(engine, [HYBRID, DENSE, LEXICAL])
    return Entrant(engine, [own], ask, modes, seconds)


def over_http(
    contenders: Contenders, corpus: Path, scratch: Path, queries: Sequence[Query]
) -> Entrant:
    """The services retrieve and embed, over a copy of what refdesk's library has open."""
    shutil.copytree(corpus / "data", scratch / "data")
    embed = contenders.service("embed", "embed", scratch / "data")
    with embed.awake() as url:
        retrieve = contenders.service(
            "retrieve", "retrieve", scratch / "data", REFDESK_EMBED_URL=url
        )
    rows: dict[str, int] = {}
    names = documents(corpus)
    for row, name in enumerate(names):
        number = rows[f"{name}#"] = rows.get(f"{name}#", -1) + 1
        rows[f"{name}#{number}"] = row

    def ask(mode: str, part: Sequence[int]) -> tuple[list[list[int]], list[float]]:
        client = Client()  # what sleeps drops its connections
        found, taken = [], []
        body = {"corpora": ["bench"], "top_k": LIMIT, "curate": False}
        for number in part:
            started = time.perf_counter()
            asked = {**body, "query": queries[number].text}
            answer = client.call("POST", f"{retrieve.url}/retrieve", asked)
            taken.append((time.perf_counter() - started) * 1000)
            found.append([rows[hit["id"]] for hit in hits(answer)])
        return found, taken

    return Entrant(HTTP, [embed, retrieve], ask, [HYBRID], written(corpus)["build_s"])


def quality(entrant: Entrant, mode: str, corpus: "Truth") -> float:
    """nDCG@10 over documents."""
    run: dict[str, dict[str, float]] = {}
    for number, rows in entrant.rows[mode].items():
        best = dict.fromkeys(corpus.documents[row] for row in rows)
        run[corpus.queries[number].id] = {name: 1 / place for place, name in enumerate(best, 1)}
    qrels = {name: corpus.qrels[name] for name in run}
    return float(ir_measures.calc_aggregate([MEASURE], qrels, run)[MEASURE])


@dataclass(frozen=True)
class Truth:
    """What the libraries' answers are held against. exact: the ten nearest rows, int64 [q, 10]."""

    documents: list[str]
    queries: Sequence[Query]
    qrels: dict[str, dict[str, int]]
    exact: "np.ndarray[Any, np.dtype[np.int64]]"


def table(entrants: Sequence[Entrant], truth: Truth, chunks: int) -> Table:
    """A row for each."""
    columns = (
        "build s",
        "open s",
        "resident MiB",
        "p50 / p95 ms",
        "queries",
        "dense p50",
        "lexical p50",
    )
    shown = Table("", *columns, "dense recall@10", "nDCG@10 lexical", "dense", "hybrid")
    shown.title = f"{chunks:,} chunks, {len(truth.queries)} queries, one at a time"
    for one in entrants:
        times = {mode: np.quantile(taken, [0.5, 0.95]) for mode, taken in one.milliseconds.items()}
        main = times.get(HYBRID, next(iter(times.values())))
        recall = ""
        if DENSE in one.rows:
            found = one.rows[DENSE].items()
            shared = [len(set(rows[:TOP]) & set(truth.exact[query])) for query, rows in found]
            recall = f"{sum(shared) / len(shared) / TOP:.4f}"
        shown.add_row(
            one.name,
            f"{one.build_s:.1f}",
            "" if one.open_s is None else f"{one.open_s:.1f}",
            f"{one.resident_mb:.0f}",
            f"{main[0]:.1f} / {main[1]:.1f}",
            str(min(len(rows) for rows in one.rows.values())),
            *(f"{times[mode][0]:.1f}" if mode in times else "" for mode in (DENSE, LEXICAL)),
            recall,
            *(
                f"{quality(one, mode, truth):.4f}" if mode in one.rows else ""
                for mode in (LEXICAL, DENSE, HYBRID)
            ),
        )
    return shown


def note_size(entrant: Entrant) -> None:
    """Seconds to open and resident size, from the library's own process or from /proc."""
    if entrant.name == HTTP:
        pid = entrant.awake[-1].process.pid
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
        kib = next(int(line.split()[1]) for line in lines if line.startswith("VmRSS:"))
        entrant.resident_mb = kib / 1024
        return
    with entrant.awake[0].awake() as url:
        told = httpx.get(f"{url}/health", timeout=60).json()
    entrant.open_s, entrant.resident_mb = told["open_s"], told["resident_mb"]


def main() -> None:
    """Build, open and measure all; print one table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    add_arguments(parser)
    parser.add_argument("--chunks", type=int, default=100_000)
    parser.add_argument("--engines", nargs="*", default=list(ENGINES), choices=ENGINES)
    parser.add_argument("--queries", type=int, default=300)
    parser.add_argument("--parts", type=int, default=30)
    parser.add_argument(
        "--patience", type=float, default=60, help="seconds that a library may take in each mode"
    )
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--fresh", action="store_true", help="build everything anew")
    options = parser.parse_args()
    corpus = make(options.folder, options.datasets, options.chunks, options.real)
    everything, vectors = queries_of(options.folder)
    queries = [query for query in everything if query.judged][: options.queries]
    judged = json.loads((options.folder / "real" / "qrels.json").read_text())
    qrels = {query.id: judged[query.id] for query in queries}
    exact = nearest(corpus, vectors[: len(queries)], TOP)
    truth = Truth(documents(corpus), queries, qrels, exact)
    with (
        tempfile.TemporaryDirectory() as name,
        Contenders(Path(name), options.threads) as contenders,
    ):
        (corpus / "peers").mkdir(exist_ok=True)
        entrants = [
            library(contenders, engine, corpus, fresh=options.fresh) for engine in options.engines
        ]
        if OWN in options.engines:
            entrants.insert(1, over_http(contenders, corpus, Path(name), queries))
        order = np.random.default_rng(0)
        for part in np.array_split(np.arange(len(queries)), options.parts):
            for place in order.permutation(len(entrants)):
                entrants[place].measure(part.tolist(), options.patience)
        for entrant in entrants:
            note_size(entrant)
    Console(width=160).print(table(entrants, truth, options.chunks))


if __name__ == "__main__":
    main()
