"""``refdesk export`` and ``refdesk import``: the documents of a corpus as a file, and back."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from shared.cli.carry import PATIENCE_S, save, send
from shared.cli.console import notes
from shared.cli.failures import CliError
from shared.cli.http import Api, corpus_path
from shared.cli.jobs import report_job, watch_job
from shared.cli.upload import ensure_corpus
from shared.settings import load_settings

_KINDS = {
    ".ndjson": "application/x-ndjson",
    ".jsonl": "application/x-ndjson",
    ".parquet": "application/vnd.apache.parquet",
    ".zip": "application/zip",
}

Address = Annotated[str, typer.Option(help="Address of the retrieve service.")]


def export(
    corpus: Annotated[str, typer.Argument(help="The corpus.", show_default=False)],
    file: Annotated[Path, typer.Argument(help="The file to write.", show_default=False)],
    form: Annotated[
        Literal["ndjson", "parquet"] | None,
        typer.Option("--format", help="By the file's suffix if not given, else ndjson."),
    ] = None,
    vectors: Annotated[
        bool, typer.Option("--vectors", help="With the chunks and their vectors.")
    ] = False,
    url: Address = "",
) -> None:
    """Write the documents of a corpus to a file, as NDJSON or Parquet.

    The file appears once it is complete; one that is there is replaced then.
    """
    console = notes()
    form = form or ("parquet" if file.suffix.lower() == ".parquet" else "ndjson")
    query = f"?format={form}&vectors={'true' if vectors else 'false'}"
    with Api("retrieve", load_settings(), url, patience_s=PATIENCE_S) as api:
        path = f"{corpus_path(corpus)}/export{query}"
        size = save(api, path, file, console, f"export {corpus}")
    console.print(f"exported corpus {corpus}: {size} bytes in {file}", markup=False)


def import_file(
    file: Annotated[
        Path,
        typer.Argument(
            help="NDJSON (.ndjson, .jsonl) or Parquet with documents, or a ZIP of files.",
            show_default=False,
        ),
    ],
    corpus: Annotated[str, typer.Option(help="The corpus; it is made if there is none.")],
    url: Address = "",
) -> int:
    """Load an export, or any file of documents, into a corpus by a job, and watch it.

    Ctrl-C ends the watching, not the job. The exit code is 1 where a document can't be stored.
    """
    console = notes()
    kind = _KINDS.get(file.suffix.lower())
    if not file.is_file():
        raise CliError(f"there is no file {file}")
    if kind is None:
        raise CliError(f"{file} has none of the suffixes {', '.join(_KINDS)}")
    with Api("retrieve", load_settings(), url, patience_s=PATIENCE_S) as api:
        if ensure_corpus(api, corpus):
            console.print(f"made corpus {corpus}", markup=False)
        path = f"{corpus_path(corpus)}/ingest"
        job = send(api, path, file, kind, console, f"send {file.name}", "id", "state")
        job = watch_job(api, job["id"], console)
        report_job(api, job, console)
    return 1 if job["verdicts"]["failed"] else 0
