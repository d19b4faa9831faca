"""``refdesk eval``: how well the desk finds, on a test collection, over HTTP."""

import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import ir_measures
import orjson
import typer
from ir_measures import RR, R, nDCG
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.table import Table

from shared.cli.collection import Collection, corpus_name, read_collection
from shared.cli.console import notes, output, progress
from shared.cli.failures import CliError
from shared.cli.http import Api
from shared.cli.ingest import PATIENCE_S
from shared.cli.launch import free_ports, services
from shared.cli.sources import Document, Failure
from shared.cli.upload import ensure_corpus, upload_with_bar
from shared.settings import ServiceName, Settings, load_settings

_MEASURES = (nDCG @ 10, R @ 100, RR @ 10)
# Chunks are asked for, documents are judged: 400 chunks hold 100 documents or more unless
# documents are very long.
_CHUNKS = 400
_TRIES = 3
_READY_LIMIT_S = 300.0
_MINE: tuple[ServiceName, ...] = ("embed", "rerank", "retrieve")


@dataclass(frozen=True)
class Arm:
    """One way to search: which lists take part, and whether the curator reorders them.

    in_flight: queries at the same time. The curator reads 50 passages per query: more at once
    would make each wait, not the whole faster.
    """

    name: str
    lists: tuple[str, ...]
    curate: bool = False
    in_flight: int = 4


ARMS = (
    Arm("bm25", ("bm25",)),
    Arm("dense", ("dense",)),
    Arm("fused", ("bm25", "dense")),
    Arm("curated", ("bm25", "dense"), curate=True, in_flight=2),
)


def evaluate(
    folder: Annotated[
        Path,
        typer.Argument(
            metavar="DIR",
            help="A collection: corpus.jsonl, queries.jsonl and qrels.tsv.",
            show_default=False,
        ),
    ],
    url: Annotated[
        str, typer.Option(help="Use this retrieve service instead of starting one.")
    ] = "",
    split: Annotated[str, typer.Option(help="test, dev or train.")] = "test",
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    limit: Annotated[
        int | None, typer.Option(help="Only the first so many queries.", min=1)
    ] = None,
) -> None:
    """Measure nDCG@10, R@100 and RR@10 on a collection in BEIR's layout.

    Each query runs through POST /retrieve four times: by words alone (bm25), by vectors alone
    (dense), by both (fused), and by both with the curator (curated). Without --url, services are
    started for it on free ports, with a data folder that is thrown away.
    """
    collection = _limited(read_collection(folder, split), limit)
    settings = load_settings()
    with (
        _desk(settings, url) as address,
        Api("retrieve", settings, address, patience_s=PATIENCE_S) as api,
    ):
        corpus = corpus_name(collection)
        _fill(api, corpus, collection)
        runs = _search(api, corpus, collection.queries)
    arms = {name: _score(collection.qrels, run) for name, run in runs.items()}
    result = {
        "collection": collection.name,
        "docs": len(collection.documents),
        "queries": len(collection.queries),
        "arms": arms,
    }
    if as_json:
        print(orjson.dumps(result).decode())
        return
    table = Table("arm", *(str(measure) for measure in _MEASURES), box=None)
    for name, scores in arms.items():
        table.add_row(name, *(f"{value:.4f}" for value in scores.values()))
    output().print(
        f"{collection.name}: {result['docs']} documents, {result['queries']} queries", markup=False
    )
    output().print(table)


def _limited(collection: Collection, limit: int | None) -> Collection:
    if limit is None:
        return collection
    queries = dict(list(collection.queries.items())[:limit])
    qrels = {query: collection.qrels[query] for query in queries}
    return Collection(collection.name, collection.documents, queries, qrels, collection.digest)


@contextmanager
def _desk(settings: Settings, url: str) -> Iterator[str]:
    """The address of a retrieve service: the one given, or one that lives as long as this."""
    if url:
        yield url
        return
    with tempfile.TemporaryDirectory(prefix="refdesk-eval-") as name:
        embed, rerank, retrieve = free_ports(len(_MINE))
        standing = settings.model_copy(
            update={
                "host": "127.0.0.1",
                "embed_port": embed,
                "rerank_port": rerank,
                "retrieve_port": retrieve,
            }
        )
        # The built graphs of the standing data folder serve here, too; its corpora stay out of it.
        each = dict.fromkeys(_MINE, standing)
        each["retrieve"] = standing.model_copy(update={"data_dir": Path(name)})
        logs = settings.data_dir / "logs" / "eval"
        with services(each, logs, notes(), limit_s=_READY_LIMIT_S) as (group, _):
            yield f"http://127.0.0.1:{retrieve}"
            group.check()  # or else a Ctrl-C that was lost would look like success


def _fill(api: Api, corpus: str, collection: Collection) -> None:
    """Store the documents; those that are stored already cost next to nothing."""
    ensure_corpus(api, corpus)
    console = notes()
    console.print(f"storing {len(collection.documents)} documents in {corpus}", markup=False)

    def items() -> Iterator[Document | Failure]:
        for one in collection.documents:
            text = one.text if one.text.strip() else one.title
            size = len(text.encode())
            if text.strip():
                yield Document(one.id, text, one.id, size, title=one.title or None)
            else:  # such a document can't be found: it counts as not found
                console.print(f"document '{one.id}' is empty", markup=False)

    total = sum(len((one.text or one.title).encode()) for one in collection.documents)
    tally = upload_with_bar(api, corpus, items(), total, console)
    if tally.failed:
        first = tally.failed[0]
        raise CliError(f"document '{first.source}' can't be stored: {first.reason}")


def _search(
    api: Api, corpus: str, queries: dict[str, str]
) -> dict[str, dict[str, dict[str, float]]]:
    """Each arm's run: scores by document id by query id."""
    columns = (
        TextColumn("searching: {task.description:<8}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    runs = {}
    with progress(notes(), *columns) as bar:
        for arm in ARMS:
            bar.console.print(f"searching {len(queries)} queries: {arm.name}", markup=False)
            task = bar.add_task(arm.name, total=len(queries))
            runs[arm.name] = _run(api, corpus, queries, arm, partial(bar.advance, task))
    return runs


def _run(
    api: Api, corpus: str, queries: dict[str, str], arm: Arm, on_query: Callable[[], None]
) -> dict[str, dict[str, float]]:
    """One arm's run; on_query is called after each query."""
    run = {}
    with ThreadPoolExecutor(arm.in_flight) as pool:
        jobs = {pool.submit(_rank, api, corpus, text, arm): one for one, text in queries.items()}
        try:
            for job in as_completed(jobs):
                run[jobs[job]] = job.result()
                on_query()
        finally:  # after a failure or Ctrl-C nobody wants the rest
            pool.shutdown(cancel_futures=True)
    return run


def _rank(api: Api, corpus: str, query: str, arm: Arm) -> dict[str, float]:
    """The documents that one arm finds, each with a score that keeps the order.

    A document takes the place of its best chunk. Scores are 1 / place, because two hits may share
    a score while their order is meant. Raises CliError if a stage keeps being left out.
    """
    body = {
        "query": query,
        "corpora": [corpus],
        "top_k": _CHUNKS,
        "candidates": _CHUNKS,
        "arms": arm.lists,
        "curate": arm.curate,
    }
    # On a busy machine a stage may miss its time; an answer without it is not the arm's.
    answer = api.post("/retrieve", body, "hits", "degraded")
    for _ in range(_TRIES - 1):
        if answer["degraded"]:
            answer = api.post("/retrieve", body, "hits", "degraded")
    if answer["degraded"]:
        raise CliError(
            f"the desk answered {_TRIES} times without {', '.join(answer['degraded'])}, so that "
            "the figures would be wrong: is the machine too busy, or a service down?"
        )
    places: dict[str, float] = {}
    for hit in answer["hits"]:
        places.setdefault(hit["document_id"], 1 / (len(places) + 1))
    return places


def _score(qrels: dict[str, dict[str, int]], run: dict[str, dict[str, float]]) -> dict[str, float]:
    """The mean of each measure over the judged queries; one that found nothing counts as 0."""
    found: dict[Any, float] = ir_measures.calc_aggregate(_MEASURES, qrels, run)
    return {str(measure): round(found[measure], 4) for measure in _MEASURES}
