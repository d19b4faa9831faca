"""``refdesk reindex``, ``rollback``, ``generations`` and ``migrate``: how a corpus is made."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import orjson
import typer
from rich.markup import escape
from rich.table import Table

from shared.cli.console import notes, one_line, output
from shared.cli.corpora import Chunker, ChunkOverlap, ChunkTokens, Dimension, Embedder
from shared.cli.failures import CliError
from shared.cli.http import Api, corpus_path
from shared.cli.jobs import watch_job
from shared.settings import load_settings

_JOB = ("id", "state", "stage", "progress", "verdicts")
_ESTIMATE = ("documents", "sampled", "chunks", "reused", "seconds", "bytes")

Corpus = Annotated[str, typer.Argument(help="The corpus.", show_default=False)]
Address = Annotated[str, typer.Option(help="Address of the retrieve service.")]
AsJson = Annotated[bool, typer.Option("--json", help="As it came, as JSON.")]
KeepDays = Annotated[
    float | None,
    typer.Option(help="Days for which the present generation is kept; 7 if not given.", min=0),
]


def reindex(
    corpus: Corpus,
    embedder: Embedder = None,
    dimension: Dimension = None,
    language: Annotated[str | None, typer.Option(help="ISO 639-1 code, or mul.")] = None,
    chunk_tokens: ChunkTokens = None,
    chunk_overlap: ChunkOverlap = None,
    chunker: Chunker = None,
    judged: Annotated[
        Path | None,
        typer.Option(help='Judged queries, {"query", "relevant": {document: grade}} in each line.'),
    ] = None,
    margin: Annotated[
        float | None, typer.Option(help="By how much their nDCG@10 may fall; 0.02 if not given.")
    ] = None,
    keep_days: KeepDays = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Tell what it would take, and do nothing.")
    ] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Build it anew though nothing changes.")
    ] = False,
    url: Address = "",
) -> None:
    """Make a corpus anew while it is in use: what is not named stays as it is."""
    wanted = {
        "embedder": embedder,
        "dimension": dimension,
        "language": language,
        "chunk_tokens": chunk_tokens,
        "chunk_overlap": chunk_overlap,
        "chunker": chunker,
        "judged": None if judged is None else _judged(judged),
        "margin": margin,
        "keep_days": keep_days,
        "dry_run": dry_run or None,
        "force": force or None,
    }
    body = {key: value for key, value in wanted.items() if value is not None}
    with Api("retrieve", load_settings(), url) as api:
        path = f"{corpus_path(corpus)}/reindex"
        if dry_run:
            _print_estimate(api.post(path, body, *_ESTIMATE))
        else:
            _watch(api, api.post(path, body, *_JOB))


def rollback(corpus: Corpus, keep_days: KeepDays = None, url: Address = "") -> None:
    """Go back to a corpus's previous generation, with all that was written since."""
    body = {} if keep_days is None else {"keep_days": keep_days}
    with Api("retrieve", load_settings(), url) as api:
        _watch(api, api.post(f"{corpus_path(corpus)}/rollback", body, *_JOB))


def generations(corpus: Corpus, as_json: AsJson = False, url: Address = "") -> None:
    """List a corpus's generations: what is served, built, and kept for a rollback."""
    with Api("retrieve", load_settings(), url) as api:
        answer = api.get(f"{corpus_path(corpus)}/generations", "generations")
    if as_json:
        print(orjson.dumps(answer, option=orjson.OPT_INDENT_2).decode())
        return
    table = Table(
        *("generation", "state", "engine", "documents", "chunks", "made of", "kept until"), box=None
    )
    for one in answer["generations"]:
        table.add_row(
            str(one["number"]),
            one["state"],
            one["made"]["engine"],
            str(one["documents"]),
            str(one["chunks"]),
            escape(one_line(_made(one["made"]))),
            (one["until"] or "")[:19].replace("T", " "),
        )
    output().print(table)


def migrate(
    corpus: Corpus,
    to: Annotated[
        str,
        typer.Option(
            help="local, qdrant, or qdrant://HOST:PORT, which must be the Qdrant of retrieve.",
            show_default=False,
        ),
    ],
    keep_days: KeepDays = None,
    url: Address = "",
) -> None:
    """Move a corpus to another engine as it is, while it is in use."""
    engine, _, address = to.partition("://")
    if engine not in ("local", "qdrant") or (address and engine == "local"):
        raise CliError(f"--to is local, qdrant or qdrant://HOST:PORT, not {one_line(to)}")
    body: dict[str, Any] = {"engine": engine}
    if address:
        body["qdrant"] = address.rstrip("/")
    if keep_days is not None:
        body["keep_days"] = keep_days
    with Api("retrieve", load_settings(), url) as api:
        _watch(api, api.post(f"{corpus_path(corpus)}/reindex", body, *_JOB))


def _judged(file: Path) -> list[Any]:
    try:
        lines = file.read_bytes().splitlines()
    except OSError as error:
        raise CliError(f"{file} can't be read: {error.strerror}") from None
    found = []
    for number, line in enumerate(lines, start=1):
        if line.strip():
            try:
                found.append(orjson.loads(line))
            except ValueError:
                raise CliError(f"{file}:{number} is no JSON") from None
    if not found:
        raise CliError(f"{file} holds no judged query")
    return found


def _watch(api: Api, job: Mapping[str, Any]) -> None:
    """Follow a job to its end. Raises CliError where it does not succeed."""
    console = notes()
    console.print(f"job {job['id']}", markup=False)
    done = watch_job(api, job["id"], console)
    if done["state"] == "failed":
        raise CliError(f"job {done['id']} failed: {done['error']['message']}")
    if done["state"] == "cancelled":
        raise CliError(f"job {done['id']} was cancelled")
    result = done["result"]
    console.print(
        f"corpus {done['corpus']} is served from generation {result['generation']} "
        f"({result['engine']}): {result['documents']} documents, {result['chunks']} chunks",
        markup=False,
    )


def _print_estimate(told: Mapping[str, Any]) -> None:
    table = Table("", "", box=None, show_header=False)
    table.add_row("now", escape(one_line(_made(told["now"]))))
    table.add_row("then", escape(one_line(_made(told["then"]))))
    table.add_row("documents", f"{told['documents']}, of which {told['sampled']} were tried")
    table.add_row("chunks", str(told["chunks"]))
    table.add_row("vectors that stay", f"{told['reused']:.0%}")
    table.add_row("seconds", str(told["seconds"]))
    table.add_row("MiB on the disk", f"{told['bytes'] / 2**20:.1f}")
    output().print(table)


def _made(made: Mapping[str, Any]) -> str:
    return (
        f"{made['model']} {made['revision']} ({made['dimension']} numbers), "
        f"{made['chunker']} {made['chunk_tokens']} tokens (overlap {made['chunk_overlap']}), "
        f"{made['language']}"
    )
