"""What ``refdesk eval`` does: the services, the index, the runs, and what they found."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import orjson
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn

from shared.cli.collection import Collection, corpus_name, read_collection
from shared.cli.console import notes, output, progress
from shared.cli.evaluation.cache import cache_folder, held, size_bytes
from shared.cli.evaluation.index import fill
from shared.cli.evaluation.outcome import Index, as_json, judge
from shared.cli.evaluation.report import report
from shared.cli.evaluation.runs import Run, search
from shared.cli.evaluation.variants import (
    ARM_NAMES,
    DEFAULT,
    EVERYWHERE,
    Variant,
    check_baseline,
    chosen_arms,
    read_variants,
)
from shared.cli.http import Api
from shared.cli.ingest import PATIENCE_S
from shared.cli.launch import free_ports, services
from shared.settings import ServiceName, Settings, load_settings

_READY_LIMIT_S = 300.0
_MINE: tuple[ServiceName, ...] = ("embed", "rerank", "retrieve")


def run(
    folder: Path,
    *,
    arms: str,
    compare: Path | None,
    baseline: str,
    worst: int,
    url: str,
    fresh: bool,
    split: str,
    as_object: bool,
    limit: int | None,
    language: str,
) -> None:
    """Evaluate the collection in `folder` and print the outcome; the options are the command's.

    arms: names with commas, `EVERYWHERE` if empty. worst: how many queries. Raises CliError,
    StartupError.
    """
    variants = chosen_arms(arms or ",".join(EVERYWHERE))
    if compare is not None:
        named = read_variants(compare)
        if DEFAULT not in [variant.name for variant in variants]:
            variants += chosen_arms(DEFAULT)
        variants += named
    check_baseline(baseline, [one.name for one in variants if one.name in ARM_NAMES])
    collection = _limited(read_collection(folder, split), limit)
    settings = load_settings()
    corpus = corpus_name(collection) + (f"-{language}" if language else "")
    with (
        _desk(settings, url, collection) as (address, kept_in),
        Api("retrieve", settings, address, patience_s=PATIENCE_S) as api,
    ):
        own = kept_in is not None
        kept = fill(api, corpus, collection, variants, fresh=fresh, own=own, language=language)
        index = _index(corpus, kept_in, kept=kept)
        runs = _search(api, corpus, collection.queries, variants)
    outcome = judge(collection, split, index, variants, runs, baseline=baseline, most=worst)
    if as_object:
        print(orjson.dumps(as_json(outcome)).decode())
    else:
        report(outcome, output())


def _limited(collection: Collection, limit: int | None) -> Collection:
    if limit is None:
        return collection
    queries = dict(list(collection.queries.items())[:limit])
    qrels = {query: collection.qrels[query] for query in queries}
    return replace(collection, queries=queries, qrels=qrels)


@contextmanager
def _desk(
    settings: Settings, url: str, collection: Collection
) -> Iterator[tuple[str, Path | None]]:
    """The address of a retrieve service: the one given, or one that lives as long as this.

    With the folder where the latter keeps its index.
    """
    if url:
        yield url, None
        return
    folder = cache_folder(settings, collection)
    with held(folder, notes()):
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
        each["retrieve"] = standing.model_copy(update={"data_dir": folder})
        logs = settings.data_dir / "logs" / "eval"
        with services(each, logs, notes(), limit_s=_READY_LIMIT_S) as (group, _):
            yield f"http://127.0.0.1:{retrieve}", folder
            group.check()  # or else a Ctrl-C that was lost would look like success


def _index(corpus: str, folder: Path | None, *, kept: bool) -> Index:
    """Where the index is, said on stderr as well."""
    if folder is None:
        return Index(corpus, None, None, kept)
    size, every = size_bytes(folder), size_bytes(folder.parent)
    notes().print(
        f"the index {'was kept' if kept else 'is kept now'} in {folder} ({_megabytes(size)}; with "
        f"those of other collections {_megabytes(every)}); --fresh makes it anew",
        markup=False,
        soft_wrap=True,
    )
    return Index(corpus, str(folder), size, kept)


def _megabytes(size: int) -> str:
    return f"{size / 1_000_000:.1f} MB"


def _search(
    api: Api, corpus: str, queries: Mapping[str, str], variants: Sequence[Variant]
) -> dict[str, Run]:
    columns = (
        TextColumn("searching"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    names = ", ".join(variant.name for variant in variants)
    with progress(notes(), *columns) as bar:
        bar.console.print(f"searching {len(queries)} queries: {names}", markup=False)
        task = bar.add_task("", total=len(queries))
        return search(api, corpus, queries, variants, lambda: bar.advance(task))
